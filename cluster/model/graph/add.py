"""The residual connection."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value


@register
@dataclass(frozen=True)
class Add(Op):
    """out = x + y."""

    kind: ClassVar[str] = "add"

    x: Value
    y: Value

    def check(self) -> None:
        """All three have the same dimensions."""
        self.require(self.x.dims == self.y.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As both inputs: whole, or summands of them, which stay summands.

        Where y alone is a summand on every rank, an all-reduce comes before.
        """
        self.require(inputs[0] is inputs[1], "both inputs must be whole, or summands")
        self.require(inputs[0] is not Spread.SPLIT, "its inputs must not be cut")
        return inputs[0]

    def reference(self, run: Run, x: F32, y: F32) -> F32:
        """In float32."""
        return x + y

    exact = reference
