"""The meaning of a linked node in NumPy: its value, from the state of a chip."""

from functools import partial, singledispatch

import numpy as np

from chip.arrays import Array
from chip.isa import NUMPY_TYPES
from chip.isa.mem import check_indirect
from chip.isa.mxm import PREPARE, Tile
from chip.linker.fetch import Ints, as_slice, moved
from chip.linker.graph import State
from chip.linker.node_ops import (
    Accumulate,
    Append,
    CheckFetch,
    Columns,
    Gather,
    GatheredColumns,
    MoveLanes,
    NodeOp,
    Pointwise,
    Products,
    Read,
    Receive,
    Resting,
    Scatter,
    Send,
    Store,
    Streamed,
)
from chip.program import COLUMN_PAIRS, word_columns
from chip.sram import GROUP


def interpret(op: NodeOp, number: int, state: State) -> None:
    """Do what node `number` does, and note its value, [iterations, lanes], if it has one."""
    value = value_of(op, state)
    if value is not None:
        state.values[number] = value


@singledispatch
def value_of(op: NodeOp, state: State) -> Array | None:
    """Do what a node does; its value, or None."""
    raise TypeError(op)


@value_of.register
def _(op: Read, state: State) -> Array:
    words = moved(op.where, state.shift[op.local])
    view = state.sram.typed(op.index, NUMPY_TYPES[op.element])[words]
    return view if op.is_constant else np.array(view)


@value_of.register
def _(op: Pointwise, state: State) -> Array:
    value: Array = op.op.function(*(fetch(state.values) for fetch in op.sources))
    return value


@value_of.register
def _(op: MoveLanes, state: State) -> Array:
    given = (fetch(state.values)[:, : op.powered] for fetch in op.sources)
    return _padded(op.op.function(*op.constants, *given), state)


@value_of.register
def _(op: Accumulate, state: State) -> Array | None:
    held = state.accumulators[op.unit].view(NUMPY_TYPES[op.element])[:, : op.powered]
    products = op.source(state.values)[:, : op.powered]
    value = op.op.function(held, op.mode, as_slice(op.slots), products)
    return _padded(value, state) if op.emits else None


@value_of.register
def _(op: CheckFetch, state: State) -> None:
    op.op.function(op.source(state.values), op.image)


# --- links ----------------------------------------------------------------------------------
@value_of.register
def _(op: Receive, state: State) -> Array:
    return state.received[state.first + op.local]


@value_of.register
def _(op: Send, state: State) -> None:
    packets = _padded(op.source(state.values)[:, : op.powered], state)
    state.sent[state.first + op.local] = np.array(packets, order="C")


# --- SRAM -----------------------------------------------------------------------------------
@value_of.register
def _(op: Store, state: State) -> None:
    words, values = moved(op.where, state.shift[op.local]), op.source(state.values)
    if op.powered == values.shape[1]:
        state.sram.store(op.index, words, values)
    else:
        plane = state.sram.group(op.index)[:, : op.powered, op.index % GROUP]
        plane[words] = values[:, : op.powered]
        state.sram.written(op.index, words)


@value_of.register
def _(op: Gather, state: State) -> Array:
    base, map = op.base + state.shift[op.local], op.map(state.values)[:, : op.powered]
    return _padded(op.op.function(state.sram, op.unit, base, op.count, map), state)


@value_of.register
def _(op: GatheredColumns, state: State) -> Array:
    base, map = op.base + state.shift[op.local], op.map(state.values)
    planes = [
        op.op.function(state.sram, unit, base + further, op.count, map)
        for index, further in op.places
        for unit in range(index, index + GROUP)
    ]
    columns = np.stack(planes, axis=2).view(NUMPY_TYPES[op.format])  # [words, lanes, columns]
    return columns.swapaxes(1, 2).reshape(-1, state.sram.spec.lanes)


@value_of.register
def _(op: Scatter, state: State) -> None:
    base, map = op.base + state.shift[op.local], op.map(state.values)[:, : op.powered]
    values = op.source(state.values)[:, : op.powered]
    op.op.function(state.sram, op.unit, base, op.count, map, values)
    words = np.unique(map[:, :: state.sram.spec.superlane_lanes]).astype(np.int64) + base
    state.scattered.append((op.unit, 1, words))


