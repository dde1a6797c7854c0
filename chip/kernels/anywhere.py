"""Columns in any slices of a side: each fourth of a word lies in a quad of slices of its own.

The 44 slices of a side hold two groups of 16 neighbours and leave 12. So that nothing is left,
matrices are cut where passes or tiles begin, and every stretch has its four quads. They are filled
as machines are with jobs that may be interrupted (McNaughton 1959): a matrix is laid out four times
in a row along the room it takes of each quad, and the four copies say who has which fourth when.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise

from chip.isa import WIDTHS
from chip.kernels.conflicts import MUST, Conflicts
from chip.kernels.memory import INNER_SLICES, MemoryMap
from chip.kernels.occupancy import FOREVER, Taken
from chip.kernels.sram_map import QUAD
from chip.kernels.work import SCRATCH, Request
from chip.program import WEIGHT_SLICES, Region
from chip.schedule import Buffer, Stretch

FOURTHS = WEIGHT_SLICES // QUAD
LEAST_QUADS = 2  # that are left to rows, of which others may be in one
FEW_QUADS = 2  # what does not fill these need not be spread as widely as a large matrix
SLACK = 1 / 32  # of a side's words, which no level is to come to


def fourths(
    words: int, cuts: Sequence[int], copies: int, levels: Mapping[int, int], level: float
) -> list[tuple[int, int, tuple[int, ...]]]:
    """Stretches (first, words, quads) of columns of which there are `copies`.

    They fill quads evenly, the first ones of `levels`, the words that each holds: as many as it
    takes to stay below a level.

    >>> fourths(12, range(12), 1, {0: 0, 4: 0, 8: 0, 12: 0, 16: 8}, 12)
    [(0, 12, (0, 4, 8, 12))]
    >>> fourths(12, range(12), 1, {0: 0, 4: 0, 8: 0, 12: 0, 16: 8}, 11.5)
    [(0, 3, (4, 8, 12, 16)), (3, 6, (0, 4, 8, 12)), (9, 3, (0, 4, 8, 16))]
    """
    whole, order = words * copies, list(levels)
    for most in range(FOURTHS, len(levels) + 1):
        order = list(levels)[:most]
        shares = _evenly(whole, [levels[quad] for quad in order])
        if max(share + levels[quad] for share, quad in zip(shares, order, strict=True)) <= level:
            break
    ends = list(accumulate(shares))
    bounds = {0, words} | {_nearest(cuts, end % whole / copies) for end in ends}
    found: list[tuple[int, int, tuple[int, ...]]] = []
    for low, high in pairwise(sorted(bounds)):
        middle = (low + high) / 2 * copies
        each = (bisect_left(ends, middle + turn * whole) for turn in range(FOURTHS))
        found.append((low, high - low, tuple(sorted(order[at] for at in each))))
    return found


def _evenly(words: int, levels: Sequence[int]) -> list[int]:
    """What each quad takes of four times `words`, the emptier the more, and `words` at most."""

    def taken(level: int) -> list[int]:
        return [min(words, max(0, level - own)) for own in levels]

    low, high = min(levels), max(levels) + words
    while low < high:
        level = (low + high) // 2
        low, high = (low, level) if sum(taken(level)) >= FOURTHS * words else (level + 1, high)
    found = taken(low)
    over = sum(found) - FOURTHS * words
    for at, own in enumerate(levels):
        if over and found[at] and found[at] == low - own:
            found[at] -= 1
            over -= 1
    return found


def _nearest(cuts: Sequence[int], word: float) -> int:
    at = bisect_left(cuts, word)
    return min(cuts[max(0, at - 1) : at + 1], key=lambda cut: abs(cut - word))


@dataclass
class Anywhere:
    """Room for all requests in a map whose fixed buffers are placed.

    `reserve` are words of quads that rows will take; `rows` are those that they have taken. What is
    `first` comes before what is larger. With `helps`, quads of one side take columns of the other.
    All that rows meet leaves them as many quads as one chain needs, or if they are `close` each
    matrix does by itself: more has room, but rows may find none.
    """

    found: MemoryMap
    met: Conflicts
    reserve: Mapping[int, int]
    first: tuple[str, ...] = ()
    helps: bool = False
    close: bool = False
    apart: int = MUST  # cycles from which on buffers lie apart
    rows: dict[int, int] = field(default_factory=dict)
    sides: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)  # slices of rows
    _appended: set[str] = field(default_factory=set)
    _around: dict[str, set[int]] = field(default_factory=dict)  # quads closed to rows
    _most: dict[str, int] = field(default_factory=dict)  # quads that may be closed to rows
    _own: dict[tuple[str, int], int] = field(default_factory=dict)  # quads of columns on a side
    _full: list[float] = field(default_factory=list)  # levels to which sides will be full
    _closed: dict[int, int] = field(default_factory=dict)  # words that cannot lie in a quad
    _windows: dict[str, int] = field(default_factory=dict)
    _stretches: dict[str, list[tuple[int, int, tuple[int, ...]]]] = field(default_factory=dict)

    def place(
        self, columns: Sequence[Request], rows: Sequence[Request],
        lives: Mapping[str, tuple[int, int]],
    ) -> None:  # fmt: skip
        """Choose slices of columns, then places of rows, then addresses; raises SramFull.

        Rows that no bank holds come first, as few slices have room for them in one piece.
        """
        found, quads = self.found, list(self.found.levels)
        self.sides = {request.name: request.side for request in (*columns, *rows)}
        self.widths = dict.fromkeys(self.sides, 0) | {r.name: WIDTHS[r.dtype] for r in rows}
        for name, buffer in found.buffers.items():
            self.sides[name] = found.side_of(buffer.region.index)
            self.widths[name] = buffer.region.slices
        long = [request for request in rows if found.in_both(request)]
        for request in long:
            found.place(request, FOREVER, self.met)
        self.reserve = self.reserve or {q: found.occupancy.used(q, QUAD) for q in quads}
        self._appended = {request.name for request in columns if request.one_bank}
        turn = {name: number for number, name in enumerate(self.first, -len(self.first))}

        def order(r: Request) -> tuple[int, ...]:
            return bool(r.cuts), turn.get(r.name, 0), -found.column_words_of(r)

        largest = sorted(columns, key=order)
        others = (request for request in rows if request not in long)
        rows = sorted(others, key=lambda r: turn.get(r.name, 0))
        self._weigh(largest)
        for request in largest:
            self._choose(request)
        try:
            for request in rows:
                life = lives[request.name] if request.role == SCRATCH else FOREVER
                found.place(request, life, self.met, beyond=self._beyond(request))
        finally:
            self.rows = {quad: found.occupancy.used(quad, QUAD) for quad in quads}
        for request in largest:
            if request.name in self._windows:
                found.place_columns(request, self.met, only=self._windows[request.name])
        for request in largest:
            if request.name in self._stretches:
                self._book(request)

    def _weigh(self, columns: Sequence[Request]) -> None:
        """To which level the quads of each side will be full, and which are closed to whom."""
        found, sides = self.found, range(2)
        each = [found.quads_of(side) for side in sides]
        totals = [sum(self.reserve[quad] for quad in quads) for quads in each]
        for request in columns:
            size = FOURTHS * found.column_words_of(request)
            totals[request.side] += size
            for side, quads in zip(sides, each, strict=True):
                if side != request.side and request.copies > 1:  # nothing of it will lie there
                    continue
                rows = [name for name in self._met(request) if self.sides[name] == side]
                left = -(-sum(self.widths[name] for name in rows) // QUAD)  # as rows meet, too
                for name in rows:
                    most = len(quads) - (LEAST_QUADS if self.close else left)
                    most = min(self._most.get(name, len(quads)), most)
                    self._most[name] = max(FOURTHS + 1, most)
                if self.close:
                    self._own[request.name, side] = len(quads) - left
            for quad in each[request.side]:
                if self._apart(request, quad) >= self.apart:
                    self._closed[quad] = self._closed.get(quad, 0) + size
        self._full = [total / len(quads) for total, quads in zip(totals, each, strict=True)]
        self.helps |= max(self._full) > found.spec.slice_words * (1 - SLACK)
        if self.helps:
            self._full = [sum(self._full) / len(sides)] * len(sides)

    def _choose(self, request: Request) -> None:
        """The slices of columns, without an address; what meets them keeps out of these."""
        found, rows = self.found, self._met(request)
        words, copies = found.copy_sizes(request)
        free = self._free(request, request.side)
        if request.cuts and words:
            level = self._full[request.side]
            few = int(FOURTHS * words * copies < FEW_QUADS * level)
            allowed = self._allowed(request, free, few)
            if self.helps and request.copies == 1:  # streams may come from beyond the VXM
                allowed |= self._allowed(request, self._free(request, 1 - request.side), few)
            if len(allowed) < FOURTHS:
                raise found.full(request, words * copies, WEIGHT_SLICES)
            stretches = fourths(words, request.cuts, copies, allowed, level)
            self._stretches[request.name] = stretches
        else:
            stretches = [(0, words, self._window(request, free))]
            self._windows[request.name] = stretches[0][2][0]
        for _, size, quads in stretches:
            for quad in quads:
                found.levels[quad] += size * copies
                found.occupancy.take(quad, QUAD, Taken(0, 0, request.name, 0, 0))
                for name in rows:
                    if self.sides[name] == found.side_of(quad):
                        self._around.setdefault(name, set()).add(quad)

    def _free(self, request: Request, side: int) -> dict[int, int]:
        """Levels of the quads of a side without anything that columns must lie apart from."""
        quads = self.found.quads_of(side)
        free = (quad for quad in quads if self._apart(request, quad) < self.apart)
        return {quad: self.found.levels[quad] + self.reserve[quad] for quad in free}

    @cached_property
    def _partners(self) -> dict[str, set[str]]:
        """What must lie apart from each buffer."""
        found: dict[str, set[str]] = {}
        for (one, other), cycles in (*self.met.slices.items(), *self.met.banks.items()):
            if cycles >= self.apart:
                found.setdefault(one, set()).add(other)
                found.setdefault(other, set()).add(one)
        return found

    def _met(self, request: Request) -> set[str]:
        return self._partners.get(request.name, set())

    def _allowed(self, request: Request, free: Mapping[int, int], few: int) -> dict[int, int]:
        """Quads with their levels that leave enough to the rows met there, and a `few` more.

        Those come first that others cannot have, and the emptiest.
        """
        found: dict[int, int] = {}
        side = self.found.side_of(next(iter(free), 0))
        most = self._own.get((request.name, side), len(free))
        mine = {
            name: self._most[name] - few
            for name in self._met(request)
            if self.sides[name] == side and not (self.close and name in self.found.buffers)
        }
        for quad in sorted(free, key=lambda q: free[q] - self._closed.get(q, 0)):
            closed = {name: self._around.get(name, set()) | found.keys() for name in mine}
            leaves = (quad in own or len(own) < mine[name] for name, own in closed.items())
            if len(found) < most and all(leaves):
                found[quad] = free[quad]
        return found

    def _beyond(self, request: Request) -> int:
        """The slice from which on there are caches to which rows are sent, away from the VXM."""
        mine = [
            index for name, index in self._windows.items()
            if name in self._met(request) and name in self._appended
            and self.found.side_of(index) == request.side
        ]  # fmt: skip
        return min(mine, default=len(self.found.levels) * QUAD)

    def _window(self, request: Request, free: Mapping[int, int]) -> tuple[int, ...]:
        """Four neighbouring quads: those where what lies in the fullest is least."""
        size = self.found.spec.hemisphere_slices
        least = INNER_SLICES if request.one_bank else 0
        every = [range(quad, quad + WEIGHT_SLICES, QUAD) for quad in free if quad % size >= least]
        able = [tuple(quads) for quads in every if all(quad in free for quad in quads)]
        if not able:
            raise self.found.full(request, self.found.column_words_of(request), WEIGHT_SLICES)
        return min(able, key=lambda quads: (max(free[quad] for quad in quads), -quads[0]))

    def _apart(self, request: Request, quad: int) -> int:
        return self.found.meets(request.name, quad, QUAD, self.met)

    def _book(self, request: Request) -> None:
        """Give the stretches of a matrix their addresses; all layers follow each other there.

        What finds no room in one piece is cut once more.
        """
        found, made = self.found, []
        words, copies = found.copy_sizes(request)
        for first, size, quads in self._stretches[request.name]:
            end = first + size
            while first < end:
                ends = (cut for cut in (words, *reversed(request.cuts)) if first < cut <= end)
                room = (cut for cut in ends if self._room((cut - first) * copies, quads))
                size = next(room, first) - first
                if not size:
                    raise found.full(request, words * copies, WEIGHT_SLICES)
                made.append(self._stretch(request, first, size, quads))
                first += size
        region = Region(*made[0].places[0], request.vectors, request.dtype, "columns")
        buffer = Buffer(request.name, region, True, stretches=tuple(made))
        found.add_stretched(request, buffer, copies // request.copies)

    def _room(self, words: int, quads: tuple[int, ...]) -> bool:
        """Whether each of these quads has so many words in a row."""
        return all(self.found.occupancy.low_room(q, QUAD, words) is not None for q in quads)

    def _stretch(self, request: Request, first: int, words: int, quads: tuple[int, ...]) -> Stretch:
        """Take what there is room for: some words of each copy."""
        occupancy, places = self.found.occupancy, []
        _, copies = self.found.copy_sizes(request)
        for quad in quads:
            address = occupancy.low_room(quad, QUAD, words * copies)
            assert address is not None
            end = address + words * copies
            occupancy.take(quad, QUAD, Taken(address, end, request.name, *FOREVER))
            places.append((quad, address))
        return Stretch(first, words, tuple(places), request.copies)
