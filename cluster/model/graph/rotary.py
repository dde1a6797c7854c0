"""Rotary position embedding of queries and keys."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cluster.model.graph.op import F32, Factored, Op, Run, Spread, register
from cluster.model.graph.values import Value
from cluster.model.rope import RopeScaling, cos_sin, frequencies


@dataclass(frozen=True)
class RotaryTable:
    """Angles position * theta ** (-2 i / width), perhaps scaled, for adjacent pairs i."""

    theta: float
    width: int
    scaling: RopeScaling | None = None

    @property
    def name(self) -> str:
        """Short and of its own among the tables of a model."""
        scaled = f".{self.scaling.kind}{self.scaling.factor:g}" if self.scaling else ""
        return f".{self.theta:g}x{self.width}{scaled}"

    def turns(self, positions: NDArray[np.int64]) -> tuple[F32, F32]:
        """Cosine and sine [positions, width / 2]: every host computes the same bits."""
        speeds = frequencies(self.theta, self.width)
        if self.scaling:
            speeds = self.scaling.scaled(speeds, self.theta)
        cosine, sine = cos_sin(positions.astype(np.float64)[:, None] * speeds)
        if self.scaling:
            cosine, sine = cosine * self.scaling.magnitude, sine * self.scaling.magnitude
        return cosine.astype(np.float32), sine.astype(np.float32)


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

    def reference(self, run: Run, x: F32) -> F32:
        """In float32, as chips compute it too."""
        cosine, sine = (table[:, None] for table in run.turns(self.table))
        even, odd = x[..., 0::2], x[..., 1::2]
        result = np.empty_like(x)
        result[..., 0::2] = even * cosine - odd * sine
        result[..., 1::2] = even * sine + odd * cosine
        return result

    def exact(self, run: Run, x: F32 | Factored) -> F32:
        """As chips compute it: factors of a norm multiply what is turned."""
        if isinstance(x, Factored):
            turned: F32 = self.reference(run, x.heads) * x.factors
            return turned
        return self.reference(run, x)