@value_of.register
def _(op: Append, state: State) -> None:
    sram, (region, map_local, data_local) = state.sram, op.locals
    maps = sram.typed(op.map_slice, NUMPY_TYPES["u16"])[op.map_words + state.shift[map_local]]
    data = sram.typed(op.data_slice, NUMPY_TYPES["f16"])[op.data_words + state.shift[data_local]]
    offsets = maps[:, :, :: sram.spec.superlane_lanes].astype(np.int64)
    first = op.base + state.shift[region]
    check_indirect(op.index, first, op.count, offsets)
    sram.scatter_columns(op.index, offsets + first, data)
    state.scattered.append((op.index, 2 * COLUMN_PAIRS, np.unique(offsets) + first))


def _padded(values: Array, state: State) -> Array:
    """The values in the powered lanes of whole rows."""
    lanes = state.sram.spec.lanes
    if values.shape[1] == lanes:
        return values
    out = np.zeros((len(values), lanes, *values.shape[2:]), values.dtype)
    out[:, : values.shape[1]] = values
    return out


# --- products -------------------------------------------------------------------------------
@value_of.register
def _(op: Columns, state: State) -> Array:
    return _gathered(op, op.words.ravel(), state)


@value_of.register
def _(op: Products, state: State) -> Array:
    x = op.source(state.values)[:, : op.powered]
    product = np.zeros((len(op.tile), state.sram.spec.lanes), NUMPY_TYPES[op.made])
    tiles = _resting(op.weights, state) if isinstance(op.weights, Resting) else (
        _streamed(op.weights, op.powered, state)
    )  # fmt: skip
    columns = (op.first_column[:, None] + np.arange(word_columns(_format(op)))).ravel()
    for number, tile in enumerate(tiles):
        met = np.flatnonzero(op.tile == number)
        product[met[:, None], columns] = tile.dot(x[met % op.rows])
    return product


def _format(op: Products) -> str:
    return op.weights.columns.format if isinstance(op.weights, Resting) else op.weights.format


def _resting(weights: Resting, state: State) -> list[Tile]:
    """The tiles of columns at rest; those in constant regions are prepared once per chip."""
    columns, prepare = weights.columns, PREPARE[weights.columns.format]
    if weights.reader is not None:
        blocks = np.split(state.values[weights.reader], len(columns.words))
        return [prepare(block) for block in blocks]
    shift = state.shift[columns.local]

    def tile(words: Ints) -> Tile:
        return prepare(_gathered(columns, words, state))

    return [
        state.sram.kept((*key, shift), columns.places, block + shift, partial(tile, block))
        for key, block in zip(columns.keys, columns.words, strict=True)
    ]


def _gathered(columns: Columns, words: Ints, state: State) -> Array:
    """Columns [8 or 16 * words, lanes] at rest, a fourth of each word in each quad."""
    shift, dtype = state.shift[columns.local], NUMPY_TYPES[columns.format]
    groups = [
        state.sram.group(index)[moved(as_slice(words), shift + further)].view(dtype)
        for index, further in columns.places
    ]
    stacked = np.stack(groups, axis=1)  # [words, groups, lanes, columns of a group]
    return stacked.swapaxes(2, 3).reshape(len(words) * word_columns(columns.format), -1)


def _streamed(weights: Streamed, powered: int, state: State) -> list[Tile]:
    """Tiles of weights that come from elsewhere, assembled byte by byte."""
    (tiles, loads), lanes, count = (
        weights.shape,
        state.sram.spec.lanes,
        word_columns(weights.format),
    )
    held = np.empty((tiles, loads, lanes, count), NUMPY_TYPES[weights.format])
    for mine, iterations, fetch in weights.parts:
        held[mine] = fetch(state.values)[iterations].view(held.dtype)
    columns = held.swapaxes(2, 3).reshape(tiles, -1, lanes)[:, :, :powered]
    return [PREPARE[weights.format](block) for block in columns]
