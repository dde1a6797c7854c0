"""Extents of schedules as plain numbers, which can be kept on disk and put one after another."""

from dataclasses import dataclass, field

import numpy as np

from chip.schedule.flows import Ints
from chip.schedule.reserve import Schedule

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Sketch:
    """Extents of a schedule: first cycle, end and instructions of each of its members."""

    quiet_cycle: int
    end_cycle: int
    members: tuple[int, ...]
    firsts: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]


def sketch(plan: Schedule) -> Sketch:
    """What there is to know of a schedule."""
    members = plan.members
    return Sketch(
        plan.quiet_cycle,
        plan.end_cycle,
        members,
        tuple(plan.first_cycle(m) for m in members),
        tuple(plan.member_end_cycles[m] for m in members),
        tuple(plan.instructions(m) for m in members),
    )


@dataclass
class Extents:
    """Schedules one after another, of which only extents and counts are kept, by member."""

    size: int  # members are 0..size - 1
    end_cycle: int = 0
    stalls: list[tuple[int, int]] = field(default_factory=list)
    since_cycles: int = 0

    def __post_init__(self) -> None:
        self.firsts: Ints = np.full(self.size, NEVER)
        self.ends, self.counts = np.zeros((2, self.size), np.int64)

    def add(self, part: Sketch, offset: int) -> None:
        """Count a schedule, `offset` cycles later; see Schedule.repeat."""
        at = list(part.members)
        self.firsts[at] = np.minimum(self.firsts[at], np.add(part.firsts, offset))
        self.ends[at] = np.maximum(self.ends[at], np.add(part.ends, offset))
        self.counts[at] += part.counts
        self.end_cycle = max(self.end_cycle, offset + part.end_cycle)
