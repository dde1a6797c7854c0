"""The time axis of a launch: what is on it, and what each chip does of that.

It is composed of schedules, to make programs of it, or of their timings, to know how long it takes:
lowering and planning share all of it but the instructions.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import NamedTuple, TypeVar

from chip.program import Instruction, fill_queue
from chip.schedule import Pace, Schedule, ScheduleTiming, TimingSequence, merged
from chip.schedule import Sequence as InOrder
from cluster.compiler.clocking import Clocking, Pacing

Work = Schedule | TimingSequence  # with stalls inside
Part = Schedule | ScheduleTiming  # without


class PlacedWork(NamedTuple):
    """Something on the axis: the chips of its members, and the cycle at which it begins."""

    work: Work | Part
    chips: Sequence[int] | None  # None: members are chips
    cycle: int


class LaunchTimeline:
    """What happens in a launch, from cycle 0 of the launch on.

    Only one stage is at work at a time, or several that exchange nothing meanwhile, so that the
    chips of a stage alone deskew for all that is under way. `listeners` are chips that hear of the
    start, whether they have anything to do or not.
    """

    def __init__(self, clocks: Pacing | None, listeners: Collection[int] = ()) -> None:
        self.clocks, self.listeners = clocks, listeners
        self.startup_cycles = self.cycle = clocks.start_cycle if clocks else 0
        self.end_cycle = self.startup_cycles if listeners else 0
        self.stalled_cycles = 0
        self._since = 0
        self.placed: list[PlacedWork] = []

    # --- putting together -------------------------------------------------------------------
    @property
    def pace(self) -> Pace | None:
        """When the schedule that comes next must stall."""
        return self.clocks.pace(self._since) if self.clocks else None

    def stage(self, work: Work, chips: Sequence[int]) -> None:
        """Add a stage, made at `pace`; `chips` are its members."""
        self.placed.append(PlacedWork(work, chips, self.cycle))
        self.cycle += work.end_cycle
        self.end_cycle = max(self.end_cycle, self.cycle)
        self.stalled_cycles += sum(stall for _, stall in work.stalls)
        self._since = work.since_cycles

    def crossing(self, parts: Iterable[Part], chips: Sequence[int] | None) -> None:
        """Add what brings the vectors of a stage to the next; members are chips if None are given.

        It comes in parts, with stalls between where they are due; raises ProgramError where there
        is no place for one. The chips of the next stage start with the first part.
        """
        whole = TimingSequence()
        order = InOrder(whole, self.pace)
        for part in parts:
            begin = self.cycle + order.start(part.end_cycle)
            self.placed.append(PlacedWork(part, chips, begin))
        self.cycle += order.cycle
        self.end_cycle = max(self.end_cycle, self.cycle)
        self.stalled_cycles += sum(stall for _, stall in whole.stalls)
        self._since = whole.since_cycles if whole.stalls else order.cycle

    def beside(self, stages: Iterable[tuple[Sequence[int], Sequence[Work]]]) -> None:
        """Add stages that work side by side: the chips of each, and its schedules in order."""
        ends, stalled = [self.cycle], [0]
        for chips, works in stages:
            cycle = self.cycle
            for work in works:
                self.placed.append(PlacedWork(work, chips, cycle))
                cycle += work.end_cycle
            ends.append(cycle)
            stalled.append(sum(stall for work in works for _, stall in work.stalls))
        self.cycle = max(ends)
        self.end_cycle = max(self.end_cycle, self.cycle)
        self.stalled_cycles += max(stalled)

    # --- what it comes to -------------------------------------------------------------------
    @cached_property
    def timing(self) -> ScheduleTiming:
        """First cycle, end and instructions of each chip that has any."""
        return merged(
            (timing, placed.chips, placed.cycle + cycle)
            for placed in self.placed
            for timing, cycle in placed.work.timings
        )

    @cached_property
    def end_cycles(self) -> dict[int, int]:
        """Cycle at which each chip is done; of mere listeners, once they have heard."""
        ends = zip(self.timing.members, self.timing.end_cycles, strict=True)
        return dict.fromkeys(self.listeners, self.startup_cycles) | dict(ends)

    @cached_property
    def instructions(self) -> dict[int, int]:
        """Instructions of each chip, without the NOPs between them."""
        counts = zip(self.timing.members, self.timing.instructions, strict=True)
        return dict.fromkeys(self.listeners, 0) | dict(counts)

    def chips(self) -> Iterator[tuple[int, "ChipTimeline"]]:
        """What each chip does, in order of their numbers; of a timeline of schedules."""
        items: dict[int, list[tuple[Schedule, int, int]]] = {}
        for work, chips, cycle in self.placed:
            assert isinstance(work, Schedule)
            for member in work.members:
                chip = chips[member] if chips is not None else member
                items.setdefault(chip, []).append((work, member, cycle))
        firsts = dict(zip(self.timing.members, self.timing.first_cycles, strict=True))
        clocks = self.clocks
        assert clocks is None or isinstance(clocks, Clocking)
        for chip, end in sorted(self.end_cycles.items()):
            first = firsts.get(chip, self.startup_cycles)
            yield chip, ChipTimeline(clocks, first, end, tuple(items.get(chip, ())))


@dataclass(frozen=True)
class ChipTimeline:
    """What a chip does in a launch: members of schedules, each from an offset on."""

    clocks: Clocking | None
    start_cycle: int
    end_cycle: int
    items: tuple[tuple[Schedule, int, int], ...]

    @property
    def interval_cycles(self) -> int:
        """What its program says of deskews; 0 for a chip alone."""
        return self.clocks.interval_cycles if self.clocks else 0

    def key(self, contents: "Contents") -> tuple[object, ...]:
        """Equal for chips that do the same from their own starts on."""
        start = self.start_cycle
        same = ((contents(plan, member), offset - start) for plan, member, offset in self.items)
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
            for queue, instructions in plan.placed[member].items():
                shifted = [(cycle + offset - start, i) for cycle, i in instructions]
                placed.setdefault(queue, []).extend(shifted)
        stalls = [
            (cycle - start, Instruction("icu.runtime_deskew", (stall,)))
            for cycle, stall in self.deskews
        ]
        return {name: fill_queue(mine + stalls, name) for name, mine in sorted(placed.items())}


class Contents:
    """Numbers what members of schedules do, equal things alike."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        self._members: dict[tuple[Schedule, int], int] = {}

    def __call__(self, plan: Schedule, member: int) -> int:
        key = (plan, member)
        if key not in self._members:
            content = plan.content(member)
            self._members[key] = self._numbers.setdefault(content, len(self._numbers))
        return self._members[key]


P = TypeVar("P", Schedule, ScheduleTiming)


def in_parts(
    rows: int, limit_cycles: int | None, make: Callable[[int, int], P], row_cycles: int = 0
) -> list[P]:
    """What `make` returns for rows from one to another, for all `rows` one after another.

    In as few parts as it takes for none to be longer than the limit, if there is one. Where rows
    rest changes no cycle, so that the first rows tell how long others take. Where it is known that
    each takes `row_cycles` at least, no part is tried that must be too long.
    """
    part = cache(make)
    parts = 1
    if limit_cycles is not None and rows * row_cycles > limit_cycles:
        parts = -(-rows // max(1, limit_cycles // row_cycles))
    while True:
        cuts = [rows * n // parts for n in range(parts + 1)]
        if limit_cycles is None:
            break
        longest = part(0, max(b - a for a, b in pairwise(cuts))).end_cycle
        if longest <= limit_cycles or parts == rows:
            break
        parts = min(rows, max(parts + 1, parts * longest // limit_cycles))
    return [part(*cut) for cut in pairwise(cuts)]
