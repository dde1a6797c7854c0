"""Soft caps on logits."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import tanh
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value


@register
@dataclass(frozen=True)
class SoftCap(Op):
    """out = cap * tanh(x / cap): between -cap and cap, and about x where that is small."""

    kind: ClassVar[str] = "soft_cap"

    x: Value
    cap: float

    def check(self) -> None:
        """The result has the dimensions of x."""
        self.require(self.cap > 0, f"the cap is {self.cap}")
        self.require(self.x.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        capped: F32 = np.float32(self.cap) * np.tanh(x / np.float32(self.cap))
        return capped

    def exact(self, run: Run, x: F32) -> F32:
        """As chips compute it."""
        return soft_cap(x, self.cap)


def soft_cap(x: F32, cap: float, scale: float = 1.0) -> F32:
    """cap * tanh(x * (scale / cap)), bit for bit as chips compute it."""
    capped: F32 = tanh(x * np.float32(scale / cap)) * np.float32(cap)
    return capped
