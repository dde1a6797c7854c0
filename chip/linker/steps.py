"""How each unit's instruction becomes a step: the operands fetched, the op's function applied."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from chip.errors import AddressError, Misaligned
from chip.isa import NO_STREAM, NUMPY_TYPES, lookup
from chip.isa.mxm import PREPARE, Tile
from chip.isa.sxm import ZERO
from chip.linker.control import Build, narrowed
from chip.linker.fetch import Array, Fetch, Take, as_slice
from chip.linker.graph import Builders, Graph, State, Step, made_by
from chip.linker.jobs import Columns, Lanes, Pointwise, Products, Store, Sums
from chip.linker.lanes import lanes
from chip.linker.streams import PRODUCT
from chip.linker.timeline import Ints, Issue
from chip.linker.weights import Tiles
from chip.program import WEIGHT_SLICES, word_columns
from chip.sram import GROUP

MAPPED = ("sxm.permute", "sxm.distribute")
LOADED = lookup("mxm.lw").index("a")


def vxm(graph: Graph, issue: Issue) -> int:
    """Point-wise function of one, two or three operands."""
    fetches, needs = _operands(graph, issue)
    function, args = issue.op.function, issue.instruction.args
    first = issue.op.element(issue.op.sources[0], args)
    job = Pointwise(issue.op.name, tuple(fetches), first, made_by(issue), issue.instruction.count)
    if len(fetches) == 1:
        (a,) = fetches
        return graph.add(
            (issue,), needs, lambda k: lambda s: _set(s, k, function(a(s.values))), job
        )
    if len(fetches) == 2:
        a, b = fetches
        return graph.add(
            (issue,), needs, lambda k: lambda s: _set(s, k, function(a(s.values), b(s.values))), job
        )
    return graph.add(
        (issue,), needs, lambda k: lambda s: _set(s, k, function(*(f(s.values) for f in fetches)))
    )


def sxm(graph: Graph, issue: Issue) -> int:
    """Lanes moved by a map, which must be one of the op."""
    (a,), needs = _operands(graph, issue)
    function, lanes = issue.op.function, graph.maps[issue.arg("map")]
    size = graph.spec.superlane_lanes if issue.op.name == "sxm.distribute" else graph.spec.lanes
    if len(lanes) != size:
        raise issue.hazard(Misaligned, f"map {issue.arg('map')} has {len(lanes)} lanes, not {size}")
    if issue.op.name == "sxm.permute":
        legal = np.array_equal(np.sort(lanes), np.arange(size))
    else:
        legal = bool(((lanes >= 0) & (lanes < size) | (lanes == ZERO)).all())
    if not legal:
        raise issue.hazard(Misaligned, f"map {issue.arg('map')} is none of a {issue.op.name}")
    whole = np.arange(graph.spec.lanes) // size * size + np.resize(lanes, graph.spec.lanes)
    whole[np.resize(lanes, graph.spec.lanes) == ZERO] = -1
    job = Lanes(whole, a, made_by(issue), issue.instruction.count)
    return graph.add(
        (issue,), needs, lambda k: lambda s: _set(s, k, function(lanes, a(s.values))), job
    )


def receive(graph: Graph, issue: Issue) -> int:
    """The packets the launch was given for this issue."""
    return graph.add(
        (issue,), set(), lambda k: lambda s: _set(s, k, s.received[s.first + issue.id])
    )


def send(graph: Graph, issue: Issue) -> int:
    """Packets for the link, copied off the streams."""
    (a,), needs = _operands(graph, issue)

    def make(number: int) -> Step:
        def step(state: State) -> None:
            state.sent[state.first + issue.id] = np.array(a(state.values), order="C")

        return step

    return graph.add((issue,), needs, make)


def gather(graph: Graph, issue: Issue) -> int:
    """A read whose addresses are data; checked against its region when they are known."""
    (lanes,), needs = _operands(graph, issue)
    base, count, local = issue.arg("base"), issue.arg("words"), issue.id
    function, unit = issue.op.function, issue.unit

    def make(number: int) -> Step:
        def step(state: State) -> None:
            first = base + state.shift[local]
            _set(state, number, function(state.sram, unit, first, count, lanes(state.values)))

        return step

    return graph.add((issue,), needs, make)


def write(graph: Graph, issue: Issue) -> int:
    """One byte plane to one slice; `write_groups` has taken those that make whole elements."""
    (a,), needs = _operands(graph, issue)
    function, unit, where, local = issue.op.function, issue.unit, issue.steps, issue.id

    def make(number: int) -> Step:
        def step(state: State) -> None:
            function(state.sram, unit, where + state.shift[local], a(state.values))

        return step

    return graph.add((issue,), needs, make, Store(unit, where, a, "u8", local))


def scatter(graph: Graph, issue: Issue) -> int:
    """A write whose addresses are data; checked against its region when they are known."""
    (lanes, a), needs = _operands(graph, issue)
    base, count, local = issue.arg("base"), issue.arg("words"), issue.id
    function, unit = issue.op.function, issue.unit

    def make(number: int) -> Step:
        def step(state: State) -> None:
            first, offsets = base + state.shift[local], lanes(state.values)
            function(state.sram, unit, first, count, offsets, a(state.values))
            state.scattered.append((unit, 1, np.unique(offsets) + first))

        return step

    return graph.add((issue,), needs, make)


def acc(graph: Graph, issue: Issue) -> int:
    """Products into accumulators; the slots of one adding instruction differ."""
    fetch, needs = graph.operand(issue, PRODUCT)
    mode, slots, unit = issue.arg("mode"), issue.steps, issue.unit
    depth = graph.spec.accumulator_depth
    if slots.min() < 0 or slots.max() >= depth:
        wrong = slots[(slots < 0) | (slots >= depth)]
        raise issue.hazard(AddressError, f"accumulator {int(wrong[0])} of {depth}")
    if len(np.unique(slots)) < len(slots) and mode:
        raise issue.hazard(Misaligned, "an adding ACC names one accumulator twice")
    where, function, dtype = as_slice(slots), issue.op.function, NUMPY_TYPES[made_by(issue)]
    emits = issue.arg("out") != NO_STREAM

    def make(number: int) -> Step:
        def step(state: State) -> None:
            held = state.accumulators[unit].view(dtype)
            value = function(held, mode, where, fetch(state.values))
            if emits:
                state.values[number] = value

        return step

    job = Sums(unit, mode, slots, fetch, made_by(issue), emits)
    return graph.add((issue,), needs, make, job)


def abc(graph: Graph, issue: Issue, tiles: Tiles) -> int:
    """Products of an ABC: one matrix product for all its tiles and activations where it can be."""
    feeds, format = graph.feeds[issue.id, issue.op.index("a")], tiles.format
    narrow, powered = issue.lanes < graph.spec.lanes, issue.lanes
    count = tiles.loads.shape[0]
    shared = None if narrow else _shared_rows(graph, feeds, tiles)
    read = graph.typed_read(feeds, format, shared) if shared is not None else None
    if read is not None:
        fetch: Fetch = Take(read)
        needs = {read}
    else:
        shared = None
        fetch, needs = graph.fetch(feeds, format)
    columns = tiles.first_column[:, None] + np.arange(word_columns(format))
    columns = columns.ravel()
    place = as_slice(columns)
    joined = shared is not None or count == 1
    source = None if narrow else _columns_in_sram(graph, tiles)
    if source is None:
        matrices, more = _streamed_matrices(graph, tiles, joined, powered)
    else:
        matrices, more = _resting_matrices(graph, *source, joined)
    shape, dtype = (len(issue.cycles), graph.spec.lanes), NUMPY_TYPES[made_by(issue)]
    groups = [np.flatnonzero(tiles.tile == t) for t in range(count)]

    def make(number: int) -> Step:
        def step(state: State) -> None:
            x = fetch(state.values)[:, :powered]
            product = np.zeros(shape, dtype)
            weights = matrices(state)
            if shared is not None:
                dots = weights[0].dot(x).reshape(len(x), count, -1).swapaxes(0, 1)
                product.reshape(count, len(x), -1)[:, :, place] = dots
            elif count == 1:
                product[:, place] = weights[0].dot(x)
            else:
                for rows, weight in zip(groups, weights, strict=True):
                    product[rows[:, None], columns] = weight.dot(x[rows])
            state.values[number] = product

        return step

    job = None
    if source is not None:
        kept, rows = next(iter(more), None), shared or len(issue.cycles)
        first = tiles.first_column
        job = Products(fetch, rows, source[1], first, tiles.tile, kept, made_by(issue))
    return graph.add((issue,), needs | more, make, job)


def _shared_rows(graph: Graph, feeds: list[Any], tiles: Tiles) -> int | None:
    """Number of activations, if every tile meets the same ones, read from SRAM, in equal order."""
    count, total = tiles.loads.shape[0], len(tiles.tile)
    rows = total // count
    if count == 1 or not np.array_equal(tiles.tile, np.repeat(np.arange(count), rows)):
        return None
    members = graph.read_members(feeds)
    if members is None:
        return None
    words = members[0].steps[feeds[0].iterations].reshape(count, rows)
    return rows if bool((words == words[0]).all()) else None


def _resting_matrices(
    graph: Graph, members: list[Issue], columns: Columns, joined: bool
) -> tuple[Callable[[State], list[Tile]], set[int]]:
    """The weight blocks [columns, lanes] of an ABC's tiles; one block for all if `joined`.

    Blocks that rest in constant regions are gathered once per chip and kept.
    """
    index, words, format, local = columns.index, columns.words, columns.format, columns.local
    blocks = [words.ravel()] if joined else list(words)
    prepare = PREPARE[format]
    graph.together.append(tuple(m.id for m in members))
    if graph.is_constant(members[0], index, words, WEIGHT_SLICES):
        keys = [(format, index, block.tobytes()) for block in blocks]

        def constant(state: State) -> list[Tile]:
            shift = state.shift[local]

            def tile(words: Ints) -> Tile:
                return prepare(gather_columns(state, index, words, format))

            return [
                state.sram.kept(
                    (*key, shift), index, WEIGHT_SLICES, block + shift, partial(tile, block + shift)
                )
                for key, block in zip(keys, blocks, strict=True)
            ]

        return constant, set()

    def make(number: int) -> Step:
        def step(state: State) -> None:
            where = words.ravel() + state.shift[local]
            state.values[number] = gather_columns(state, index, where, format)

        return step

    node = graph.add(tuple(members), set(), make, columns)

    def resident(state: State) -> list[Tile]:
        return [prepare(part) for part in np.split(state.values[node], len(blocks))]

    return resident, {node}


def gather_columns(state: State, index: int, words: Ints, format: str) -> Array:
    """Columns [8 or 16 * words, lanes] at rest in layout "columns" from slice `index` on."""
    where = as_slice(words)
    groups = [
        state.sram.group(index + first)[where].view(NUMPY_TYPES[format])
        for first in range(0, WEIGHT_SLICES, GROUP)
    ]
    stacked = np.stack(groups, axis=1)  # [words, groups, lanes, columns of a group]
    return stacked.swapaxes(2, 3).reshape(len(words) * word_columns(format), -1)


def _columns_in_sram(graph: Graph, tiles: Tiles) -> tuple[list[Issue], Columns] | None:
    """The reads and the columns if the tiles come straight from 16 slices."""
    members: dict[int, Issue] = {}
    words = np.empty(tiles.loads.shape[:2], np.int64)
    index = -1
    for owner in np.unique(tiles.loads[:, :, 0]):
        reads = graph.read_members(graph.feeds[int(owner), LOADED])
        if reads is None or reads[0].unit % GROUP or index not in (-1, reads[0].unit):
            return None
        index = reads[0].unit
        if any(r.unit != index + number for number, r in enumerate(reads)):
            return None
        mine = tiles.loads[:, :, 0] == owner
        feed = graph.feeds[int(owner), LOADED][0]
        words[mine] = reads[0].steps[feed.iterations[tiles.loads[:, :, 1][mine]]]
        members.update({r.id: r for r in reads})
    first = next(iter(members))
    return list(members.values()), Columns(index, words, tiles.format, first)


def _streamed_matrices(
    graph: Graph, tiles: Tiles, joined: bool, powered: int
) -> tuple[Callable[[State], list[Tile]], set[int]]:
    """Weights that come from elsewhere than one 16-slice group: assembled byte by byte."""
    needs: set[int] = set()
    parts: list[tuple[Any, Ints, Fetch]] = []
    for owner in np.unique(tiles.loads[:, :, 0]):
        fetch, more = graph.fetch(graph.feeds[int(owner), LOADED], "w16")
        mine = tiles.loads[:, :, 0] == owner
        parts.append((mine, tiles.loads[:, :, 1][mine], fetch))
        needs |= more
    shape = (*tiles.loads.shape[:2], graph.spec.lanes, word_columns(tiles.format))
    dtype, prepare = NUMPY_TYPES[tiles.format], PREPARE[tiles.format]

    def assemble(state: State) -> list[Tile]:
        loads = np.empty(shape, dtype)
        for mine, iterations, fetch in parts:
            loads[mine] = fetch(state.values)[iterations].view(dtype)
        columns = loads.swapaxes(2, 3).reshape(shape[0], -1, shape[2])[:, :, :powered]
        blocks = [columns.reshape(-1, powered)] if joined else list(columns)
        return [prepare(block) for block in blocks]

    return assemble, needs


def _operands(graph: Graph, issue: Issue) -> tuple[list[Fetch], set[int]]:
    found = [graph.operand(issue, index) for index in issue.op.sources]
    return [fetch for fetch, _ in found], set().union(*(needs for _, needs in found))


def _set(state: State, number: int, value: Array) -> None:
    state.values[number] = value


def builders(tiles: dict[int, Tiles]) -> Builders:
    """The step builder of each queue family whose instructions have a step of their own."""
    whole: dict[str, Build] = {
        "vxm": vxm,
        "sxm": lambda graph, issue: (sxm if issue.op.name in MAPPED else lanes)(graph, issue),
        "mem.r": gather,
        "mem.w": lambda graph, issue: (write if issue.op.name == "mem.write" else scatter)(
            graph, issue
        ),
        "mxm.acc": acc,
        "mxm.abc": lambda graph, issue: abc(graph, issue, tiles[issue.id]),
        "c2c.s": send,
        "c2c.r": receive,
    }
    return narrowed(whole)
