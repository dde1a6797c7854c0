"""Accesses of many slices as one node: typed writes, appended rows, gathered columns."""

import numpy as np

from chip.isa import FORMATS, WIDTHS
from chip.linker.graph import Graph
from chip.linker.node_ops import Append, GatheredColumns, Store
from chip.linker.streams import Feed
from chip.linker.timeline import Issue
from chip.program import COLUMN_PAIRS, WEIGHT_SLICES, Ints
from chip.sram import GROUP


def gathered_columns(graph: Graph) -> None:
    """Join gathers from four quads of slices that feed the MXM, by one map and in order."""
    loads: dict[int, bool] = {}  # each LW behind products, and whether all of these fit
    for tiles in graph.tiles.values():
        owners = np.unique(tiles.loads[:, :, 0]).tolist()
        order = np.arange(tiles.loads[:, :, 1].size)
        fits = len(owners) == 1 and np.array_equal(tiles.loads[:, :, 1].ravel(), order)
        for owner in owners:
            loads[owner] = loads.get(owner, True) and fits
    for owner, fits in loads.items():
        if fits:
            _gather_columns(graph, graph.issues[owner])


def _gather_columns(graph: Graph, load: Issue) -> None:
    feeds = graph.feeds[load.id, load.op.index("a")]
    producers = [feed.single() for feed in feeds]
    members = [graph.issues[producer] for producer in producers if producer is not None]
    if len(members) < WEIGHT_SLICES or any(member.op.role != "gather" for member in members):
        return
    first, rows = members[0], load.instruction.count
    same = [member.instruction.loops == first.instruction.loops for member in members]
    same += [member.arg("words") == first.arg("words") for member in members]
    quads = [members[n : n + GROUP] for n in range(0, len(members), GROUP)]
    for quad in quads:
        same += [member.arg("base") == quad[0].arg("base") for member in quad]
        same += [member.unit == quad[0].unit + number for number, member in enumerate(quad)]
        same.append(quad[0].unit % GROUP == 0)
    same += [np.array_equal(feed.iterations, np.arange(rows)) for feed in feeds]
    same += [member.lanes == graph.spec.lanes for member in members]
    maps = [graph.feeds[member.id, member.op.index("map")] for member in members]
    same += [_is_same(one, maps[0]) for one in maps]
    if not all(same) or rows != first.instruction.count:
        return
    source, needs = graph.operand(first, first.op.index("map"))
    base, format = first.arg("base"), FORMATS[load.arg("format")]
    places = tuple((quad[0].unit, quad[0].arg("base") - base) for quad in quads)
    region = places, base, first.arg("words")
    op = GatheredColumns(first.op, *region, source, rows, format, first.id)
    node = graph.add(members, needs, op)
    graph.together.append(tuple(member.id for member in members))
    for member in members:
        graph.node_of[member.id] = node


def _is_same(feeds: list[Feed], others: list[Feed]) -> bool:
    """Whether two operands are the same iterations of the same producers."""
    return all(one.is_in_step(other) for one, other in zip(feeds, others, strict=True))


def append_rows(graph: Graph) -> None:
    """Join scatters of fp16 rows into the eight slice pairs of a group of columns as one node."""
    groups: dict[tuple[object, ...], list[Issue]] = {}
    for issue in graph.issues:
        if issue.op.role == "scatter" and issue.lanes == graph.spec.lanes:
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
    locals_ = (members[0].id, reads[0].id, reads[2].id)
    op = Append(first, base, count, map_slice, map_words, data_slice, data_words, locals_)
    node = graph.add((*members, *reads), set(), op)
    by_slice = [[r.id for r in reads if r.unit // 2 == s // 2] for s in (map_slice, data_slice)]
    graph.together += [tuple(ids) for ids in ([m.id for m in members], *by_slice)]
    for member in members:
        graph.node_of[member.id] = node


def typed_writes(graph: Graph) -> None:
    """Join the writes of an element's byte planes into neighbouring slices to typed writes."""
    groups: dict[tuple[int, int, int, bytes, object], list[Issue]] = {}
    for issue in graph.issues:
        if issue.op.role != "write" or issue.lanes < graph.spec.lanes:
            continue
        (feed,) = graph.feeds[issue.id, 1]
        producer, byte = feed.single(), int(feed.byte[0])
        if producer is not None:
            first, loops = issue.unit - byte, issue.instruction.loops
            key = (producer, first, issue.instruction.args[0], feed.pattern, loops)
            groups.setdefault(key, []).append(issue)
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
    first, lanes = members[0], graph.spec.lanes
    op = Store(first.unit, first.steps, fetch, element, first.id, lanes)
    node = graph.add(members, needs, op)
    graph.together.append(tuple(m.id for m in members))
    for member in members:
        graph.node_of[member.id] = node
