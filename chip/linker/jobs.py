"""What a node does, as data: enough for `chip.tape` to do it without the node's Python step.

A node without a job, or with one that a tape does not know, runs its step.
"""

from dataclasses import dataclass

from chip.linker.fetch import Fetch, Ints


@dataclass(frozen=True, eq=False)
class Read:
    """Words of the slices from `index` on, as elements. `local` is the issue whose shift counts."""

    index: int
    words: Ints
    element: str
    local: int


@dataclass(frozen=True, eq=False)
class Pointwise:
    """An op of the VXM; all operands have the type `element`, the result is `made`."""

    op: str
    sources: tuple[Fetch, ...]
    element: str
    made: str
    rows: int


@dataclass(frozen=True, eq=False)
class Lanes:
    """Every row with its lanes taken from those in `lanes`; -1 is zero."""

    lanes: Ints
    source: Fetch
    element: str
    rows: int


@dataclass(frozen=True, eq=False)
class Columns:
    """Weight columns at rest in 16 slices from `index` on, `words` [tiles, loads]."""

    index: int
    words: Ints
    format: str
    local: int


@dataclass(frozen=True, eq=False)
class Products:
    """Activations through tiles: iteration i meets tile `tile`[i] with row i modulo `rows`.

    `kept` is the node that has read the columns, if they may change until they are used.
    """

    source: Fetch
    rows: int
    columns: Columns
    first_column: Ints
    tile: Ints
    kept: int | None
    made: str


@dataclass(frozen=True, eq=False)
class Sums:
    """Products into the accumulators `slots` of a plane; the new values if `emits`."""

    unit: int
    mode: int
    slots: Ints
    source: Fetch
    element: str
    emits: bool


@dataclass(frozen=True, eq=False)
class Store:
    """Elements to `words` of the slices from `index` on."""

    index: int
    words: Ints
    source: Fetch
    element: str
    local: int


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


Job = Read | Pointwise | Lanes | Columns | Products | Sums | Store | Append
