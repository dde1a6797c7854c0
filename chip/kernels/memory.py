"""Where everything rests in the SRAM of a chip, so that it does not get in its own way.

Any value may rest in any slice. What is asked for is put where it meets others least, in the inner
slices first; the 16 neighbours that feed the MXM with columns are looked for from the outside in.
Buffers whose ops do not overlap may rest in the same words, one after another.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations

from chip.errors import ChipError
from chip.isa import WIDTHS
from chip.kernels.conflicts import MUST, Conflicts
from chip.kernels.occupancy import FOREVER, Taken
from chip.kernels.sram_map import QUAD, Move, SramMap
from chip.kernels.work import HALVES, SCRATCH, Request
from chip.program import COLUMN_PAIRS, WEIGHT_SLICES, Region, word_columns
from chip.schedule import Buffer
from chip.spec import ChipSpec

INNER_SLICES = 12  # next to the VXM on each side, where activations are looked for room first
_MOST_LOADS = 1000  # ways to put columns side by side that are looked at


class SramFull(ChipError):
    """Something finds no room in SRAM."""

    def __init__(self, what: str, needs_bytes: int, has_bytes: int) -> None:
        super().__init__(what, needs_bytes, has_bytes)
        self.what, self.needs_bytes, self.has_bytes = what, needs_bytes, has_bytes

    def __str__(self) -> str:
        need, has = self.needs_bytes / 2**20, self.has_bytes / 2**20
        return f"{self.what} needs {need:.1f} MiB of SRAM, {has:.1f} MiB are left for it"


def most_column_words(spec: ChipSpec) -> int:
    """Words of 16 slices that columns can take on a side at most, wherever they may rest."""
    return spec.hemisphere_slices // QUAD * QUAD * spec.slice_words // WEIGHT_SLICES


def columns_may_rest(spec: ChipSpec, words: Iterable[int]) -> bool:
    """Whether a side may have room for columns of so many words each, all in 16 slices of theirs.

    So many neighbours as do not lie side by side have a slice in common, and share its words. Of
    more ways to put them than a person would try, one is taken to have room.
    """
    side_by_side, order = spec.hemisphere_slices // WEIGHT_SLICES, sorted(words, reverse=True)
    if sum(order) > side_by_side * spec.slice_words:
        return False
    loads = {(0,) * side_by_side}
    for more in order:
        if len(loads) > _MOST_LOADS:
            return True
        loads = {
            tuple(sorted((*load[:at], taken + more, *load[at + 1 :])))
            for load in loads
            for at, taken in enumerate(load)
            if taken + more <= spec.slice_words
        }
    return bool(loads)


@dataclass
class MemoryMap(SramMap):
    """Finds room for what is asked for; in all quads of slices, if those have `levels`.

    Where many chains are at work at once, rows go beyond the inner slices to be `apart`, and in
    both banks in turn.
    """

    levels: dict[int, int] = field(default_factory=dict)  # words of columns by quad, if anywhere
    apart: bool = False
    row_words: int = 0  # at the end of each bank, which columns leave to rows

    # --- rows -------------------------------------------------------------------------------
    def rows(
        self,
        name: str,
        place: tuple[int, int, int],
        vectors: int,
        dtype: str,
        pair: int = 0,
        role: str = SCRATCH,
    ) -> Buffer:
        """Vectors at (side, quad, bank), `pair` the 16-bit half, for good; raises SramFull."""
        side, quad, bank = place
        index = side * self.spec.hemisphere_slices + quad * QUAD + 2 * pair
        request = Request(name, vectors, dtype, side, role)
        room = index, WIDTHS[dtype], vectors, bank, FOREVER, self._is_high(bank)
        address = self.occupancy.room(*room)
        if address is None:
            raise self.full(request, vectors, WIDTHS[dtype])
        return self._book(request, index, address, FOREVER)

    def place(
        self,
        request: Request,
        life: tuple[int, int],
        conflict: Conflicts,
        usual: tuple[int, int] | None = None,
        beyond: int | None = None,
    ) -> Buffer:
        """Find room for rows, at their `usual` slice and bank if they can be; raises SramFull.

        Slices from `beyond` on are not for them. Constants that no bank holds lie in both.
        """
        width, words, both = WIDTHS[request.dtype], self.words_of(request), self.in_both(request)
        every = range(self.spec.slice_banks)
        ways = [tuple(every)] if both else [(bank,) for bank in every]
        if request.in_turn:
            index, _ = usual or (None, 0)
            found = self._in_turn(request, life, conflict, index)
            if found is not None:
                return self._book(request, *found, life, self.spec.bank_words)
        if usual is not None and (at := self._usually(request, *usual, life, conflict)) is not None:
            return self._book(request, usual[0], at, life)
        best: tuple[tuple[int, ...], int, int] | None = None
        base = request.side * self.spec.hemisphere_slices
        for first in range(0, self.spec.hemisphere_slices - width + 1, width):
            spill = first >= INNER_SLICES and not self.levels and not self.apart
            if spill and best is not None and best[1] < base + INNER_SLICES:
                break
            index = base + first
            if beyond is not None and index + width > beyond:
                break
            at_slice = self._cost(request.name, index, width, None, conflict)
            if at_slice >= MUST:
                continue
            for banks in ways:
                bank = banks[0]
                each = (self._cost(request.name, index, width, one, conflict) for one in banks)
                cost = at_slice + sum(each)
                least = MUST - 1 if best is None else best[0][0]
                if cost > least:
                    continue
                address = self.occupancy.low_room(index, width, words) if both else (
                    self.occupancy.room(index, width, words, bank, life, self._is_high(bank))
                )  # fmt: skip
                if address is None:
                    continue
                shared = self.occupancy.sharers(index, width, address, words)
                if best is not None and cost + shared > least:
                    continue
                level = 0
                if self.levels:
                    quad = index // QUAD * QUAD
                    mine = address, address + words
                    level = self.levels[quad] + self.occupancy.used(quad, QUAD, mine)
                    if level > self.spec.slice_words:
                        continue
                fill = self.occupancy.fill(index, width, bank)
                rank = (cost + shared, level, fill, first)
                if best is None or rank < best[0]:
                    best = rank, index, address
        if best is None:
            raise self.full(request, words, width)
        _, index, address = best
        return self._book(request, index, address, life)

    def _in_turn(
        self, request: Request, life: tuple[int, int], conflict: Conflicts, usual: int | None
    ) -> tuple[int, int] | None:
        """The slice and address of rows that are in both banks in turn, if there is room."""
        width, words = WIDTHS[request.dtype], -(-self.words_of(request) // 2)
        best: tuple[tuple[int, ...], int, int] | None = None
        base = request.side * self.spec.hemisphere_slices
        for first in range(0, self.spec.hemisphere_slices - width + 1, width):
            index = base + first
            cost = self.meets(request.name, index, width, conflict)
            address = self.occupancy.room_in_both(index, width, words, FOREVER)
            shares = address is None  # with others, whom it may have to wait for
            if address is None:
                address = self.occupancy.room_in_both(index, width, words, life)
            if cost >= MUST or address is None:
                continue
            if index == usual:
                return index, address
            rank = cost, shares, self.occupancy.fill(index, width, 0), first
            if best is None or rank < best[0]:
                best = rank, index, address
        return None if best is None else best[1:]

    def _usually(
        self, request: Request, index: int, bank: int, life: tuple[int, int], conflict: Conflicts
    ) -> int | None:
        """The address of rows in a slice and bank, if they fit there and nothing must be apart."""
        width = WIDTHS[request.dtype]
        cost = self._cost(request.name, index, width, None, conflict)
        cost += self._cost(request.name, index, width, bank, conflict)
        if cost >= MUST:
            return None
        return self.occupancy.room(index, width, self.words_of(request), bank, life)

    def columns(
        self, name: str, side: int, vectors: int, groups: tuple[int, ...] = (), dtype: str = "f16"
    ) -> Buffer:
        """Columns in an outer group of 16 slices, the emptiest (of `groups`); raises SramFull."""
        outer = self.column_windows(side)[
            : (self.spec.hemisphere_slices - INNER_SLICES) // WEIGHT_SLICES
        ]
        words = -(-vectors // word_columns(dtype))
        found = {
            index: self.occupancy.column_room(index, words, 1, False)
            for number, index in enumerate(outer)
            if number in (groups or range(len(outer)))
        }
        room = {index: addresses[0] for index, addresses in found.items() if addresses}
        request = Request(name, vectors, dtype, side, layout="columns")
        if not room:
            raise self.full(request, words, WEIGHT_SLICES)
        index = min(room, key=lambda index: room[index])
        return self._book(request, index, room[index], FOREVER)

    def outer_rows(self, name: str, side: int, vectors: int, group: int) -> Buffer:
        """fp16 vectors in two slices of an outer group; raises SramFull."""
        region = self.columns(name, side, vectors * COLUMN_PAIRS, (group,)).region
        self.buffers[name] = Buffer(name, Region(region.index, region.address, vectors, "f16"))
        return self.buffers[name]

    # --- columns ----------------------------------------------------------------------------
    def place_columns(
        self, request: Request, conflict: Conflicts, usual: int | None = None,
        only: int | None = None,
    ) -> None:  # fmt: skip
        """Find 16 slices with room for columns of all layers, the `usual` ones if there is some.

        They are those from slice `only` on, if given. Raises SramFull.
        """
        words, layers = self.column_sizes(request)
        best: tuple[tuple[int, int], int, list[int]] | None = None
        windows = self.column_windows(request.side) if only is None else [only]
        if self.apart and usual in windows:
            windows = [usual, *windows]
        for index in windows:
            cost = self.meets(request.name, index, WEIGHT_SLICES, conflict)
            if cost >= MUST:
                continue
            one_bank = request.one_bank
            found = self.occupancy.column_room(index, words, layers, one_bank, self.row_words)
            if found is None:
                continue
            outer = index % self.spec.hemisphere_slices >= INNER_SLICES
            met = 0 if request.per_layer else cost  # what rests for good is next to all the time
            if index == usual:
                best = (met, 0), index, found
                break
            if best is None or (met, found[-1]) < best[0]:
                best = (met, found[-1]), index, found
            together = self.apart and request.per_layer  # in as few slices: rows go elsewhere
            if best[0][0] == 0 and (together or not outer):
                break
        if best is None:
            raise self.full(request, words * layers, WEIGHT_SLICES)
        _, index, addresses = best
        for address in addresses:
            taken = Taken(address, address + words, request.name, *FOREVER)
            self.occupancy.take(index, WEIGHT_SLICES, taken)
        self._add(request, Region(index, addresses[0], request.vectors, request.dtype, "columns"))
        if request.per_layer:
            region = self.buffers[request.name].region
            offsets = tuple(address - addresses[0] for address in addresses)
            self.moves[request.name] = Move(region, offsets, self._begins(request))

    def _begins(self, request: Request) -> int:
        """The first layer of its kind that a request is for."""
        early, late = HALVES
        prefix = self.prefix_of(request)
        return self.layers[prefix.removesuffix(late) + early] if prefix.endswith(late) else 0

    def column_words_of(self, request: Request) -> int:
        """Words of 16 slices that columns of all layers and slots take."""
        words, layers = self.column_sizes(request)
        return words * layers

    def column_sizes(self, request: Request) -> tuple[int, int]:
        """Words of a layer, and for how many layers, of all slots."""
        words = -(-request.vectors // word_columns(request.dtype))
        return words, self.layers_of(request) if request.per_layer else 1

    def copy_sizes(self, request: Request) -> tuple[int, int]:
        """Words of what is cut alike, and how many there are of it, in all layers."""
        words, layers = self.column_sizes(request)
        return words // request.copies, layers * request.copies

    def column_windows(self, side: int) -> list[int]:
        """First slices of 16 neighbours: whole outer groups of the side first."""
        size = self.spec.hemisphere_slices
        outer = list(range(INNER_SLICES, size - WEIGHT_SLICES + 1, WEIGHT_SLICES))
        others = [i for i in range(size - WEIGHT_SLICES, -1, -QUAD) if i not in outer]
        return [side * size + i for i in (*outer, *others)]

    def open_all(self) -> "MemoryMap":
        """Let columns lie in any quads of slices, between rows at both ends of them."""
        size = self.spec.hemisphere_slices
        firsts = range(0, size - QUAD + 1, QUAD)
        self.levels = {side * size + first: 0 for side in range(2) for first in firsts}
        return self

    def quads_of(self, side: int) -> list[int]:
        """First slices of the quads of a side, where columns may lie in all."""
        return [quad for quad in self.levels if self.side_of(quad) == side]

    def _is_high(self, bank: int) -> bool:
        return bool(self.levels) and bank > 0

    def side_of(self, index: int) -> int:
        """The side of a slice."""
        return index // self.spec.hemisphere_slices

    def add_stretched(self, request: Request, buffer: Buffer, copies: int) -> None:
        """Note where columns lie that were cut, of so many layers."""
        self.buffers[request.name], self.roles[request.name] = buffer, request.role
        self.copies[request.name] = copies

    # --- bookkeeping ------------------------------------------------------------------------
    def meets(self, name: str, index: int, width: int, conflict: Conflicts) -> int:
        """Cycles in which columns would meet those that rest in some slices."""
        at_slice, at_bank = (partners.get(name, {}) for partners in conflict.by_name)
        return sum(
            at_slice.get(other, 0) + at_bank.get(other, 0)
            for other in {other for other, _ in self.occupancy.named(index, width)}
        )

    def _cost(
        self, name: str, index: int, width: int, bank: int | None, conflict: Conflicts
    ) -> int:
        """Cycles in which a buffer would meet those that rest in these slices, or in their bank."""
        mine = conflict.by_name[bank is not None].get(name)
        if not mine:
            return 0
        others = {
            other
            for other, its in self.occupancy.named(index, width)
            if other in mine and (bank is None or its == bank or self._anywhere(other))
        }
        return sum(map(mine.__getitem__, others))

    def _anywhere(self, name: str) -> bool:
        return name not in self.buffers or self.buffers[name].any_bank

    def _book(
        self, request: Request, index: int, address: int, life: tuple[int, int], in_turn: int = 0
    ) -> Buffer:
        assert request.name not in self.buffers, request.name
        vectors = -(-request.vectors // 2) if in_turn else request.vectors
        region = Region(index, address, vectors, request.dtype, request.layout)
        words = region.words
        if request.per_layer and request.layout == "rows":
            words = self.words_of(request)
            offsets = tuple(range(0, words, request.vectors))
            self.moves[request.name] = Move(region, offsets)
        for start in (address, address + in_turn) if in_turn else (address,):
            taken = Taken(start, start + words, request.name, *life)
            self.occupancy.take(index, region.slices, taken)
        return self._add(request, region, in_turn)

    def _add(self, request: Request, region: Region, in_turn: int = 0) -> Buffer:
        elsewhere = request.per_layer or not request.one_bank
        any_bank = (request.layout == "columns" and elsewhere) or self.in_both(request)
        buffer = Buffer(request.name, region, any_bank, in_turn=in_turn)
        self.buffers[request.name], self.roles[request.name] = buffer, request.role
        return buffer

    def finish(self) -> "MemoryMap":
        """Note which buffers follow others in the same words, and what is used in all."""
        after: dict[str, set[str]] = defaultdict(set)
        for mine, slices in self.occupancy.alike():
            for a, b in combinations([t for t in mine if t.last_op < FOREVER[1]], 2):
                if a.start < b.end and b.start < a.end:
                    first, second = sorted((a, b), key=lambda t: t.first_op)
                    assert first.last_op < second.first_op, (first, second)
                    after[second.name].add(first.name)
            spans = sorted((t.start, t.end) for t in mine)
            end = 0
            for start, stop in spans:
                self.used_bytes += max(0, stop - max(start, end)) * slices * self.spec.lanes
                end = max(end, stop)
        for name, before in after.items():
            self.buffers[name] = replace(self.buffers[name], after=tuple(sorted(before)))
        return self

    def full(self, request: Request, words: int, width: int) -> SramFull:
        lanes = self.spec.lanes
        whole = self.spec.hemisphere_slices * self.spec.slice_words * lanes
        first = request.side * self.spec.hemisphere_slices
        mine = range(first, first + self.spec.hemisphere_slices)
        used = self.occupancy.words(mine) * lanes
        return SramFull(request.name, words * width * lanes, max(0, whole - used))
