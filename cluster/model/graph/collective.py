"""What ranks of a tensor-parallel group exchange; `shard` puts these ops in."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.op import Op, Spread, register
from cluster.model.graph.values import Value


@register
@dataclass(frozen=True)
class AllReduce(Op):
    """out = residual + the sum of every rank's y, on every rank; without a residual the sum."""

    kind: ClassVar[str] = "all_reduce"

    y: Value
    residual: Value | None = None

    def check(self) -> None:
        """All have the same dimensions."""
        self.require(self.y.dims == self.out.dims, "dimensions differ")
        if self.residual is not None:
            self.require(self.residual.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Whole."""
        self.require(inputs[0] is Spread.PARTIAL, "y must be a summand on every rank")
        return Spread.WHOLE
