"""Which words of each slice are taken, by what, and while which ops run."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from chip.program import WEIGHT_SLICES
from chip.spec import ChipSpec

FOREVER = (0, 1 << 30)  # from the first op to the last


@dataclass(frozen=True)
class Taken:
    """Words of a slice that a buffer has from the first to the last op that uses it."""

    start: int
    end: int
    name: str
    first_op: int
    last_op: int


@dataclass
class Occupancy:
    """What is taken in the slices of a chip."""

    spec: ChipSpec
    _slices: dict[int, list[Taken]] = field(default_factory=lambda: defaultdict(list))
    _given: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # which of all
    _count: int = 0  # of what was given
    _spans: dict[int, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    _unions: dict[tuple[int, int], tuple[int, int, list[tuple[int, int]]]] = field(
        default_factory=dict
    )
    _named: dict[int, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))

    def alike(self) -> Iterator[tuple[list[Taken], int]]:
        """What is taken of slices that are in use, and in how many of them it is just that."""
        found: dict[tuple[int, ...], list[int]] = {}
        for index, given in self._given.items():
            found.setdefault(tuple(given), []).append(index)
        return ((self._slices[some[0]], len(some)) for some in found.values())

    def take(self, index: int, width: int, taken: Taken) -> None:
        """Give a buffer the same words of `width` slices."""
        span, named = (taken.start, taken.end), (taken.name, taken.start // self.spec.bank_words)
        for i in range(index, index + width):
            self._given[i].append(self._count)
            self._slices[i].append(taken)
            self._spans[i].add(span)
            self._named[i].add(named)
        self._count += 1

    def of(self, index: int, width: int) -> Iterator[Taken]:
        """What is taken in `width` slices from `index` on."""
        for i in range(index, index + width):
            yield from self._slices[i]

    def named(self, index: int, width: int) -> set[tuple[str, int]]:
        """Whom something is taken by in `width` slices from `index` on, and the banks of that."""
        return set[tuple[str, int]]().union(*(self._named[i] for i in range(index, index + width)))

    def room(
        self, index: int, width: int, words: int, bank: int, life: tuple[int, int],
        high: bool = False,
    ) -> int | None:  # fmt: skip
        """The lowest free address in a bank of these slices while the ops of `life` run.

        Or the highest.
        """
        base = bank * self.spec.bank_words
        address = base
        blocked = sorted({
            (t.start, t.end)
            for t in self.of(index, width)
            if t.last_op >= life[0] and t.first_op <= life[1]
        })  # fmt: skip
        if high:
            address = base + self.spec.bank_words - words
            for start, end in sorted(blocked, key=lambda span: -span[1]):
                if start < address + words and end > address:
                    address = start - words
            return address if address >= base else None
        for start, end in blocked:
            if start < address + words and end > address:
                address = end
        return address if address + words <= base + self.spec.bank_words else None

    def room_in_both(self, index: int, width: int, words: int, life: tuple[int, int]) -> int | None:
        """The lowest address from which words are free in the first bank, and in the other."""
        size, address = self.spec.bank_words, 0
        blocked = sorted(
            (t.start - bank * size, t.end - bank * size)
            for t in self.of(index, width)
            if t.last_op >= life[0] and t.first_op <= life[1]
            for bank in range(2)
        )
        for start, end in blocked:
            if start < address + words and end > address:
                address = end
        return address if address + words <= size else None

    def low_room(self, index: int, width: int, words: int) -> int | None:
        """The lowest address of so many words in these slices that nobody ever has."""
        address = 0
        for start, end in sorted((t.start, t.end) for t in self.of(index, width)):
            if start < address + words and end > address:
                address = end
        return address if address + words <= self.spec.slice_words else None

    def used(self, index: int, width: int, more: tuple[int, int] = (0, 0)) -> int:
        """Words that some of these slices have taken at any time, and `more` from one to one."""
        total, spans = self._union(index, width)
        start, end = more
        covered = sum(max(0, min(end, stop) - max(start, first)) for first, stop in spans)
        return total + end - start - covered

    def _union(self, index: int, width: int) -> tuple[int, list[tuple[int, int]]]:
        """What is taken of any of these slices: words in all, and disjoint stretches, in order."""
        count = sum(len(self._given[i]) for i in range(index, index + width))
        known = self._unions.get((index, width))
        if known is None or known[0] != count:
            spans: list[tuple[int, int]] = []
            for start, stop in sorted({(t.start, t.end) for t in self.of(index, width)}):
                if spans and start <= spans[-1][1]:
                    spans[-1] = spans[-1][0], max(stop, spans[-1][1])
                elif start < stop:
                    spans.append((start, stop))
            known = self._unions[index, width] = count, sum(b - a for a, b in spans), spans
        return known[1:]

    def column_room(
        self, index: int, words: int, layers: int, one_bank: bool, row_words: int = 0
    ) -> list[int] | None:
        """Addresses of each layer's words in 16 slices, or None where there is no room.

        The last `row_words` of each bank are left to rows.
        """
        spans = (self._spans[i] for i in range(index, index + WEIGHT_SLICES))
        ends = (self.spec.bank_words * (bank + 1) for bank in range(self.spec.slice_banks))
        kept = {(end - row_words, end) for end in ends if row_words}
        taken = sorted(kept.union(*spans))
        found: list[int] = []
        address = at = 0
        bank_words = self.spec.bank_words
        while len(found) < layers:
            if one_bank and address // bank_words != (address + words - 1) // bank_words:
                address = -(-address // bank_words) * bank_words
            if address + words > self.spec.slice_words:
                return None
            while at < len(taken) and taken[at][1] <= address:
                at += 1
            if at < len(taken) and taken[at][0] < address + words:
                address = taken[at][1]
                continue
            found.append(address)
            address += words
        return found

    def sharers(self, index: int, width: int, address: int, words: int) -> int:
        """How many buffers have some of these words, whenever that is."""
        end = address + words
        return len({t.name for t in self.of(index, width) if t.start < end and t.end > address})

    def fill(self, index: int, width: int, bank: int) -> int:
        """Words of a bank up to the last that starts in it and is taken."""
        size = self.spec.bank_words
        ends = [t.end for t in self.of(index, width) if t.start // size == bank]
        return max(ends, default=bank * size) - bank * size

    def words(self, slices: Collection[int]) -> int:
        """Words taken in some slices, counted for each buffer that has them."""
        return sum(t.end - t.start for i in slices for t in self._slices[i])
