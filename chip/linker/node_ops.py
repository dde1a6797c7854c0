"""What a linked node does, as data: one class per kind, with two readers.

`chip.linker.interpret` does it in NumPy, which is the definition; `chip.tape` writes it as records
for compiled code, where it can. `local` is the issue whose address shift counts (see
`graph.State`); `powered` are the lanes that are not switched off.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.isa import Op
from chip.linker.fetch import Fetch, Ints, as_slice
from chip.program import WEIGHT_SLICES
from chip.sram import GROUP, Places


@dataclass(frozen=True, eq=False)
class Read:
    """Words of the slices from `index` on, as elements; a view where nobody writes them."""

    index: int
    words: Ints
    element: str
    local: int
    is_constant: bool

    @cached_property
    def where(self) -> slice | Ints:
        """The words, as a slice if they are a progression."""
        return as_slice(self.words)


@dataclass(frozen=True, eq=False)
class Pointwise:
    """An op of the VXM; operands have the type `element` (a mask: bytes), the result is `made`."""

    op: Op
    sources: tuple[Fetch, ...]
    element: str
    made: str
    rows: int


@dataclass(frozen=True, eq=False)
class MoveLanes:
    """An op of the SXM, a function of its numbers and maps, then of its streams.

    If `lanes` is given, lane i of each row is lane lanes[i] of the only source; -1 is zero.
    """

    op: Op
    constants: tuple[int | Ints, ...]
    sources: tuple[Fetch, ...]
    element: str
    rows: int
    powered: int
    lanes: Ints | None = None


@dataclass(frozen=True, eq=False)
class Columns:
    """Weight columns at rest in four quads of slices, `words` [tiles, loads] of the first.

    `places` are the first slice of each quad, and how much further on its words are.
    """

    places: Places
    words: Ints
    format: str
    local: int
    is_constant: bool

    @property
    def neighbours(self) -> bool:
        """Whether they are 16 neighbouring slices, of which the same words are meant."""
        return self.places == neighbours(self.places[0][0])

    @cached_property
    def keys(self) -> list[tuple[object, ...]]:
        """What names each tile among all that rest on a chip."""
        return [(self.format, self.places, block.tobytes()) for block in self.words]


def neighbours(index: int) -> Places:
    """The places of columns in 16 slices from `index` on."""
    return tuple((index + first, 0) for first in range(0, WEIGHT_SLICES, GROUP))


@dataclass(frozen=True, eq=False)
class Resting:
    """Columns in SRAM; `reader` is the node that has read them, if they may change until then."""

    columns: Columns
    reader: int | None


@dataclass(frozen=True, eq=False)
class Streamed:
    """Columns that come from elsewhere, of the type `format`.

    Each part says which of the loads [tiles, loads] it fills, and with which of its iterations.
    """

    parts: tuple[tuple[Array, Ints, Fetch], ...]
    shape: tuple[int, int]
    format: str


@dataclass(frozen=True, eq=False)
class Products:
    """Activations through tiles: iteration i meets tile `tile`[i] with row i modulo `rows`.

    Load j of each tile fills columns from first_column[j] on.
    """

    source: Fetch
    rows: int
    weights: Resting | Streamed
    first_column: Ints
    tile: Ints
    made: str
    powered: int


@dataclass(frozen=True, eq=False)
class Accumulate:
    """Products into the accumulators `slots` of a plane, set or added; `emits` the new values."""

    op: Op
    unit: int
    mode: int
    slots: Ints
    source: Fetch
    element: str
    emits: bool
    powered: int


@dataclass(frozen=True, eq=False)
class Store:
    """Elements to `words` of the slices from `index` on; fewer than all lanes only of bytes."""

    index: int
    words: Ints
    source: Fetch
    element: str
    local: int
    powered: int

    @cached_property
    def where(self) -> slice | Ints:
        """The words, as a slice if they are a progression."""
        return as_slice(self.words)


@dataclass(frozen=True, eq=False)
class Gather:
    """A read of one slice at addresses from a map stream, in a region of `count` words."""

    op: Op
    unit: int
    base: int
    count: int
    map: Fetch
    local: int
    powered: int


@dataclass(frozen=True, eq=False)
class GatheredColumns:
    """Weight columns read from four quads of slices, at the `rows` addresses of one map.

    They lie in regions of `count` words, in the first quad from `base` on; `places` and the value
    are as those of `Columns`.
    """

    op: Op
    places: Places
    base: int
    count: int
    map: Fetch
    rows: int
    format: str
    local: int


@dataclass(frozen=True, eq=False)
class Scatter:
    """A write of one slice at addresses from a map stream, in a region of `count` words."""

    op: Op
    unit: int
    base: int
    count: int
    map: Fetch
    source: Fetch
    local: int
    powered: int


@dataclass(frozen=True, eq=False)
class Append:
    """fp16 rows to the eight slice pairs from `index` on, at addresses from a map, in one region.

    Maps and data are words [pairs, rows] of slice pairs; `locals` are the issues whose shifts
    count for the region, the maps and the data.
    """

    index: int
    base: int
    count: int
    map_slice: int
    map_words: Ints
    data_slice: int
    data_words: Ints
    locals: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Send:
    """Packets for the link, of the issue `local`."""

    source: Fetch
    local: int
    powered: int


@dataclass(frozen=True, eq=False)
class Receive:
    """The packets that the launch was given for the issue `local`."""

    local: int


@dataclass(frozen=True, eq=False)
class CheckFetch:
    """Compare what arrives for an Ifetch with the instructions of its queue."""

    op: Op
    source: Fetch
    image: npt.NDArray[np.uint8]


NodeOp = (
    Read | Pointwise | MoveLanes | Columns | Products | Accumulate | Store | Gather
    | GatheredColumns | Scatter | Append | Send | Receive | CheckFetch
)  # fmt: skip
