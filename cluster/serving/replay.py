"""Traffic through a plan in virtual time: the scheduler's rules, compiled, and what they gave."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.serving.build import Policy, of_arrays
from cluster.serving.clockwork import Clockwork
from cluster.serving.compiled import compiled_play
from cluster.serving.core import columns as c
from cluster.serving.core import play as p
from cluster.serving.traffic import Seconds, Traffic
from cluster.serving.traffic import traffic as traffic_of

STEPS_AT_A_TIME = 1 << 20  # between two looks at the clock and the keyboard


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of requests, by their number; seconds are virtual."""

    traffic: Traffic
    state: c.State
    played: p.Played

    def time_s(self, column: int) -> Seconds:
        """Seconds of all requests: ARRIVES, ENTERED, FIRST, LAST."""
        return np.asarray(self.state.times[column], np.float64)

    @property
    def end_s(self) -> float:
        """When the last token was at the host."""
        return float(self.time_s(c.LAST).max())

    @property
    def ttft_s(self) -> Seconds:
        """From arrival to the first token."""
        return self.time_s(c.FIRST) - self.time_s(c.ARRIVES)

    @property
    def e2e_s(self) -> Seconds:
        """From arrival to the last token."""
        return self.time_s(c.LAST) - self.time_s(c.ARRIVES)

    @property
    def tpot_s(self) -> Seconds:
        """Mean seconds of a token after the first; nan where that was all."""
        more = self.traffic.new - 1
        spans_s = self.time_s(c.LAST) - self.time_s(c.FIRST)
        found: Seconds = np.full(len(more), np.nan)
        np.divide(spans_s, more, out=found, where=more > 0)
        return found

    @property
    def works(self) -> npt.NDArray[np.int64]:
        """Works that entered [line, context blocks]."""
        return np.asarray(self.played.works, np.int64)

    def total(self, which: int) -> int:
        """One of the totals of `core.play`."""
        return int(self.played.totals[which])


def replay(
    clockwork: Clockwork,
    traffic: Traffic,
    policy: Policy | None = None,
    log_steps: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Play all requests; those that are longer than the context must not be among them."""
    state, costs, played = _begin(clockwork, traffic, policy or Policy(), log_steps)
    play = compiled_play()
    while play(state, costs, played, STEPS_AT_A_TIME):
        progress(int(played.totals[p.COMPLETED]), len(traffic))
    assert played.totals[p.COMPLETED] == len(traffic), "a request has not ended"
    return Outcome(traffic, state, played)


def ready(clockwork: Clockwork) -> None:
    """Have all tables, and the compiled rules, before a clock runs."""
    none = traffic_of([], [], [])
    state = _begin(clockwork, none, Policy(), 0)
    compiled_play()(*state, 1)


def _begin(
    clockwork: Clockwork, traffic: Traffic, policy: Policy, log_steps: int
) -> tuple[c.State, p.Costs, p.Played]:
    shape, count = clockwork.shape, len(traffic)
    if policy.block_tokens:
        policy = replace(policy, most_blocks=int(traffic.blocks.max(initial=1)))
    state = of_arrays(
        shape, policy, clockwork.moves, count, np.array(traffic.hashes), transfers=log_steps
    )
    columns: dict[int, Any] = {
        c.PROMPT: traffic.prompt, c.MOST: traffic.new, c.NUMBER: np.arange(count),
        c.FIRST_BLOCK: traffic.first_block, c.BLOCKS: traffic.blocks, c.STATE: c.QUEUED,
    }  # fmt: skip
    first = traffic.users or count  # the others come when one of these has ended
    arrays: Any = state  # of which columns are set as wholes
    for column, values in columns.items():
        arrays.requests[column] = values
    arrays.times[c.ARRIVES] = traffic.arrives_s
    arrays.heaps[c.LATER] = np.arange(count)  # in order: a heap as it is
    state.sizes[c.LATER] = first
    log: Any = (
        np.zeros(log_steps), np.zeros(log_steps), np.zeros((2, log_steps), np.int64),
        np.full((2, log_steps, shape.stages), c.NOBODY, np.int64),
    )  # fmt: skip
    totals = np.zeros(p.TOTALS, np.int64)
    totals[p.NEXT_USER] = first
    counted: Any = (
        np.zeros((2, clockwork.blocks + 1), np.int64), np.zeros(p.GAP_BINS, np.int64),
        np.zeros(2), totals, int(traffic.users > 0),
    )  # fmt: skip
    ends: Any = clockwork.ends
    return state, p.Costs(ends), p.Played(p.Log(*log), *counted)
