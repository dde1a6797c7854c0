"""What each chip does in a launch, put together from the schedules it has a part in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate, pairwise

from chip.program import Instruction, fill_queue
from chip.schedule import Outline, Pace, Schedule
from cluster.lowering.clocking import Clocking


@dataclass
class Parts:
    """What a chip does in a launch: members of schedules, each from an offset on."""

    clocks: Clocking | None
    items: list[tuple[Schedule | Outline, int, int]] = field(default_factory=list)

    @property
    def start_cycle(self) -> int:
        firsts = (offset + plan.first_cycle(member) for plan, member, offset in self.items)
        return min(firsts, default=self._ready_cycle)

    @property
    def end_cycle(self) -> int:
        ends = (offset + plan.member_end_cycles[member] for plan, member, offset in self.items)
        return max(ends, default=self._ready_cycle)

    @property
    def _ready_cycle(self) -> int:
        """When a chip with nothing to do is done: once it has heard that the launch starts."""
        return self.clocks.start_cycle if self.clocks else 0

    @property
    def interval_cycles(self) -> int:
        """What its program says of deskews; 0 for a chip alone."""
        return self.clocks.interval_cycles if self.clocks else 0

    @property
    def instructions(self) -> int:
        return sum(plan.instructions(member) for plan, member, _ in self.items)

    def key(self, numbers: "Numbers") -> tuple[object, ...]:
        """Equal for chips that do the same from their own starts on."""
        start = self.start_cycle
        same = ((numbers(plan, member), offset - start) for plan, member, offset in self.items)
        return (*same, *((cycle - start, stall) for cycle, stall in self.deskews))

    @cached_property
    def deskews(self) -> list[tuple[int, int]]:
        """(cycle, stall) of its Runtime deskews: those of its schedules, and where it idles."""
        if self.clocks is None:
            return []
        stall, limit = self.clocks.stall_cycles, self.clocks.interval_cycles
        aligned, idle = self.start_cycle - self.clocks.lead_cycles, self.start_cycle
        found = []
        for plan, member, offset in self.items:
            first, last = offset + plan.first_cycle(member), offset + plan.member_end_cycles[member]
            mine = [(cycle + offset, t) for cycle, t in plan.stalls if first <= cycle + offset]
            mine = [(cycle, t) for cycle, t in mine if cycle < last]
            due = mine[0][0] if mine else last
            if due - aligned > limit and first - idle >= stall:
                mine.insert(0, (first - stall, stall))
            found += mine
            if mine:
                aligned = sum(mine[-1])
            idle = last
        return found

    def startup(self, chip: int) -> tuple[Instruction, ...]:
        """The sequence that leads to its start; nothing for a chip alone."""
        return self.clocks.startup(chip, self.start_cycle) if self.clocks else ()

    def queues(self) -> dict[str, tuple[Instruction, ...]]:
        start = self.start_cycle
        placed: dict[str, list[tuple[int, Instruction]]] = {}
        for plan, member, offset in self.items:
            assert isinstance(plan, Schedule)
            for queue, instructions in plan.placed[member].items():
                shifted = [(cycle + offset - start, i) for cycle, i in instructions]
                placed.setdefault(queue, []).extend(shifted)
        stalls = [
            (cycle - start, Instruction("icu.runtime_deskew", (stall,)))
            for cycle, stall in self.deskews
        ]
        return {name: fill_queue(mine + stalls, name) for name, mine in sorted(placed.items())}


def in_parts(
    rows: int, limit_cycles: int | None, make: Callable[[int, int], Schedule]
) -> list[Schedule]:
    """What `make` returns for rows from one to another, for all `rows` one after another.

    Where rows rest changes no cycle, so that the first rows tell how long others take.
    """
    part = cache(make)
    sizes = part_sizes(rows, limit_cycles, lambda size: part(0, size).end_cycle)
    return [part(*cut) for cut in pairwise([0, *accumulate(sizes)])]


def part_sizes(rows: int, limit_cycles: int | None, cycles: Callable[[int], int]) -> list[int]:
    """Rows of as few parts as it takes for none to be longer than the limit, if there is one.

    `cycles` says how long so many rows take.
    """
    parts = 1
    while True:
        sizes = [rows * (n + 1) // parts - rows * n // parts for n in range(parts)]
        if limit_cycles is None:
            return sizes
        longest = cycles(max(sizes))
        if longest <= limit_cycles or parts == rows:
            return sizes
        parts = min(rows, max(parts + 1, parts * longest // limit_cycles))


class Numbers:
    """Numbers what members of schedules do, equal things alike."""

    def __init__(self) -> None:
        self._contents: dict[tuple[object, ...], int] = {}
        self._members: dict[tuple[int, int], int] = {}

    def __call__(self, plan: Schedule | Outline, member: int) -> int:
        key = (id(plan), member)
        if key not in self._members:
            assert isinstance(plan, Schedule)
            content = plan.content(member)
            self._members[key] = self._contents.setdefault(content, len(self._contents))
        return self._members[key]


class Axis:
    """The time axis of a launch: schedules one after another, and the parts of their chips.

    Only one stage is at work at a time, or several that exchange nothing meanwhile, so that the
    chips of a stage alone deskew for all that is under way.
    """

    def __init__(self, clocks: Clocking | None) -> None:
        self.clocks, self.parts = clocks, dict[int, Parts]()
        self.startup_cycles = self.cycle = clocks.start_cycle if clocks else 0
        self.stalled_cycles = 0
        self._since = 0

    @property
    def pace(self) -> Pace | None:
        """When the schedule that comes next must stall."""
        return self.clocks.pace(self._since) if self.clocks else None

    def stage(self, schedule: Schedule, chips: Sequence[int]) -> None:
        """Add the schedule of a stage; `chips` are its members."""
        self._add(schedule, dict(enumerate(chips)))
        self.stalled_cycles += sum(stall for _, stall in schedule.stalls)
        self._since = schedule.since_cycles

    def boundary(self, schedules: Iterable[Schedule]) -> None:
        """Add what brings the vectors of a stage to the next; its members are chips.

        It comes in parts, with stalls between where they are due. The chips of the next stage
        start with the first of them.
        """
        pace, begun = self.pace, 0
        for schedule in schedules:
            if pace and self._since + schedule.end_cycle > pace.limit_cycles:
                self.cycle += pace.stall_cycles
                self.stalled_cycles += pace.stall_cycles
                self._since = begun = 0
            self._add(schedule, {chip: chip for chip in schedule.members})
            self._since += schedule.end_cycle
            begun += schedule.end_cycle
        self._since = begun

    def beside(self, stages: Iterable[tuple[Sequence[int], Sequence[Schedule | Outline]]]) -> None:
        """Add stages that work side by side: the chips of each, and its schedules in order."""
        start, ends, stalled = self.cycle, [self.cycle], [0]
        for chips, schedules in stages:
            self.cycle = start
            for schedule in schedules:
                self._add(schedule, dict(enumerate(chips)))
            ends.append(self.cycle)
            stalled.append(sum(stall for plan in schedules for _, stall in plan.stalls))
        self.cycle = max(ends)
        self.stalled_cycles += max(stalled)

    def _add(self, schedule: Schedule | Outline, chips: Mapping[int, int]) -> None:
        for member in schedule.members:
            mine = self.parts.setdefault(chips[member], Parts(self.clocks))
            mine.items.append((schedule, member, self.cycle))
        self.cycle += schedule.end_cycle
