"""The router of a mixture: which experts a token goes to, and how much each of them counts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import exp, reciprocal
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Dim, Value

CHOICE = Dim("choice", 2)  # the number of an expert, and its gate


@register
@dataclass(frozen=True)
class Route(Op):
    """out = the experts with the highest scores and their gates, the softmax of these scores.

    Experts are in the order of their scores; of equal ones the lowest comes first.
    """

    kind: ClassVar[str] = "route"

    scores: Value

    def check(self) -> None:
        """Scores are [experts], the result [choice, chosen]."""
        self.require(len(self.scores.dims) == 1, "scores must be [experts]")
        self.require(len(self.out.dims) == 2, "the result must be [choice, chosen]")
        choice, chosen = self.out.dims
        self.require(choice == CHOICE, "the result must be [choice, chosen]")
        experts = self.scores.dims[0].size
        self.require(1 <= chosen.size <= experts, f"{chosen.size} of {experts} experts are chosen")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Whole: each rank finds the same."""
        self.require(inputs[0] is Spread.WHOLE, "scores must be whole on every rank")
        return Spread.WHOLE

    def reference(self, run: Run, scores: F32) -> F32:
        """In float32."""
        numbers, top = self._highest(scores)
        powers = np.exp(top - top[:, :1])
        return np.stack([numbers, powers / powers.sum(axis=1, keepdims=True)], axis=1)

    def exact(self, run: Run, scores: F32) -> F32:
        """As chips compute it: powers are added in order."""
        numbers, top = self._highest(scores)
        powers = exp(top - top[:, :1])
        total = powers[:, :1].copy()
        for slot in range(1, powers.shape[1]):
            total += powers[:, slot : slot + 1]
        return np.stack([numbers, powers * reciprocal(total)], axis=1)

    def _highest(self, scores: F32) -> tuple[F32, F32]:
        """Numbers and scores [rows, chosen] of the experts."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.out.dims[1].size]
        return order.astype(np.float32), np.take_along_axis(scores, order, axis=1)
