"""What ranks of a tensor-parallel group exchange; `shard` puts these ops in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from chip.kernels.allreduce import team_of
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value
from topology.collectives.sums import FP32, SUM_FORMATS


@register
@dataclass(frozen=True)
class AllReduce(Op):
    """out = residual + the sum of every rank's y, on every rank; without a residual the sum."""

    kind: ClassVar[str] = "all_reduce"
    collective: ClassVar[bool] = True

    y: Value
    residual: Value | None = None
    sums: str = FP32  # in which those of nodes travel to other nodes

    def check(self) -> None:
        """All have the same dimensions."""
        self.require(self.y.dims == self.out.dims, "dimensions differ")
        self.require(self.sums in SUM_FORMATS, f"sums cannot travel as {self.sums}")
        if self.residual is not None:
            self.require(self.residual.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Whole."""
        self.require(inputs[0] is Spread.PARTIAL, "y must be a summand on every rank")
        return Spread.WHOLE

    def reference(self, run: Run, parts: Sequence[F32], residual: F32 | None = None) -> F32:
        """The sum of the ranks' `parts`, in the order in which chips add."""
        return summed_over_ranks(parts, residual, self.sums)

    exact = reference


def summed_over_ranks(parts: Sequence[F32], residual: F32 | None = None, sums: str = FP32) -> F32:
    """Residual and parts from left to right; of 16, 24, .. ranks the sums of each eight.

    These are rounded to the format `sums` once, those that stay in their node as well, so that all
    ranks have the same bits; added up they are in fp32.
    """
    size = team_of(len(parts))
    if size < len(parts):
        every = (reduce(np.add, parts[n : n + size]) for n in range(0, len(parts), size))
        parts = [SUM_FORMATS[sums].rounded(one) for one in every]
    return reduce(np.add, parts if residual is None else (residual, *parts))
