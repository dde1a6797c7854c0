"""The greedy list scheduler: the first cycle at which a chain fits."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chip.errors import ProgramError
from chip.program import Instruction, Program, fill_queue
from chip.schedule.booking import Booking
from chip.schedule.busy import Busy, Cycles, Fixed, fixed_fit, joined
from chip.schedule.chain import Chain
from chip.schedule.flows import Access, Hold, Key, Need
from chip.schedule.timing import ScheduleTiming, TooLong
from chip.schedule.touched import Touched
from chip.spec import ChipSpec

Beside = Mapping[int, tuple["Schedule", int]]  # by member: a schedule, and who it is there
Placed = dict[int, dict[str, list[tuple[int, Instruction]]]]  # by member and queue
Choice = tuple[int, list[Busy]]  # index of a unit or of the first stream, its tables


@dataclass(eq=False)
class Schedule:
    """Chains placed on the chips of one group, on one time axis that starts at cycle 0."""

    spec: ChipSpec
    most_cycles: int | None = None  # TooLong is raised once something is under way after them
    beside: Beside = field(default_factory=dict)  # what members do on the same axis already
    events: list[tuple[str, int, int]] = field(default_factory=list)  # (label, start, end)
    end_cycle: int = 0
    member_end_cycles: dict[int, int] = field(default_factory=dict)
    stalls: list[tuple[int, int]] = field(default_factory=list)  # (cycle, cycles), of all members
    since_cycles: int = 0  # at its end, since the last of them

    def __post_init__(self) -> None:
        self._placed: Placed = {}
        self._bookings: list[Booking] = []
        self._made = 0  # of the bookings: those whose instructions are placed
        self._firsts: dict[int, int] = {}
        self._counts: dict[int, int] = defaultdict(int)
        self._taken: dict[Key, Cycles] = {}
        self._units: dict[Hold, list[tuple[Cycles, int]]] = {}
        self._busy: dict[Key, Busy] = {}
        self._choices: dict[
            tuple[int, str, int, int, tuple[int, ...]], tuple[range, list[Choice]]
        ] = {}
        self._touched: dict[tuple[int, str], Touched] = {}
        self._names: dict[int, int] = defaultdict(int)

    def chain(self, label: str, member: int = 0, maps: tuple[tuple[int, ...], ...] = ()) -> Chain:
        """A new chain, to be placed here."""
        return Chain(self.spec, label, member, maps)

    # --- placing ----------------------------------------------------------------------------
    def place(self, chain: Chain, not_before: int = 0, further: int = 0) -> int:
        """Book the chain at the first cycle it fits, all of it from `not_before` on.

        It may be booked more than once, `further` rows on in all its buffers, in the same banks.
        """
        start = self._earliest(chain, not_before, further)
        fixed = self._tables(chain)
        taken = [one for one in fixed if one[0].bits.bit_length() > one[1] + start]
        blocked: Need | None = None  # what was not to be had: without it nothing else is tried
        while True:
            start = fixed_fit(taken, start)
            if blocked is not None and (wait := self._wait(blocked, start)):
                start += wait
                continue
            chosen, wait, blocked = self._choose(chain, start)
            if chosen is not None:
                break
            start += wait
        for table, low, pattern in fixed:
            if not table.take(low + start, pattern):
                raise _collision(chain, "units that two of its parts take")
        self._touch(chain, start, further)
        self._emit(chain, start, chosen, further)
        return start

    def _tables(self, chain: Chain) -> list[Fixed]:
        """What the chain takes at cycles that follow from its start."""
        found = []
        for hold, taken in chain.fixed.items():
            low, pattern, once = joined(taken)
            if not once:  # it fits nowhere: that is a bug of its kernel
                raise _collision(chain, hold)
            units = self._units.get(hold)
            if units is None:
                units = [(self._cycles(key), late) for key, late in hold.units()]
                self._units[hold] = units
            found += [(table, low + late, pattern) for table, late in units]
        return found

    # --- what is taken, also by what goes on beside -------------------------------------------
    def _cycles(self, key: Key) -> Cycles:
        if key not in self._taken:
            found = self._taken[key] = Cycles()
            other = self._other(key)
            if other and (taken := other[0]._taken.get(other[1])):
                found.bits = taken.bits
        return self._taken[key]

    def _intervals(self, key: Key) -> Busy:
        if key not in self._busy:
            found = self._busy[key] = Busy()
            other = self._other(key)
            if other and (taken := other[0]._busy.get(other[1])):
                found.starts, found.ends = [*taken.starts], [*taken.ends]
                found.last = taken.last
        return self._busy[key]

    def _known(self, member: int, buffer: str) -> Touched | None:
        """How rows of a buffer were touched, if any were."""
        key = (member, buffer)
        if key not in self._touched and member in self.beside:
            other, there = self.beside[member]
            if found := other._touched.get((there, buffer)):
                self._touched[key] = found.copy()
        return self._touched.get(key)

    def _other(self, key: Key) -> tuple["Schedule", Key] | None:
        """The schedule that a member has beside this one, and the same key there."""
        member, *rest = key
        assert isinstance(member, int)
        if member not in self.beside:
            return None
        other, there = self.beside[member]
        return other, (there, *rest)

    def ready_cycle(self, member: int, buffer: str, rows: slice = slice(None)) -> int:
        """Cycle from which all these rows of a buffer may be read."""
        touched = self._known(member, buffer)
        return 0 if touched is None else int(touched.ready[rows].max(initial=0))

    def _earliest(self, chain: Chain, not_before: int, further: int = 0) -> int:
        """Start from which no instruction is before a cycle, and all rows are ready."""
        start = not_before - min(extent.first for extent in chain.member_spans.values())
        for access in chain.accesses:
            buffer = access.rows.buffer
            if self._known(access.member, buffer.name) is not None:
                start = max(start, self._rows(access, further).wait(access, further))
            if access.writes and buffer.after:
                start = max(start, self._done_with(access) - access.early)
        return start

    def _done_with(self, access: Access) -> int:
        """Cycle from which nobody reads what rested where this buffer rests."""
        before = (self._known(access.member, name) for name in access.buffer.after)
        return max((int(one.free.max(initial=0)) for one in before if one), default=0)

    def _wait(self, need: Need, start: int) -> int:
        """Cycles until something that a need can choose is free."""
        low, high, best = need.low + start, need.high + start, 0
        for _, tables in self._candidates(need):
            wait = max(table.delay(low, high) for table in tables)
            if not wait:
                return 0
            best = min(best, wait) if best else wait
        return best

    def _choose(self, chain: Chain, start: int) -> tuple[list[int] | None, int, Need | None]:
        """Indices chosen for every need; or None, how long to wait, and for which of them."""
        chosen: list[int] = []
        taken: list[tuple[Busy, int, int]] = []
        for need in chain.needs:
            low, high = need.low + start, need.high + start
            best = 0
            for index, tables in self._candidates(need):
                wait = 0
                for table in tables:
                    if table.last > low and (late := table.delay(low, high)) > wait:
                        wait = late  # where the last is over before, it is free: most are
                if not wait:
                    for table in tables:
                        table.take(low, high)
                        taken.append((table, low, high))
                    chosen.append(index)
                    break
                best = min(best, wait) if best else wait
            else:
                for table, lower, upper in reversed(taken):
                    table.release(lower, upper)
                return None, best, need
        return chosen, 0, None

    def _candidates(self, need: Need) -> Iterator[Choice]:
        """What there is to choose from, in order; tables are made once somebody looks at them."""
        halves = tuple(need.halves) or (0,)
        kind = (need.member, need.kind, need.side, need.width, halves)
        known = self._choices.get(kind)
        if known is None:
            known = self._choices[kind] = self._choice_indices(need), []
        return itertools.chain(known[1], self._more(need, halves, *known))

    def _more(
        self, need: Need, halves: tuple[int, ...], indices: range, found: list[Choice]
    ) -> Iterator[Choice]:
        """Those that nobody has looked at."""
        name = "s" if need.kind == "stream" else need.kind
        for index in indices[len(found) :]:
            units = range(index, index + need.width)
            tables = [self._intervals((need.member, name, u, h)) for u in units for h in halves]
            found.append((index, tables))
            yield found[-1]

    def _choice_indices(self, need: Need) -> range:
        if need.kind == "vxm":
            return range(self.spec.vxm_alus)
        if need.kind == "sxm":
            first = need.side * self.spec.sxm_queues
            return range(first, first + self.spec.sxm_queues)
        base = need.side * self.spec.streams
        groups = range(base, base + self.spec.streams, need.width)
        # leave the low groups to the weights
        return groups[::-1] if need.width < self.spec.lw_streams else groups

    # --- what placing leaves behind -----------------------------------------------------------
    def _touch(self, chain: Chain, start: int, further: int = 0) -> None:
        for access in chain.accesses:
            self._rows(access, further).note(access, further, start)

    def _rows(self, access: Access, further: int) -> Touched:
        key = (access.member, access.rows.buffer.name)
        touched = self._known(*key)
        if touched is None:
            touched = self._touched[key] = Touched()
        touched.grow(access.last_row + further + 1)
        return touched

    def _emit(self, chain: Chain, start: int, chosen: list[int], further: int) -> None:
        """Note what was placed; its instructions are made when somebody asks for them."""
        base = {member: self._names[member] for member in chain.member_spans}
        booking = Booking(chain.label, chain.pieces, chain.needs, start, chosen, base, further)
        self._bookings.append(booking)
        end = 0
        for member, extent in chain.member_spans.items():
            self._names[member] += chain.values
            last = extent.end + start + self.spec.superlanes
            self._extend(member, extent.first + start, last, extent.instructions)
            end = max(end, last)
        self.events.append((chain.label, start, end))
        self.end_cycle = max(self.end_cycle, end)
        if self.most_cycles is not None and self.quiet_cycle > self.most_cycles:
            raise TooLong

    def _extend(self, member: int, first: int, end: int, instructions: int) -> None:
        self._firsts[member] = min(self._firsts.get(member, first), first)
        ends = self.member_end_cycles
        ends[member] = max(ends.get(member, 0), end)
        self._counts[member] += instructions

    @property
    def placed(self) -> "Placed":
        """(cycle, instruction) of each member's queues, as they were placed."""
        for booking in self._bookings[self._made :]:
            for member, queue, cycle, instruction in booking.instructions():
                queues = self._placed.setdefault(member, {})
                queues.setdefault(queue, []).append((cycle, instruction))
        self._made = len(self._bookings)
        return self._placed

    def labelled(self) -> Iterator[tuple[str, int, str, int, Instruction]]:
        """(label of the chain, member, queue, cycle, instruction), without those of `repeat`."""
        for booking in self._bookings:
            for placed in booking.instructions():
                yield booking.label, *placed

    def by_kind(self) -> Iterator[tuple[int, str, int, Instruction, int]]:
        """(member, queue, cycle, instruction, how many alike), without those of `repeat`."""
        for booking in self._bookings:
            yield from booking.by_kind()

    @property
    def quiet_cycle(self) -> int:
        """First cycle from which nothing of this schedule is under way on any unit."""
        return self.end_cycle - self.spec.superlanes + 1

    def repeat(
        self,
        part: "Schedule",
        offset: int,
        moved: Callable[[int, int], int],
        everyone: Sequence[Mapping[int, int] | None] = (None,),
        only: int | None = None,
    ) -> None:
        """Add the chains of another schedule, `offset` cycles later, for each of `everyone`.

        `moved(slice, address)` says where its memory accesses go, each of `everyone` who does what
        its members do; None is themselves. Of all of them `only` one may be wanted.
        """
        everything = self.placed
        for number, queues in part.placed.items():
            taking = [members[number] if members else number for members in everyone]
            taking = taking if only is None else [member for member in taking if member == only]
            if not taking:
                continue
            relocated = {
                queue: [(at + offset, one) for at, one in _relocated(queue, placed, moved)]
                for queue, placed in queues.items()
            }
            first, last = part.first_cycle(number), part.member_end_cycles[number]
            for member in taking:
                mine = everything.setdefault(member, {})
                for queue, placed in relocated.items():
                    mine.setdefault(queue, []).extend(placed)
                self._extend(member, offset + first, offset + last, part.instructions(number))
        for _ in everyone:
            self.events += [(label, a + offset, b + offset) for label, a, b in part.events]
        self.end_cycle = max(self.end_cycle, offset + part.end_cycle)

    @property
    def members(self) -> tuple[int, ...]:
        """Who does something in it."""
        return tuple(self._firsts)

    def first_cycle(self, member: int) -> int:
        """Cycle of a member's first instruction."""
        return self._firsts[member]

    def instructions(self, member: int) -> int:
        """Instructions of a member, without the NOPs between them."""
        return self._counts[member]

    @property
    def timings(self) -> tuple[tuple[ScheduleTiming, int]]:
        """What there is to know of it without its instructions; see `TimingSequence.timings`."""
        members = self.members
        ends = tuple(self.member_end_cycles[member] for member in members)
        firsts = tuple(self._firsts[member] for member in members)
        counts = tuple(self._counts[member] for member in members)
        timing = ScheduleTiming(self.quiet_cycle, self.end_cycle, members, firsts, ends, counts)
        return ((timing, 0),)

    def content(self, member: int) -> tuple[object, ...]:
        """All a member does: equal for members, of this or other schedules, that do the same."""
        queues = sorted(self.placed[member].items())
        return tuple((name, tuple(mine)) for name, mine in queues)

    def program(self, member: int, template: Program) -> Program:
        """The program of one member: its queues filled in, all else as in `template`."""
        queues = {
            name: fill_queue(placed, name)
            for name, placed in sorted(self.placed.get(member, {}).items())
        }
        return replace(template, queues=queues)


def _relocated(
    queue: str, placed: list[tuple[int, Instruction]], moved: Callable[[int, int], int]
) -> Iterator[tuple[int, Instruction]]:
    """What a queue holds, with the addresses of a slice moved."""
    unit, _, number = queue.partition(":")
    if not unit.startswith("mem."):
        yield from placed
        return
    index = int(number)
    for cycle, one in placed:
        if one.op.startswith("mem."):
            address = moved(index, one.args[0])
            if address != one.args[0]:
                one = replace(one, args=(address, *one.args[1:]))
        yield cycle, one


def _collision(chain: Chain, what: object) -> ProgramError:
    return ProgramError(f"chain {chain.label} collides with itself on {what}")
