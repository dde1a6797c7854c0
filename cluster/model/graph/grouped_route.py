"""The router of DeepSeek V3 (DeepSeek-AI 2024) and its kin: sigmoids, a bias, groups of experts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import exp, reciprocal
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.route import CHOICE
from cluster.model.graph.values import Value, Weight

GROUP_BEST = 2  # experts of a group that its score is the sum of


@register
@dataclass(frozen=True)
class GroupedRoute(Op):
    """out = the experts with the highest sigmoid(score) + bias, and their gates, sigmoid(score).

    Only experts of `kept` of the `groups` of neighbours may be chosen: those with the highest sums
    of their two best. Gates are divided by their sum if `normed`, then multiplied by `scale`.
    Experts are in the order in which they are chosen; of equal ones the lowest comes first, and so
    it is with groups.
    """

    kind: ClassVar[str] = "grouped_route"

    scores: Value
    bias: Weight
    groups: int
    kept: int
    normed: bool
    scale: float

    def check(self) -> None:
        """Scores and bias are [experts], the result [choice, chosen]."""
        self.require(len(self.scores.dims) == 1, "scores must be [experts]")
        self.require(self.bias.out == self.scores.dims, "the bias has other dimensions")
        self.require(len(self.out.dims) == 2, "the result must be [choice, chosen]")
        choice, chosen = self.out.dims
        self.require(choice == CHOICE, "the result must be [choice, chosen]")
        self.require(1 <= self.kept <= self.groups, f"{self.kept} of {self.groups} groups are kept")
        most, odd = divmod(self.experts, self.groups)
        self.require(not odd, f"{self.experts} experts are not {self.groups} equal groups")
        self.require(self.groups == 1 or most >= GROUP_BEST, "a group has one expert only")
        most *= self.kept
        self.require(1 <= chosen.size <= most, f"{chosen.size} of {most} experts are chosen")

    @property
    def experts(self) -> int:
        """How many there are."""
        return self.scores.width

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Whole: each rank finds the same."""
        self.require(inputs[0] is Spread.WHOLE, "scores must be whole on every rank")
        return Spread.WHOLE

    def reference(self, run: Run, scores: F32) -> F32:
        """In float32."""
        return self._chosen(run, (1 / (1 + np.exp(-scores))).astype(np.float32), exact=False)

    def exact(self, run: Run, scores: F32) -> F32:
        """As chips compute it: gates are added in order."""
        return self._chosen(run, reciprocal(exp(-scores) + np.float32(1)), exact=True)

    def _chosen(self, run: Run, sigmoids: F32, exact: bool) -> F32:
        race = self._in_race(sigmoids + run.weight(self.bias))
        order = np.argsort(-race, axis=1, kind="stable")[:, : self.out.dims[1].size]
        gates = np.take_along_axis(sigmoids, order, axis=1)
        if self.normed:
            total = gates[:, :1].copy()
            for slot in range(1, gates.shape[1]):
                total += gates[:, slot : slot + 1]
            gates = gates * reciprocal(total) if exact else gates / total
        return np.stack([order.astype(np.float32), gates * np.float32(self.scale)], axis=1)

    def _in_race(self, corrected: F32) -> F32:
        """Corrected scores [rows, experts], -inf for those of groups that are not kept."""
        if self.kept == self.groups:
            return corrected
        grouped = corrected.reshape(len(corrected), self.groups, -1)
        best = -np.sort(-grouped, axis=2)[..., :GROUP_BEST]
        order = np.argsort(-best.sum(axis=2), axis=1, kind="stable")[:, : self.kept]
        kept = np.zeros(best.shape[:2], bool)
        np.put_along_axis(kept, order, True, axis=1)
        return np.where(kept[..., None], grouped, -np.inf).reshape(corrected.shape)
