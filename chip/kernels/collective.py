"""Messages and additions of a collective as Sends, Receives and VXM adds on the chips of a group.

What is sent where, and what is added in which order, is given: a list of items as
`topology.collectives` spells it, with chips as members of the group and cables as ports. Here each
item gets memory and cycles. Items are placed in the order in which the timetable starts them, each
in the first cycles that are free.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from chip.errors import PoolFull
from chip.kernels.additions import added, at_once
from chip.kernels.collective_items import Addition, Items, Message, Span, in_order
from chip.kernels.transfer import Hop, Moved, from_the_first, multicast, transfer
from chip.schedule import Beside, Buffer, Rows, Schedule
from chip.schedule.footprint import Elsewhere
from chip.spec import ChipSpec

APART_ROWS = 32  # of a message that reads and writes by an instruction per row and plane
RESIDUAL = -1  # the slot of what a member has besides its part of a sum


@dataclass(frozen=True)
class Home:
    """Where the rows of a slot rest, on every member: `some` rows of each block of `tokens`.

    `pieces` are buffers one after another, with the first block of each. With an `order`, row n of
    the slot is row `order[n]` of theirs.
    """

    pieces: tuple[tuple[int, Buffer], ...]
    tokens: int = 1
    some: int = 1
    order: tuple[int, ...] = ()

    def runs(self, first: int, count: int) -> Iterator["_Run"]:
        """Rows of the slot as they lie in the buffers."""
        if not self.order:
            yield from self._runs(first, count)
        for row in self.order[first : first + count]:
            yield from self._runs(row, 1)

    def _runs(self, first: int, count: int) -> Iterator["_Run"]:
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

    def typed(self, dtype: str) -> "_Run":
        """The same rows, each in the first planes that a type takes."""
        if dtype == self.dtype:
            return self
        region = replace(self.buffer.region, dtype=dtype)
        return self._replace(buffer=replace(self.buffer, region=region))

    @property
    def dtype(self) -> str:
        return self.buffer.region.dtype

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
    of the buffers in `pool`, which is the same on all members.

    Messages of up to `apart_rows` rows read and write by an instruction per row and plane, between
    others. Longer ones do so in loops, which keep their slices to themselves: so copies of one
    source leave it together, and land in the pool, whose buffers lie in several places, before they
    are copied to their homes. Their sums go through `between`, three buffers in other banks: the
    first is for scratch slots, the others, in turn, for what is added up so far.

    A message is over after all that it waits for, even if it takes only their first rows: packets
    are handed on message by message, in the order in which they end.
    """

    spec: ChipSpec
    homes: Mapping[int, Home]
    pool: Sequence[Buffer]
    between: Sequence[Buffer] = ()
    apart_rows: int = APART_ROWS
    label: str = "collective"
    _ends: dict[int, int] = field(default_factory=dict)  # of items, the last Receive behind them
    _free: dict[int, list[_Run]] = field(default_factory=dict)
    _landed: dict[int, _Run] = field(default_factory=dict)
    _kept: dict[tuple[int, int], dict[int, _Run]] = field(default_factory=lambda: defaultdict(dict))

    def compile(
        self, items: Items, beside: Beside | None = None, most_cycles: int | None = None
    ) -> Schedule:
        """All members' schedule, begun with what they do `beside`.

        Raises PoolFull without memory, TooLong if something is under way after `most_cycles`.
        """
        plan = Schedule(self.spec, most_cycles, beside or {})
        together = self._together(items)
        sent: set[int] = set()
        for number in in_order(items):
            item = items[number]
            if isinstance(item, Addition):
                self._ends[number] = self._over(item)
                self._add(plan, item)
            elif number in together:
                if number not in sent:
                    sent.update(together[number])
                    send = self._send_row if _is_row_home(item) else self._send_long
                    send(plan, items, together[number])
            else:
                self._send(plan, number, item)
        return plan

    def _over(self, item: Message | Addition) -> int:
        """Last Receive of all that an item waits for."""
        return max((self._ends[one] for one in item.after), default=0)

    # --- messages -----------------------------------------------------------------------------
    def _together(self, items: Items) -> dict[int, list[int]]:
        """Messages of the same rows that wait for the same, by each of their numbers.

        Long ones; and single rows on their way to neighbours and home.
        """
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            if isinstance(item, Message) and (self._is_long(item.source) or _is_row_home(item)):
                alike[item.hops[0].member, item.source, item.after, item.step].append(number)
        return {number: numbers for numbers in alike.values() for number in numbers}

    def _is_long(self, span: Span) -> bool:
        return span.length > self.apart_rows

    def _send(self, plan: Schedule, number: int, message: Message) -> None:
        target = message.hops[-1].to_member
        if message.lands:
            rows, dtype = message.target.length, message.source.dtype
            self._landed[number] = self._take(target, rows, dtype)
        runs = [self._landed[number]] if message.lands else self._room(target, message.target)
        over, apart = self._over(message), not self._is_long(message.source)
        for source, end in _cut(self._runs(message.hops[0].member, message.source), runs):
            moved = Moved(source.rows, end.rows, source.length, apart)
            last = transfer(plan, message.hops, moved, over)
            self._ends[number] = max(self._ends.get(number, 0), last)

    def _send_row(self, plan: Schedule, items: Items, numbers: Sequence[int]) -> None:
        """A row home on several members, over as many cables at a time as there are."""
        messages = {n: item for n in numbers if isinstance(item := items[n], Message)}
        first = messages[numbers[0]]
        (source,) = self._runs(first.hops[0].member, first.source)
        for batch in batches({n: message.hops for n, message in messages.items()}):
            some = [messages[number] for number in batch]
            homes = [self._room(one.hops[-1].to_member, one.target)[0].rows for one in some]
            routes, over = [one.hops for one in some], self._over(first)
            last = multicast(plan, routes, source.rows, homes, 1, over, apart=True)
            self._ends.update(dict.fromkeys(batch, last))

    def _send_long(self, plan: Schedule, items: Items, numbers: Sequence[int]) -> None:
        """Long messages, over as many cables at a time as they have; copies then go home."""
        messages = {n: item for n in numbers if isinstance(item := items[n], Message)}
        first = messages[numbers[0]]
        over = self._over(first)
        for batch in batches({n: message.hops for n, message in messages.items()}):
            landed: dict[int, _Run] = {}
            for number in batch:
                end = messages[number].hops[-1].to_member
                room = self._room_in_pool(end, first.source.length, first.source.dtype)
                if room is None:
                    self._send(plan, number, messages[number])
                else:
                    landed[number] = room
            offset, routes = 0, [messages[number].hops for number in landed]
            for source in self._runs(first.hops[0].member, first.source) if landed else ():
                targets = [room.part(offset, source.length).rows for room in landed.values()]
                last = multicast(plan, routes, source.rows, targets, source.length, over)
                self._ends.update({n: max(last, self._ends.get(n, 0)) for n in landed})
                offset += source.length
            for number, room in landed.items():
                message = messages[number]
                end = message.hops[-1].to_member
                if message.lands:
                    self._landed[number] = room
                else:
                    self._sum(plan, end, [[room]], self._room(end, message.target))
                    self._free[end].append(room)

    # --- additions ----------------------------------------------------------------------------
    def _add(self, plan: Schedule, addition: Addition) -> None:
        member = addition.member
        operands = [
            [self._landed[one]] if isinstance(one, int) else self._runs(member, one)
            for one in addition.operands
        ]
        target = self._room(member, addition.target)
        types = [some.dtype for some, *_ in operands]
        while (count := at_once(types, target[0].dtype)) < len(operands):
            between = self._take(member, addition.target.length)
            self._sum(plan, member, operands[:count], [between])
            operands, types = [[between], *operands[count:]], ["f32", *types[count:]]
            self._free[member].append(between)
        self._sum(plan, member, operands, target)
        for one in addition.operands:
            if isinstance(one, int):
                self._free[member].append(self._landed.pop(one).typed("f32"))

    def _sum(
        self, plan: Schedule, member: int, operands: list[list[_Run]], target: list[_Run]
    ) -> None:
        """target = operands added from left to right, a chain of additions for each row.

        Long sums take all rows in a chain, of as many operands as lie in different slices; without
        memory between, and copies within slices, as few as an addition takes cycles: a bank serves
        one access a cycle.
        """

        def add(terms: tuple[_Run, ...], out: _Run) -> None:
            some = [run.rows for run in (*terms, out)]
            (*first, end), further = from_the_first(self.spec, some)
            chain = added(self.spec, self.label, (*first, end), out.length)
            plan.place(chain, 0, further, Elsewhere((member,), {}))

        length = sum(run.length for run in target)
        for runs in _cut(*operands, target):
            *terms, out = runs
            if length <= self.apart_rows:
                for row in range(out.length):
                    add(tuple(t.part(row, 1) for t in terms), out.part(row, 1))
            elif self.between if len(terms) > 1 else terms[0].slices != out.slices:
                *groups, last = _apart(terms)
                so_far: list[_Run] = []
                for number, group in enumerate(groups):
                    to = _Run(self.between[1 + number % 2], 0, out.length)
                    add((*so_far, *group), to)
                    so_far = [to]
                add((*so_far, *last), out)
            else:
                pace = self.spec.d_func("vxm.alu")
                for start in range(0, out.length, pace):
                    some = min(pace, out.length - start)
                    add(tuple(t.part(start, some) for t in terms), out.part(start, some))

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
                if self.between and self._is_long(span):
                    used = sum(run.length for run in kept.values())
                    kept[span.first] = _Run(self.between[0], used, span.length).typed(span.dtype)
                else:
                    kept[span.first] = self._take(member, span.length, span.dtype)
        return self._runs(member, span)

    def _take(self, member: int, count: int, dtype: str = "f32") -> _Run:
        """Rows of the pool; raises PoolFull."""
        found = self._room_in_pool(member, count, dtype)
        if found is None:
            raise PoolFull(f"{self.label}: no memory for {count} rows on member {member}")
        return found

    def _room_in_pool(self, member: int, count: int, dtype: str) -> _Run | None:
        """Rows of the pool from what has been free for longest, if there is room.

        Each has the four planes of fp32, of which narrower types use the first.
        """
        if member not in self._free:
            self._free[member] = [_Run(b, 0, b.region.vectors) for b in self.pool]
        free = self._free[member]
        number = next((n for n, room in enumerate(free) if room.length >= count), None)
        if number is None:
            return None
        room = free.pop(number)
        if room.length > count:
            free.append(room.part(count, room.length - count))
        return room.part(0, count).typed(dtype)


def _is_row_home(message: Message) -> bool:
    """Whether it is one row that goes to where it is to rest, on a neighbour."""
    return message.source.length == len(message.hops) == 1 and not message.lands


def _apart(terms: Sequence[_Run]) -> list[list[_Run]]:
    """Terms in order, cut wherever two would be read from the same slices."""
    found: list[list[_Run]] = [[]]
    for term in terms:
        if any(term.slices == other.slices for other in found[-1]):
            found.append([])
        found[-1].append(term)
    return found


def batches(routes: Mapping[int, tuple[Hop, ...]]) -> list[list[int]]:
    """Numbers of routes in as few batches as a first fit finds, no cable twice in one batch."""
    found: list[tuple[set[tuple[int, int]], list[int]]] = []
    for number, route in routes.items():
        cables = {(hop.member, hop.port) for hop in route}
        for taken, batch in found:
            if not taken & cables:
                taken |= cables
                batch.append(number)
                break
        else:
            found.append((cables, [number]))
    return [batch for _, batch in found]


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
