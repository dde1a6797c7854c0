"""How each unit's instruction becomes a step: the operands fetched, the op's function applied."""

from collections.abc import Callable
from typing import Any

import numpy as np

from chip.errors import AddressError, Misaligned
from chip.isa import NO_STREAM, NUMPY_TYPES, WIDTHS
from chip.isa.mem import check_indirect
from chip.isa.sxm import ZERO
from chip.linker.graph import Array, Builders, Fetch, Graph, State, Step, as_slice, moved
from chip.linker.streams import PRODUCT
from chip.linker.timeline import Ints, Issue
from chip.linker.weights import Tiles
from chip.numerics import Weights16
from chip.program import COLUMN_PAIRS
from chip.sram import GROUP


def vxm(graph: Graph, issue: Issue) -> int:
    """Point-wise function of one or two operands."""
    fetches, needs = _operands(graph, issue)
    function = issue.op.function
    if len(fetches) == 1:
        (a,) = fetches
        return graph.add((issue,), needs, lambda k: lambda s: _set(s, k, function(a(s.values))))
    a, b = fetches
    return graph.add(
        (issue,), needs, lambda k: lambda s: _set(s, k, function(a(s.values), b(s.values)))
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
    return graph.add((issue,), needs, lambda k: lambda s: _set(s, k, function(lanes, a(s.values))))


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
            state.sent[state.first + issue.id] = np.ascontiguousarray(a(state.values))

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

    return graph.add((issue,), needs, make)


def scatter(graph: Graph, issue: Issue) -> int:
    """A write whose addresses are data; checked against its region when they are known."""
    (lanes, a), needs = _operands(graph, issue)
    base, count, local = issue.arg("base"), issue.arg("words"), issue.id
    function, unit = issue.op.function, issue.unit

    def make(number: int) -> Step:
        def step(state: State) -> None:
            first, offsets = base + state.shift[local], lanes(state.values)
            function(state.sram, unit, first, count, offsets, a(state.values))
            state.scattered.append((unit, np.unique(offsets) + first))

        return step

    return graph.add((issue,), needs, make)


def scatter_groups(graph: Graph) -> None:
    """Join scatters of fp16 rows into the eight slice pairs of a group of columns to one step."""
    groups: dict[Any, list[Issue]] = {}
    for issue in graph.issues:
        if issue.op.name == "mem.scatter":
            key = (issue.arg("base"), issue.arg("words"), issue.instruction.loops)
            groups.setdefault(key, []).append(issue)
    for members in groups.values():
        members.sort(key=lambda m: m.unit)
        while len(members) >= 2 * COLUMN_PAIRS:
            part, members = members[: 2 * COLUMN_PAIRS], members[2 * COLUMN_PAIRS :]
            first = part[0].unit
            if first % GROUP == 0 and [m.unit - first for m in part] == [*range(len(part))]:
                _column_scatter(graph, part)


def _column_scatter(graph: Graph, members: list[Issue]) -> None:
    reads: list[Issue] = []
    places: list[tuple[int, Ints, int, Ints]] = []
    for low, high in zip(members[::2], members[1::2], strict=True):
        maps = [graph.read_members(graph.feeds[m.id, 2]) for m in (low, high)]
        data = graph.read_members([graph.feeds[m.id, 3][0] for m in (low, high)])
        if maps[0] is None or data is None or maps[0] != maps[1]:
            return
        for pair in (maps[0], data):
            if pair[0].unit % 2 or pair[1].unit != pair[0].unit + 1:
                return
            reads += pair
        words = [
            pair[0].steps[graph.feeds[low.id, operand][0].iterations]
            for pair, operand in ((maps[0], 2), (data, 3))
        ]
        places.append((maps[0][0].unit, words[0], data[0].unit, words[1]))
    if len({(m, d) for m, _, d, _ in places}) != 1:
        return
    _add_column_scatter(graph, members, reads, places)


def _add_column_scatter(
    graph: Graph,
    members: list[Issue],
    reads: list[Issue],
    places: list[tuple[int, Ints, int, Ints]],
) -> None:
    map_slice, data_slice = places[0][0], places[0][2]
    map_words, data_words = (np.stack([place[n] for place in places]) for n in (1, 3))
    first, base, count = members[0].unit, members[0].arg("base"), members[0].arg("words")
    local, map_local, data_local = members[0].id, reads[0].id, reads[2].id
    tile = graph.spec.superlane_lanes

    def make(number: int) -> Step:
        def step(state: State) -> None:
            sram, shift = state.sram, state.shift
            maps = sram.typed(map_slice, NUMPY_TYPES["u16"])[map_words + shift[map_local]]
            data = sram.typed(data_slice, NUMPY_TYPES["f16"])[data_words + shift[data_local]]
            offsets = maps[:, :, ::tile].astype(np.int64)
            check_indirect(first, base, count, offsets)
            sram.scatter_columns(first, offsets + (base + shift[local]), data)
            words = np.unique(offsets) + (base + shift[local])
            state.scattered += [(member, words) for member in range(first, first + len(members))]

        return step

    node = graph.add((*members, *reads), set(), make)
    by_slice = [[r.id for r in reads if r.unit // 2 == s // 2] for s in (map_slice, data_slice)]
    graph.together += [tuple(ids) for ids in ([m.id for m in members], *by_slice)]
    for member in members:
        graph.node_of[member.id] = node


def write_groups(graph: Graph) -> None:
    """Join the writes of an element's byte planes into neighbouring slices to typed writes."""
    groups: dict[Any, list[Issue]] = {}
    for issue in graph.issues:
        if issue.op.name != "mem.write":
            continue
        (feed,) = graph.feeds[issue.id, 1]
        producer, byte = feed.single(), int(feed.byte[0])
        if producer is not None:
            iterations = feed.iterations.tobytes()
            key = (producer, issue.unit - byte, issue.instruction.args[0], iterations)
            groups.setdefault((*key, issue.instruction.loops), []).append(issue)
    for (producer, first, *_), members in groups.items():
        source = graph.issues[producer]
        index = source.op.driven
        assert index is not None
        element = source.op.element(index, source.instruction.args)
        width = WIDTHS[element]
        units = sorted(m.unit for m in members)
        if 1 < width <= GROUP and first % width == 0 and units == [*range(first, first + width)]:
            _typed_write(graph, sorted(members, key=lambda m: m.unit), element)


def _typed_write(graph: Graph, members: list[Issue], element: str) -> None:
    feeds = [graph.feeds[m.id, 1][0] for m in members]
    if [int(f.byte[0]) for f in feeds] != [*range(len(feeds))]:
        return
    fetch, needs = graph.fetch(feeds, element)
    index, where, local = members[0].unit, as_slice(members[0].steps), members[0].id

    def make(number: int) -> Step:
        def step(state: State) -> None:
            values = fetch(state.values)
            state.sram.typed(index, values.dtype)[moved(where, state.shift[local])] = values

        return step

    node = graph.add(tuple(members), needs, make)
    graph.together.append(tuple(m.id for m in members))
    for member in members:
        graph.node_of[member.id] = node


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
    where, function = as_slice(slots), issue.op.function
    emits = issue.arg("out") != NO_STREAM

    def make(number: int) -> Step:
        def step(state: State) -> None:
            value = function(state.accumulators[unit], mode, where, fetch(state.values))
            if emits:
                state.values[number] = value

        return step

    return graph.add((issue,), needs, make)


def abc(graph: Graph, issue: Issue, tiles: Tiles) -> int:
    """Products of an ABC: one matrix product for all its tiles and activations where it can be."""
    operand = issue.op.index("a")
    feeds = graph.feeds[issue.id, operand]
    count = tiles.loads.shape[0]
    shared = _shared_rows(graph, feeds, tiles)
    read = graph.typed_read(feeds, "f16", shared) if shared is not None else None
    if read is not None:
        fetch, needs = _whole(read), {read}
    else:
        shared = None
        fetch, needs = graph.fetch(feeds, "f16")
    columns = tiles.first_column[:, None] + np.arange(COLUMN_PAIRS)
    columns = columns.ravel()
    place = as_slice(columns)
    matrices, more = _tile_matrices(graph, tiles, shared is not None or count == 1)
    shape = (len(issue.cycles), graph.spec.lanes)
    groups = [np.flatnonzero(tiles.tile == t) for t in range(count)]

    def make(number: int) -> Step:
        def step(state: State) -> None:
            x = fetch(state.values)
            product = np.zeros(shape, np.float32)
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

    return graph.add((issue,), needs | more, make)


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


def _tile_matrices(
    graph: Graph, tiles: Tiles, joined: bool
) -> tuple[Callable[[State], list[Weights16]], set[int]]:
    """The weight blocks [columns, lanes] of an ABC's tiles; one block for all if `joined`.

    Blocks that rest in constant regions are gathered once per chip and kept.
    """
    gathered = _columns_in_sram(graph, tiles)
    if gathered is None:
        return _streamed_matrices(graph, tiles, joined)
    members, index, words = gathered
    blocks = [words.ravel()] if joined else list(words)
    local = members[0].id
    graph.together.append(tuple(m.id for m in members))
    if graph.is_constant(members[0], index, words, 2 * COLUMN_PAIRS):
        keys = [(index, block.tobytes()) for block in blocks]

        def constant(state: State) -> list[Weights16]:
            found, shift = [], state.shift[local]
            for key, block in zip(keys, blocks, strict=True):
                place = (*key, shift)
                if place not in state.weights:
                    state.weights[place] = Weights16(gather_columns(state, index, block + shift))
                found.append(state.weights[place])
            return found

        return constant, set()

    def make(number: int) -> Step:
        def step(state: State) -> None:
            where = words.ravel() + state.shift[local]
            state.values[number] = gather_columns(state, index, where)

        return step

    node = graph.add(tuple(members), set(), make)

    def resident(state: State) -> list[Weights16]:
        return [Weights16(part) for part in np.split(state.values[node], len(blocks))]

    return resident, {node}


def gather_columns(state: State, index: int, words: Ints) -> Array:
    """fp16 columns [8 * words, lanes] at rest in layout "columns" from slice `index` on."""
    where = as_slice(words)
    groups = [
        state.sram.group(index + first)[where].view(np.float16)
        for first in range(0, 2 * COLUMN_PAIRS, GROUP)
    ]
    stacked = np.stack(groups, axis=1)  # [words, groups, lanes, pairs of a group]
    return stacked.swapaxes(2, 3).reshape(len(words) * COLUMN_PAIRS, -1)


def _columns_in_sram(graph: Graph, tiles: Tiles) -> tuple[list[Issue], int, Ints] | None:
    """(reads, first slice, words [tiles, loads]) if the tiles come straight from 16 slices."""
    members: dict[int, Issue] = {}
    words = np.empty(tiles.loads.shape[:2], np.int64)
    index = -1
    for owner in np.unique(tiles.loads[:, :, 0]):
        reads = graph.read_members(graph.feeds[int(owner), 1])
        if reads is None or reads[0].unit % GROUP or index not in (-1, reads[0].unit):
            return None
        index = reads[0].unit
        if any(r.unit != index + number for number, r in enumerate(reads)):
            return None
        mine = tiles.loads[:, :, 0] == owner
        feed = graph.feeds[int(owner), 1][0]
        words[mine] = reads[0].steps[feed.iterations[tiles.loads[:, :, 1][mine]]]
        members.update({r.id: r for r in reads})
    return list(members.values()), index, words


def _streamed_matrices(
    graph: Graph, tiles: Tiles, joined: bool
) -> tuple[Callable[[State], list[Weights16]], set[int]]:
    """Weights that come from elsewhere than one 16-slice group: assembled byte by byte."""
    needs: set[int] = set()
    parts: list[tuple[Any, Ints, Fetch]] = []
    for owner in np.unique(tiles.loads[:, :, 0]):
        fetch, more = graph.fetch(graph.feeds[int(owner), 1], "w16")
        mine = tiles.loads[:, :, 0] == owner
        parts.append((mine, tiles.loads[:, :, 1][mine], fetch))
        needs |= more
    shape = (*tiles.loads.shape[:2], graph.spec.lanes, COLUMN_PAIRS)

    def assemble(state: State) -> list[Weights16]:
        loads = np.empty(shape, np.float16)
        for mine, iterations, fetch in parts:
            loads[mine] = fetch(state.values)[iterations].view(np.float16)
        columns = loads.swapaxes(2, 3).reshape(shape[0], -1, shape[2])
        blocks = [columns.reshape(-1, shape[2])] if joined else list(columns)
        return [Weights16(block) for block in blocks]

    return assemble, needs


def _operands(graph: Graph, issue: Issue) -> tuple[list[Fetch], set[int]]:
    found = [graph.operand(issue, index) for index in issue.op.sources]
    return [fetch for fetch, _ in found], set().union(*(needs for _, needs in found))


def _whole(node: int) -> Fetch:
    return lambda values: values[node]


def _set(state: State, number: int, value: Array) -> None:
    state.values[number] = value


def builders(tiles: dict[int, Tiles]) -> Builders:
    """The step builder of each queue family whose instructions have a step of their own."""
    return {
        "vxm": vxm,
        "sxm": sxm,
        "mem.r": gather,
        "mem.w": lambda graph, issue: (write if issue.op.name == "mem.write" else scatter)(
            graph, issue
        ),
        "mxm.acc": acc,
        "mxm.abc": lambda graph, issue: abc(graph, issue, tiles[issue.id]),
        "c2c.s": send,
        "c2c.r": receive,
    }
