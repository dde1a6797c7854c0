"""Rotary position embedding of queries and keys."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.op import Op, Spread, register
from cluster.model.graph.values import Value
from cluster.model.rope import RopeScaling


@dataclass(frozen=True)
class RotaryTable:
    """Angles position * theta ** (-2 i / width), perhaps scaled, for adjacent pairs i."""

    theta: float
    width: int
    scaling: RopeScaling | None = None


@register
@dataclass(frozen=True)
class Rotary(Op):
    """Each pair (2 i, 2 i + 1) of every head turned by the angle of the row's position."""

    kind: ClassVar[str] = "rotary"

    x: Value
    table: RotaryTable

    def check(self) -> None:
        """x is [heads, head_dim], all of head_dim turns."""
        self.require(len(self.x.dims) == 2, "x must be [heads, head_dim]")
        width = self.x.dims[-1].size
        self.require(width == self.table.width, f"turns {self.table.width} of {width} elements")
        self.require(width % 2 == 0, f"head_dim {width} is odd, rotary needs pairs")
        self.require(self.out.dims == self.x.dims, "the result has other dimensions")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]
