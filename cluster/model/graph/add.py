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
        """Whole; where y is a summand on every rank, an all-reduce comes before."""
        self.require(set(inputs) == {Spread.WHOLE}, "both inputs must be whole")
        return Spread.WHOLE

    def reference(self, run: Run, x: F32, y: F32) -> F32:
        """In float32."""
        return x + y

    exact = reference
