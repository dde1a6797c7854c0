"""Where a decoder's vectors rest in SRAM.

The twelve slices nearest the VXM on each side hold activations, as three groups of four: a group
serves one 32-bit vector or two 16-bit vectors per cycle. The outer 32 slices of each side are two
groups of 16 (on a chip with more slices, more) for weights and KV caches, which feed the MXM of
their side eight fp16 or sixteen int8 columns a cycle.
"""

from dataclasses import dataclass, field

from chip.errors import ChipError
from chip.isa import WIDTHS
from chip.program import COLUMN_PAIRS, WEIGHT_SLICES, Region, word_columns
from chip.schedule import Buffer
from chip.spec import ChipSpec

INNER_SLICES = 12
GROUP_SLICES = 4


class SramFull(ChipError):
    """Something does not fit into the SRAM areas meant for it."""

    def __init__(self, what: str, needs_bytes: int, has_bytes: int) -> None:
        super().__init__(what, needs_bytes, has_bytes)
        self.what, self.needs_bytes, self.has_bytes = what, needs_bytes, has_bytes

    def __str__(self) -> str:
        need, has = self.needs_bytes / 2**20, self.has_bytes / 2**20
        return f"{self.what} needs {need:.1f} MiB of SRAM, {has:.1f} MiB are left for it"


@dataclass(frozen=True)
class Move:
    """Where layer l keeps what layer 0 keeps in `region`: `words[l]` words further on.

    Caches go on with the layers of the next sequence slot; what all slots share begins anew.
    """

    region: Region
    words: tuple[int, ...]


@dataclass
class Memory:
    """Allocates buffers of one chip; every chip of a tensor-parallel group has the same map."""

    spec: ChipSpec
    buffers: dict[str, Buffer] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    used_bytes: int = 0
    # next free word of each (slice, bank) inside, and of each 16-slice group outside
    _inner: dict[tuple[int, int], int] = field(default_factory=dict)
    _outer: dict[tuple[int, int], int] = field(default_factory=dict)

    def rows(
        self, name: str, place: tuple[int, int, int], vectors: int, dtype: str, pair: int = 0
    ) -> Buffer:
        """Vectors in the inner slices; `place` is (side, group, bank), `pair` the 16-bit half.

        Raises SramFull.
        """
        side, group, bank = place
        width = WIDTHS[dtype]
        first = side * self.spec.hemisphere_slices + group * GROUP_SLICES + 2 * pair
        slices = range(first, first + width)
        base = bank * self.spec.bank_words
        address = max(self._inner.get((index, bank), base) for index in slices)
        self._fits(name, address - base, vectors, self.spec.bank_words, width)
        for index in slices:
            self._inner[index, bank] = address + vectors
        return self._add(name, Region(first, address, vectors, dtype), width * vectors)

    def layer_rows(
        self, name: str, place: tuple[int, int, int], vectors: int, layers: int, more: int = 0
    ) -> None:
        """fp32 rows of each layer, one after another, then `more`; raises SramFull."""
        whole = self.rows(name, place, vectors * layers + more, "f32").region
        first = Region(whole.index, whole.address, vectors, "f32")
        self.moves.append(Move(first, tuple(range(0, vectors * layers, vectors))))

    def columns(
        self,
        name: str,
        side: int,
        vectors: int,
        groups: tuple[int, ...] = (),
        dtype: str = "f16",
    ) -> Buffer:
        """Columns in an outer group of `side`, the emptiest (of `groups`); raises SramFull."""
        return self._columns(name, side, self._emptiest(side, groups), vectors, False, dtype)

    def per_layer(
        self,
        name: str,
        side: int,
        vectors: int,
        layers: int,
        one_bank: bool = False,
        groups: tuple[int, ...] = (),
        dtype: str = "f16",
    ) -> None:
        """Columns `0.name`, `1.name`..: alike in all layers but for their address."""
        if not layers:
            return
        group = self._emptiest(side, groups)
        for layer in range(layers):
            self._columns(f"{layer}.{name}", side, group, vectors, one_bank, dtype)
        first = self.buffers[f"0.{name}"].region
        addresses = [self.buffers[f"{n}.{name}"].region.address for n in range(layers)]
        self.moves.append(Move(first, tuple(a - first.address for a in addresses)))

    def _emptiest(self, side: int, groups: tuple[int, ...]) -> int:
        everywhere = range(_outer_groups(self.spec))
        return min(groups or everywhere, key=lambda group: self._outer.get((side, group), 0))

    def _columns(
        self, name: str, side: int, group: int, vectors: int, one_bank: bool, dtype: str
    ) -> Buffer:
        words = -(-vectors // word_columns(dtype))
        address = self._outer.get((side, group), 0)
        bank_words = self.spec.bank_words
        if one_bank and address // bank_words != (address + words - 1) // bank_words:
            address = -(-address // bank_words) * bank_words
        self._fits(name, address, words, self.spec.slice_words, WEIGHT_SLICES)
        self._outer[side, group] = address + words
        base = side * self.spec.hemisphere_slices + INNER_SLICES
        region = Region(base + group * WEIGHT_SLICES, address, vectors, dtype, "columns")
        return self._add(name, region, WEIGHT_SLICES * words)

    @property
    def column_words(self) -> int:
        """Words taken in the outer groups of 16 slices, those of all groups added."""
        return sum(self._outer.values())

    def outer_rows(self, name: str, side: int, vectors: int, group: int) -> Buffer:
        """fp16 vectors in two slices of an outer group; raises SramFull."""
        buffer = self.columns(name, side, vectors * COLUMN_PAIRS, groups=(group,))
        region = buffer.region
        rows = Region(region.index, region.address, vectors, "f16")
        self.buffers[name] = Buffer(name, rows)
        return self.buffers[name]

    def moved(self, index: int, address: int, layer: int) -> int:
        """Where `layer` keeps the word that layer 0 keeps at `address` of slice `index`.

        Layers are numbered through all sequence slots.
        """
        for move in self.moves:
            region = move.region
            if (
                region.index <= index < region.index + region.slices
                and region.address <= address < region.address + region.words
            ):
                return address + move.words[layer % len(move.words)]
        return address

    def __getitem__(self, name: str) -> Buffer:
        return self.buffers[name]

    def _fits(self, name: str, start: int, words: int, limit: int, slices: int) -> None:
        if start + words > limit:
            lanes = self.spec.lanes * slices
            raise SramFull(name, words * lanes, max(0, limit - start) * lanes)

    def _add(self, name: str, region: Region, words: int) -> Buffer:
        assert name not in self.buffers, name
        any_bank = name[0].isdigit()
        self.buffers[name] = Buffer(name, region, any_bank)
        self.used_bytes += words * self.spec.lanes
        return self.buffers[name]


def column_capacity_words(spec: ChipSpec) -> int:
    """Words that there are in the outer groups of 16 slices on both sides."""
    return 2 * _outer_groups(spec) * spec.slice_words


def _outer_groups(spec: ChipSpec) -> int:
    return (spec.hemisphere_slices - INNER_SLICES) // WEIGHT_SLICES
