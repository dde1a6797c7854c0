"""The experts that a rank holds, where those of a mixture are spread over its group."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.route import CHOICE
from cluster.model.graph.values import Value


@register
@dataclass(frozen=True)
class OwnExperts(Op):
    """out = the choice with the numbers that experts have on the rank, of `experts` in all.

    Whatever a row has chosen elsewhere has a gate of 0, and the number of some expert of the rank.
    If a rank holds fewer than a row chooses, out has all that it holds, in order.
    """

    kind: ClassVar[str] = "own_experts"

    choice: Value
    experts: int

    def check(self) -> None:
        """Both are [choice, chosen], or the result [choice, held]."""
        self.require(self.choice.dims[:1] == (CHOICE,), "the choice must be [choice, chosen]")
        self.require(self.out.dims[:1] == (CHOICE,), "the result must be [choice, chosen]")
        self.require(self.slots <= self.choice.dims[1].size, "there are more than were chosen")

    @property
    def slots(self) -> int:
        """How many a rank runs."""
        return self.out.dims[1].size

    @property
    def runs_all(self) -> bool:
        """Whether a rank runs all that it holds."""
        return self.slots < self.choice.dims[1].size

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Each rank has its own."""
        self.require(inputs[0] is Spread.WHOLE, "the choice must be whole on every rank")
        return Spread.SPLIT

    def reference(self, run: Run, choice: F32) -> F32:
        """In float32."""
        own = run.own_experts(self.experts)
        numbers = choice[:, 0] - np.float32(own.start)
        if self.runs_all:
            every = np.arange(self.slots, dtype=np.float32)
            mine = choice[:, 1, :, None] * (numbers[:, :, None] == every)
            gates = mine[:, 0]
            for slot in range(1, mine.shape[1]):
                gates = gates + mine[:, slot]
            return np.stack([np.broadcast_to(every, gates.shape), gates], axis=1)
        held = np.clip(numbers, 0, len(own) - 1)
        return np.stack([held, choice[:, 1] * (held == numbers)], axis=1).astype(np.float32)

    exact = reference
