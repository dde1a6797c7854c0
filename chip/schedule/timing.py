"""When the members of a schedule are at work: what is left of it without its instructions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from chip.schedule.flows import Ints


class TooLong(Exception):
    """A schedule is to be over sooner than it can be."""


@dataclass(frozen=True)
class ScheduleTiming:
    """First cycle, end and instruction count of each member; plain numbers, to be kept on disk.

    From `quiet_cycle` on nothing is under way, from `end_cycle` on all results are in memory.
    """

    quiet_cycle: int
    end_cycle: int
    members: tuple[int, ...]
    first_cycles: tuple[int, ...]
    end_cycles: tuple[int, ...]
    instructions: tuple[int, ...]

    @cached_property
    def columns(self) -> Ints:
        """Members, first cycles, ends and instructions [4, members]."""
        rows = (self.members, self.first_cycles, self.end_cycles, self.instructions)
        return np.array(rows, np.int64)

    @property
    def timings(self) -> Sequence[tuple["ScheduleTiming", int]]:
        """Itself, from cycle 0 on; see `TimingSequence.timings`."""
        return ((self, 0),)


_NONE = np.zeros((4, 0), np.int64)
Placed = tuple[ScheduleTiming, Sequence[int] | None, int]


def merged(parts: Iterable[Placed]) -> ScheduleTiming:
    """The timing of all parts together.

    Each has the numbers that its members 0, 1, .. have in the whole (None: the same), and the
    cycle at which it begins.
    """
    quiet = end = 0
    columns, cycles = [_NONE], [0]
    for timing, numbers, cycle in parts:
        quiet, end = max(quiet, cycle + timing.quiet_cycle), max(end, cycle + timing.end_cycle)
        mine = timing.columns
        if numbers is not None:
            mine = mine.copy()
            mine[0] = np.asarray(numbers)[mine[0]]
        columns.append(mine)
        cycles.append(cycle)
    later = np.repeat(cycles, [mine.shape[1] for mine in columns])
    members, firsts, ends, counts = np.concatenate(columns, axis=1)
    firsts, ends = firsts + later, ends + later
    order = np.argsort(members, kind="stable")
    found, starts = np.unique(members[order], return_index=True)
    if not len(found):
        return ScheduleTiming(quiet, end, (), (), (), ())
    rows = (
        found,
        np.minimum.reduceat(firsts[order], starts),
        np.maximum.reduceat(ends[order], starts),
        np.add.reduceat(counts[order], starts),
    )
    return ScheduleTiming(quiet, end, *(tuple(row.tolist()) for row in rows))


@dataclass
class TimingSequence:
    """Timings one after another, in place of a schedule that has instructions.

    `stalls` are (cycle, cycles) of all members; `since_cycles`, at the end, is since the last one.
    """

    end_cycle: int = 0
    stalls: list[tuple[int, int]] = field(default_factory=list)
    since_cycles: int = 0
    _parts: list[ScheduleTiming] = field(default_factory=list)
    _cycles: list[int] = field(default_factory=list)

    @property
    def timings(self) -> Sequence[tuple[ScheduleTiming, int]]:
        """Each with the cycle at which it begins."""
        return list(zip(self._parts, self._cycles, strict=True))

    def add(self, timing: ScheduleTiming, cycle: int) -> None:
        """Count one that begins at `cycle`."""
        self._parts.append(timing)
        self._cycles.append(cycle)
        self.end_cycle = max(self.end_cycle, cycle + timing.end_cycle)

    def since(self, cycles: int) -> "TimingSequence":
        """The same without a stall, so many cycles after the last one."""
        return TimingSequence(self.end_cycle, self.stalls, cycles, self._parts, self._cycles)
