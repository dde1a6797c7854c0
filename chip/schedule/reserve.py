"""The greedy list scheduler: the first cycle at which a chain fits."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chip.program import Instruction, Program, fill_queue
from chip.schedule.booking import Booking
from chip.schedule.busy import Busy, Fixed, fixed_fit
from chip.schedule.chain import Chain
from chip.schedule.flows import Buffer, Further, Piece
from chip.schedule.footprint import Elsewhere, too_many
from chip.schedule.retries import Retries
from chip.schedule.taken import Candidate, Candidates, Kind, Members, Units, choose, wait_for
from chip.schedule.timing import ScheduleTiming, TooLong
from chip.schedule.touched import Touched
from chip.spec import ChipSpec

IN_VAIN = 128  # needs of a chain that were chosen for and let go, before starts are looked at so
Beside = Mapping[int, tuple["Schedule", int]]  # by member: a schedule, and who it is there
Placed = dict[int, dict[str, list[tuple[int, Instruction]]]]  # by member and queue


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
        # by member:
        self._taken: dict[int, Units] = Members(self._units_of)
        self._busy: dict[int, dict[tuple[str, int, int], Busy]] = defaultdict(dict)
        self._choices: dict[int, dict[Kind, Candidates]] = defaultdict(dict)
        self._touched: dict[int, dict[str, Touched]] = defaultdict(dict)
        self._taken_until = 0  # what is chosen for needs, that is: later all there are is free
        self._names: dict[int, int] = defaultdict(int)

    def chain(self, label: str, member: int = 0, maps: tuple[tuple[int, ...], ...] = ()) -> Chain:
        """A new chain, to be placed here."""
        return Chain(self.spec, label, member, maps)

    # --- placing ----------------------------------------------------------------------------
    def place(
        self, chain: Chain, not_before: int = 0, further: Sequence[Further] = (),
        there: Elsewhere | None = None,
    ) -> int:  # fmt: skip
        """Book the chain at the first cycle it fits, all of it from `not_before` on.

        It may be booked more than once, each access `further` on or in another buffer, in the same
        slices and bank; and, if it is of members 0, 1, .., for others `there`. Raises ProgramError
        if it wants more at once than a chip has.
        """
        further = further or chain.where
        touched = self._rows_of(chain, further, there)
        start = self._earliest(chain, touched, not_before, further)
        fixed = self._tables(chain, there)
        choices = [
            (self._candidates(there.members[member] if there else member, kind), low, high)
            for member, kind, low, high in chain.footprint.choices
        ]
        blocked: int | None = None  # what was not to be had: without it nothing else is tried
        in_vain, retries = 0, None
        while True:
            start = fixed_fit(fixed, start)
            if blocked is not None and (wait := wait_for(*choices[blocked], start)):
                start += wait
                continue
            if in_vain >= IN_VAIN:
                retries = retries or Retries(chain.footprint.choices, choices)
                wait, blocked = retries.wait(start)
            if in_vain < IN_VAIN or blocked is None:
                chosen, wait, blocked = choose(choices, start)
            if blocked is None:
                break
            in_vain += blocked
            if start + choices[blocked][1] >= self._taken_until:  # all there are were free
                there_are = self._count(chain.footprint.choices[blocked].kind)
                every = chain.footprint.choices
                raise too_many(chain.label, every, every[blocked], there_are)
            start += wait
        for table, low, pattern in fixed:  # each table once, see `footprint`
            table.bits |= pattern << (low + start)
        if choices:
            self._taken_until = max(self._taken_until, start + max(high for *_, high in choices))
        self._touch(chain, touched, start, further)
        self._emit(chain, start, chosen, further, there)
        return start

    def _tables(self, chain: Chain, there: Elsewhere | None = None) -> list[Fixed]:
        """What the chain takes at cycles that follow from its start."""
        units, tables = chain.footprint.units, self._taken
        if there is None:
            every = units + chain.footprint.ports
            return [(tables[member][key], low, pattern) for member, key, low, pattern in every]
        members, ports = there
        found = [(tables[members[member]][key], low, bits) for member, key, low, bits in units]
        for member, (family, unit, plane, buffer), low, bits in chain.footprint.ports:
            key = family, ports[member, unit], plane, buffer
            found.append((tables[members[member]][key], low, bits))
        return found

    # --- what is taken, also by what goes on beside -------------------------------------------
    def _units_of(self, member: int) -> Units:
        if member not in self.beside:
            return Units()
        other, there = self.beside[member]
        return Units(other._taken[there])

    def _intervals(self, member: int, unit: tuple[str, int, int]) -> Busy:
        known = self._busy[member]
        if unit not in known:
            found = known[unit] = Busy()
            if member in self.beside:
                other, there = self.beside[member]
                if taken := other._busy[there].get(unit):
                    found.starts, found.ends = [*taken.starts], [*taken.ends]
                    found.last = taken.last
                    self._taken_until = max(self._taken_until, found.last)
        return known[unit]

    def _known(self, member: int, buffer: str) -> Touched | None:
        """How rows of a buffer were touched, if any were."""
        mine = self._touched[member]
        if buffer not in mine and member in self.beside:
            other, there = self.beside[member]
            if found := other._touched[there].get(buffer):
                mine[buffer] = found.copy()
        return mine.get(buffer)

    def ready_cycle(self, member: int, buffer: str, rows: slice = slice(None)) -> int:
        """Cycle from which all these rows of a buffer may be read."""
        touched = self._known(member, buffer)
        return 0 if touched is None else int(touched.ready[rows].max(initial=0))

    def _earliest(
        self, chain: Chain, touched: Sequence[Touched], not_before: int, further: Sequence[Further]
    ) -> int:
        """Start from which no instruction is before a cycle, and all rows are ready."""
        start = not_before - chain.footprint.first
        for access, rows, more in zip(chain.accesses, touched, further, strict=True):
            start = max(start, rows.wait(access, more.rows))
            if access.writes and more.buffer.after:
                start = max(start, self._done_with(access.member, more.buffer) - access.early)
        return start

    def _done_with(self, member: int, buffer: Buffer) -> int:
        """Cycle from which nobody reads what rested where a buffer rests."""
        before = (self._known(member, name) for name in buffer.after)
        return max((int(one.free.max(initial=0)) for one in before if one), default=0)

    def _candidates(self, member: int, kind: Kind) -> Candidates:
        """What there is to choose from."""
        known = self._choices[member]
        if kind not in known:
            known[kind] = Candidates(self._choice(member, kind))
        return known[kind]

    def _choice(self, member: int, kind: Kind) -> Iterator[Candidate]:
        what, _, width, halves = kind
        name = "s" if what == "stream" else what
        for first in self._indices(kind):
            units = range(first, first + width)
            yield (
                first,
                [self._intervals(member, (name, unit, half)) for unit in units for half in halves],
            )

    def _indices(self, kind: Kind) -> range:
        what, side, width, _ = kind
        if what == "vxm":
            return range(self.spec.vxm_alus)
        if what == "sxm":
            first = side * self.spec.sxm_queues
            return range(first, first + self.spec.sxm_queues)
        base = side * self.spec.streams
        groups = range(base, base + self.spec.streams, width)
        # leave the low groups to the weights
        return groups[::-1] if width < self.spec.lw_streams else groups

    def _count(self, kind: Kind) -> int:
        """How many a chip has of what a kind of needs is of."""
        what, *_ = kind
        return self.spec.streams if what == "stream" else len(self._indices(kind))

    # --- what placing leaves behind -----------------------------------------------------------
    def _touch(
        self, chain: Chain, touched: Sequence[Touched], start: int, further: Sequence[Further]
    ) -> None:
        for access, rows, more in zip(chain.accesses, touched, further, strict=True):
            rows.note(access, more.rows, start)

    def _rows_of(
        self, chain: Chain, further: Sequence[Further], there: Elsewhere | None = None
    ) -> list[Touched]:
        """How rows of the buffers of all its accesses were touched."""
        found = []
        for access, more in zip(chain.accesses, further, strict=True):
            member = there.members[access.member] if there else access.member
            name = more.buffer.name
            touched = self._known(member, name)
            if touched is None:
                touched = self._touched[member][name] = Touched()
            touched.grow(access.last_row + more.rows + 1)
            found.append(touched)
        return found

    def _emit(
        self, chain: Chain, start: int, chosen: list[int], further: Sequence[Further],
        there: Elsewhere | None,
    ) -> None:  # fmt: skip
        """Note what was placed; its instructions are made when somebody asks for them."""
        base, end = {}, 0
        for number, extent in chain.member_spans.items():
            member = there.members[number] if there else number
            base[number] = self._names[member]
            self._names[member] += chain.values
            last = extent.end + start + self.spec.superlanes
            self._extend(member, extent.first + start, last, extent.instructions)
            end = max(end, last)
        made = chain.pieces, chain.needs, start, chosen, base, further, there
        self._bookings.append(Booking(chain.label, *made))
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
        """(member, queue, cycle, instruction, how many alike), without those of `repeat`.

        What a chain without the MXM does is told where it is booked first, for all of its bookings.
        """
        every: dict[Piece, list[Booking]] = defaultdict(list)  # by the first piece of a chain
        for booking in self._bookings:
            every[booking.pieces[0]].append(booking)
        for alike in every.values():
            apart = any(piece.family.startswith("mxm") for piece in alike[0].pieces)
            for booking in alike if apart else alike[:1]:
                yield from booking.by_kind(1 if apart else len(alike))

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
