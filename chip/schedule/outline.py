"""The time a schedule takes, without its instructions: what a plan needs to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chip.schedule.reserve import Schedule
from chip.spec import ChipSpec


@dataclass
class Outline:
    """A schedule of which only extents and counts are kept; filled by `repeat` as a Schedule is."""

    spec: ChipSpec
    end_cycle: int = 0
    member_end_cycles: dict[int, int] = field(default_factory=dict)
    first_cycles: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    stalls: list[tuple[int, int]] = field(default_factory=list)
    since_cycles: int = 0

    @property
    def members(self) -> tuple[int, ...]:
        """Who does something in it."""
        return tuple(self.counts)

    def first_cycle(self, member: int) -> int:
        """Cycle of a member's first instruction."""
        return self.first_cycles[member]

    def instructions(self, member: int) -> int:
        """Instructions of a member, without the NOPs between them."""
        return self.counts[member]

    def repeat(
        self,
        part: Schedule,
        offset: int,
        moved: Callable[[int, int], int],
        members: Mapping[int, int] | None = None,
    ) -> None:
        """Count the chains of a schedule, `offset` cycles later; see Schedule.repeat."""
        for number in part.members:
            member = members[number] if members else number
            first, last = part.first_cycle(number) + offset, part.member_end_cycles[number] + offset
            self.first_cycles[member] = min(self.first_cycles.get(member, first), first)
            self.member_end_cycles[member] = max(self.member_end_cycles.get(member, 0), last)
            self.counts[member] = self.counts.get(member, 0) + part.instructions(number)
        self.end_cycle = max(self.end_cycle, offset + part.end_cycle)
