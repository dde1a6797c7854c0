"""The way of a launch through a pipeline: its stages and what lies between, on one time axis.

The arithmetic is that of `lower.compose`, on extents instead of schedules, so that a launch of a
thousand chips takes a millisecond; tests hold the two equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest
from typing import NamedTuple

import numpy as np

from chip.energy import Activity
from chip.schedule import Pace
from chip.schedule.flows import Ints
from chip.schedule.sketch import NEVER
from cluster.lowering.clocking import Pacing, pacing
from cluster.lowering.wires import Gap, Group, Wires, gap_of, group_of
from cluster.planning.costs import Costs, Kind, Width
from topology.fabric import compiled


@dataclass(frozen=True)
class Run:
    """A launch on its time axis: cycles in all, of them for clocks, and of each chip."""

    cycles: int
    startup_cycles: int
    stalled_cycles: int
    chips: Ints  # those with anything to do
    busy_cycles: Ints  # of each of them, from its first instruction to its last
    instructions: Ints


class Part(NamedTuple):
    """A stage, or what lies between two, from `cycle` on; extents of its chips from there."""

    chips: Sequence[int]
    firsts: Ints | tuple[int, ...]
    ends: Ints | tuple[int, ...]
    counts: Ints | tuple[int, ...]
    cycle: int
    stalled_cycles: int  # up to there


class At(NamedTuple):
    """When a part of what crosses to the next stage begins and ends, and what stalled before it.

    `since_cycles`, at its end, are those that the next stage counts: from the last stall, or the
    first part.
    """

    cycle: int
    end_cycle: int
    stalled_cycles: int
    since_cycles: int


def across(parts: Sequence[int], pace: Pace | None) -> Iterator[At]:
    """Parts of so many cycles, with stalls between where they are due; see `Axis.boundary`."""
    since, begun = pace.since_cycles if pace else 0, 0
    cycle = stalled = 0
    for cycles in parts:
        if pace and since + cycles > pace.limit_cycles:
            cycle += pace.stall_cycles
            stalled += pace.stall_cycles
            since = begun = 0
        since, begun = since + cycles, begun + cycles
        yield At(cycle, cycle + cycles, stalled, begun)
        cycle += cycles


class Course:
    """A placed pipeline of `layers` layers per stage, the LM head in its last."""

    def __init__(
        self,
        costs: Costs,
        wires: Wires,
        width: Width,
        layers: Sequence[int],
        placement: Sequence[tuple[int, ...]],
    ) -> None:
        self.costs, self.wires, self.width = costs, wires, width
        self.placement = placement
        last = len(layers) - 1
        self.kinds = tuple(
            Kind(width, count, number == last, team.routes, len(team.members))
            for number, (count, team) in enumerate(zip(layers, self.groups, strict=True))
        )

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Members and routes of each stage."""
        return tuple(group_of(self.wires, group) for group in self.placement)

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """What lies between the stages."""
        return tuple(gap_of(self.wires, a, b) for a, b in pairwise(self.placement))

    @cached_property
    def used(self) -> frozenset[int]:
        """Chips that hold a part of the model or pass its vectors on."""
        members = {chip for team in self.groups for chip in team.members}
        return frozenset(members.union(*(gap.chips for gap in self.gaps)))

    @cached_property
    def clocks(self) -> Pacing | None:
        """What the clocks of its chips cost, as a run without options has them."""
        known, key = self.wires.pacings, tuple(self.placement)
        if key not in known:
            known[key] = pacing(compiled(self.wires.graph), self.used, self.costs.sizes.spec)
        return known[key]

    def run(self, tokens: int, context: int) -> Run:
        """A launch of `tokens` tokens at a context bucket; raises ProgramError."""
        size, stalled = 1 + max(self.used), 0
        firsts, ends, counts = np.full(size, NEVER), *np.zeros((2, size), np.int64)
        for part in self._parts(tokens, context):
            at, stalled = list(part.chips), part.stalled_cycles
            firsts[at] = np.minimum(firsts[at], np.add(part.firsts, part.cycle))
            ends[at] = np.maximum(ends[at], np.add(part.ends, part.cycle))
            counts[at] += part.counts
        chips: Ints = np.flatnonzero(counts)
        busy = (ends - firsts)[chips]
        startup = self.clocks.start_cycle if self.clocks else 0
        return Run(int(ends.max()), startup, stalled, chips, busy, counts[chips])

    def cycles(self, tokens: int, context: int) -> int:
        """Cycles of a launch, and nothing else; raises ProgramError."""
        clocks, costs = self.clocks, self.costs
        cycle, since = clocks.start_cycle if clocks else 0, 0
        for kind, gap in zip_longest(self.kinds, self.gaps):
            pace = clocks.pace(since) if clocks else None
            end, since = costs.through(kind, tokens, context, pace)
            cycle += end
            if gap:
                pace = clocks.pace(since) if clocks else None
                limit = pace.limit_cycles if pace else None
                *_, last = across(costs.crossing_cycles(self.width, gap, tokens, limit), pace)
                cycle, since = cycle + last.end_cycle, last.since_cycles
        return cycle

    def _parts(self, tokens: int, context: int) -> Iterator["Part"]:
        """Stages and what lies between, in order."""
        clocks, costs = self.clocks, self.costs
        cycle, since, stalled = clocks.start_cycle if clocks else 0, 0, 0
        for kind, team, gap in zip_longest(self.kinds, self.groups, self.gaps):
            pace = clocks.pace(since) if clocks else None
            stage = costs.outline(kind, tokens, context, pace)
            stalled += sum(stall for _, stall in stage.stalls)
            mine = [n for n in range(kind.members) if stage.counts[n]]
            chips = [team.members[n] for n in mine]
            extents = (stage.firsts[mine], stage.ends[mine], stage.counts[mine])
            yield Part(chips, *extents, cycle, stalled)
            cycle, since = cycle + stage.end_cycle, stage.since_cycles
            if gap:
                pace = clocks.pace(since) if clocks else None
                limit = pace.limit_cycles if pace else None
                parts = costs.between(self.width, gap.paths, tokens, limit)
                start, before = cycle, stalled
                for part, at in zip(parts, across([p.end_cycle for p in parts], pace), strict=True):
                    stalled, since = before + at.stalled_cycles, at.since_cycles
                    cycle = start + at.end_cycle
                    chips = [gap.chips[n] for n in part.members]
                    begins = start + at.cycle
                    yield Part(chips, part.firsts, part.ends, part.counts, begins, stalled)

    def activity(self, context: int) -> Activity:
        """What a decode launch does on all its chips."""
        limit = self.clocks.pace(0).limit_cycles if self.clocks else None
        total = Activity()
        for kind in self.kinds:
            total += self.costs.activity(kind, context, limit)
        for gap in self.gaps:
            total += self.costs.activity_between(self.width, gap.paths)
        return total
