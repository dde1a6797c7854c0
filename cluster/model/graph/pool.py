"""One vector for a sequence."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import rsqrt
from cluster.model.graph.int8 import dot_fp16, fp16, lane_sum
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value


@register
@dataclass(frozen=True)
class Pool(Op):
    """out = the mean of the rows of a sequence, divided by its length: one row.

    Chips add `eps` to the squared length, so that a vector of zeros stays one.
    """

    kind: ClassVar[str] = "pool"
    mixes_rows: ClassVar[bool] = True

    x: Value
    eps: float = 1e-24

    @property
    def takes_sequence(self) -> bool:
        """Always."""
        return True

    def check(self) -> None:
        """The result has the dimensions of x."""
        self.require(self.x.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Whole, as its input."""
        self.require(inputs[0] is Spread.WHOLE, "its input must be whole on every rank")
        return Spread.WHOLE

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        mean = x.reshape(len(x), -1).mean(axis=0, keepdims=True)
        unit: F32 = mean / np.linalg.norm(mean)
        return unit.reshape(1, *x.shape[1:])

    def exact(self, run: Run, x: F32) -> F32:
        """As chips compute it: rows as fp16, their sum rounded once."""
        rows = fp16(x.reshape(len(x), -1))
        mean = dot_fp16(np.ones((1, len(x)), np.float32), rows) * np.float32(1 / len(x))
        unit: F32 = mean * rsqrt(lane_sum(np.square(mean)) + np.float32(self.eps))
        return unit.reshape(1, *x.shape[1:])
