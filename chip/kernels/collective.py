"""Messages and additions of a collective as Sends, Receives and VXM adds on the chips of a group.

What is sent where, and what is added in which order, is given: a list of items as
`topology.collectives` spells it, with chips as members of the group and cables as ports. Here each
item gets memory and cycles. Items are placed in the order in which the timetable starts them, each
in the first cycles that are free.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from chip.errors import ProgramError
from chip.kernels.transfer import Hop, transfer
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, run
from chip.spec import ChipSpec

# Operands of a chain of additions; each takes an ALU, and one is left to whoever else needs it.
MOST_OPERANDS = 15
RESIDUAL = -1  # the slot of what a member has besides its part of a sum


class Span(NamedTuple):
    """Consecutive rows of a slot; slots are numbered as in the list of messages."""

    slot: int
    first: int
    length: int


@dataclass(frozen=True)
class Message:
    """Rows on their way along `hops`; `after` are the numbers of items that must come first."""

    hops: tuple[Hop, ...]
    source: Span
    target: Span
    lands: bool  # apart from its target, where an addition takes it up
    start_cycle: int  # of the timetable: who comes first is placed first
    after: tuple[int, ...]


@dataclass(frozen=True)
class Addition:
    """A member makes `target` of its operands, added from left to right; of one, a copy.

    An operand is a span of the member's own, or the number of a message that has landed there.
    """

    member: int
    target: Span
    operands: tuple[Span | int, ...]
    start_cycle: int
    after: tuple[int, ...]


Items = tuple[Message | Addition, ...]


@dataclass(frozen=True)
class Home:
    """Where the rows of a slot rest, on every member: `some` rows of each block of `tokens`.

    `pieces` are buffers one after another, with the first block of each.
    """

    pieces: tuple[tuple[int, Buffer], ...]
    tokens: int = 1
    some: int = 1

    def runs(self, first: int, count: int) -> Iterator["_Run"]:
        """Rows of the slot as they lie in the buffers."""
        whole = self.some == self.tokens
        while count:
            block, token = divmod(first, self.some)
            at = max(n for n, (start, _) in enumerate(self.pieces) if start <= block)
            start, buffer = self.pieces[at]
            last = at == len(self.pieces) - 1
            room = count if last else (self.pieces[at + 1][0] - block) * self.some - token
            length = min(count, room if whole else self.some - token)
            yield _Run(buffer, (block - start) * self.tokens + token, length)
            first, count = first + length, count - length


class _Run(NamedTuple):
    """Rows that lie one after another."""

    buffer: Buffer
    first: int
    length: int

    def part(self, offset: int, count: int) -> "_Run":
        return _Run(self.buffer, self.first + offset, count)

    @property
    def rows(self) -> Rows:
        return Rows(self.buffer, self.first)

    @property
    def slices(self) -> int:
        return self.buffer.region.index


@dataclass
class Compiler:
    """Places the items of one collective.

    `homes` are slots that have memory of their own; what lands, and all other slots, are given rows
    of the buffers in `pool`, which is the same on all members. Messages of up to `apart_rows` rows
    read and write row by row, between others; longer ones in loops.
    """

    spec: ChipSpec
    homes: Mapping[int, Home]
    pool: Sequence[Buffer]
    apart_rows: int = 64
    label: str = "collective"
    _free: dict[int, list[_Run]] = field(default_factory=dict)
    _landed: dict[int, _Run] = field(default_factory=dict)
    _kept: dict[tuple[int, int], dict[int, _Run]] = field(default_factory=lambda: defaultdict(dict))

    def compile(self, items: Items) -> Schedule:
        """The schedule of all members, from cycle 0 on; raises ProgramError without memory."""
        plan = Schedule(self.spec)
        for number in in_order(items):
            item = items[number]
            if isinstance(item, Message):
                self._send(plan, number, item)
            else:
                self._add(plan, item)
        return plan

    def _send(self, plan: Schedule, number: int, message: Message) -> None:
        source = self._runs(message.hops[0].member, message.source)
        target = message.hops[-1].to_member
        if message.lands:
            landed = self._landed[number] = self._take(target, message.target.length)
            runs = [landed]
        else:
            runs = self._room(target, message.target)
        for origin, end in _cut(source, runs):
            apart = origin.length <= self.apart_rows
            transfer(plan, message.hops, origin.rows, end.rows, origin.length, apart=apart)

    def _add(self, plan: Schedule, addition: Addition) -> None:
        member = addition.member
        operands = [
            [self._landed[one]] if isinstance(one, int) else self._runs(member, one)
            for one in addition.operands
        ]
        target = self._room(member, addition.target)
        while len(operands) > MOST_OPERANDS:
            between = self._take(member, addition.target.length)
            self._sum(plan, member, operands[:MOST_OPERANDS], [between])
            operands = [[between], *operands[MOST_OPERANDS:]]
            self._free[member].append(between)
        self._sum(plan, member, operands, target)
        for one in addition.operands:
            if isinstance(one, int):
                self._free[member].append(self._landed.pop(one))

    def _sum(
        self, plan: Schedule, member: int, operands: list[list[_Run]], target: list[_Run]
    ) -> None:
        """target = operands added from left to right, a chain of additions for each row.

        Or for a few rows of long runs, which arrive one after another anyway. As an addition begins
        when the one before is over, so many may read all their operands from the same slices.
        """
        apart = target[0].length <= self.apart_rows
        pace = 1 if apart else self.spec.d_func("vxm.alu")
        for runs in _cut(*operands, target):
            for first in range(0, runs[0].length, pace):
                *terms, out = (one.part(first, min(pace, one.length - first)) for one in runs)
                chain = Chain(self.spec, f"{self.label}: add", member)
                loops = run(out.length)
                if len(terms) == 1 or terms[0].slices == terms[1].slices:
                    total: Flow = chain.vxm("copy", terms[0].rows, loops=loops)
                    rest = terms[1:]
                else:
                    total = chain.vxm("add", terms[0].rows, terms[1].rows, loops=loops)
                    rest = terms[2:]
                for term in rest:
                    total = chain.vxm("add", total, term.rows)
                chain.write(total, out.rows)
                plan.place(chain)

    # --- where things are ---------------------------------------------------------------------
    def _runs(self, member: int, span: Span) -> list[_Run]:
        """Where rows of a slot are."""
        if span.slot in self.homes:
            return list(self.homes[span.slot].runs(span.first, span.length))
        found, first, end = [], span.first, span.first + span.length
        kept = self._kept[member, span.slot]
        while first < end:
            start = max(start for start in kept if start <= first)
            offset = first - start
            count = min(kept[start].length - offset, end - first)
            found.append(kept[start].part(offset, count))
            first += count
        return found

    def _room(self, member: int, span: Span) -> list[_Run]:
        """Where rows of a slot are to be written."""
        if span.slot not in self.homes:
            kept = self._kept[member, span.slot]
            if span.first not in kept:
                kept[span.first] = self._take(member, span.length)
        return self._runs(member, span)

    def _take(self, member: int, count: int) -> _Run:
        """Rows of the pool, from the buffer after the one that was taken last."""
        if member not in self._free:
            self._free[member] = [_Run(b, 0, b.region.vectors) for b in self.pool]
        free = self._free[member]
        for number, room in enumerate(free):
            if room.length >= count:
                del free[number]
                if room.length > count:
                    free.append(room.part(count, room.length - count))
                return room.part(0, count)
        raise ProgramError(f"{self.label}: no memory for {count} rows on member {member}")


def in_order(items: Items) -> Iterator[int]:
    """Numbers of the items by the cycles of the timetable, none before what it waits for."""
    waits = [len(item.after) for item in items]
    followers: dict[int, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        for other in item.after:
            followers[other].append(number)
    ready = [(items[n].start_cycle, n) for n, count in enumerate(waits) if not count]
    heapify(ready)
    while ready:
        _, number = heappop(ready)
        yield number
        for other in followers[number]:
            waits[other] -= 1
            if not waits[other]:
                heappush(ready, (items[other].start_cycle, other))


def _cut(*lists: Sequence[_Run]) -> Iterator[tuple[_Run, ...]]:
    """Equally long lists of runs, cut wherever one of them is."""
    rest = [list(one) for one in lists]
    while rest[0]:
        count = min(one[0].length for one in rest)
        yield tuple(one[0].part(0, count) for one in rest)
        for one in rest:
            head = one.pop(0)
            if head.length > count:
                one.insert(0, head.part(count, head.length - count))
