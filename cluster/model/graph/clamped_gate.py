"""The gate of gpt-oss: both inputs are clamped, and 1 is added to what is gated."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import exp, reciprocal
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value


@register
@dataclass(frozen=True)
class ClampedGate(Op):
    """out = (u + 1) * g * sigmoid(slope * g), with g = min(gate, limit), u = up within +-limit."""

    kind: ClassVar[str] = "clamped_gate"

    gate: Value
    up: Value
    slope: float
    limit: float

    def check(self) -> None:
        """Both inputs have the dimensions of the result."""
        self.require(self.limit > 0, f"the limit is {self.limit}")
        self.require(self.gate.dims == self.up.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As both inputs."""
        self.require(len(set(inputs)) == 1, "both inputs must be cut alike")
        self.require(inputs[0] is not Spread.PARTIAL, "its inputs must be summed up before")
        return inputs[0]

    def reference(self, run: Run, gate: F32, up: F32) -> F32:
        """In float32."""
        gate, up = self._clamped(gate, up)
        found: F32 = up * gate / (1 + np.exp(np.float32(-self.slope) * gate))
        return found

    def exact(self, run: Run, gate: F32, up: F32) -> F32:
        """As chips compute it: sigmoid * (gate * up)."""
        gate, up = self._clamped(gate, up)
        found: F32 = reciprocal(exp(gate * np.float32(-self.slope)) + np.float32(1)) * (gate * up)
        return found

    def _clamped(self, gate: F32, up: F32) -> tuple[F32, F32]:
        """Both within their limits, and 1 more than up."""
        limit = np.float32(self.limit)
        return np.minimum(gate, limit), np.maximum(np.minimum(up, limit), -limit) + np.float32(1)
