"""Writes of the byte planes of one value, joined to one step: typed writes and column scatters."""

from typing import Any

import numpy as np

from chip.isa import NUMPY_TYPES, WIDTHS
from chip.isa.mem import check_indirect
from chip.linker.fetch import as_slice
from chip.linker.graph import Graph, State, Step, moved
from chip.linker.jobs import Append, Store
from chip.linker.timeline import Ints, Issue
from chip.program import COLUMN_PAIRS
from chip.sram import GROUP


def scatter_groups(graph: Graph) -> None:
    """Join scatters of fp16 rows into the eight slice pairs of a group of columns to one step."""
    groups: dict[Any, list[Issue]] = {}
    for issue in graph.issues:
        if issue.op.name == "mem.scatter" and issue.lanes == graph.spec.lanes:
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
            state.scattered.append((first, len(members), words))

        return step

    locals_ = (local, map_local, data_local)
    job = Append(first, base, count, map_slice, map_words, data_slice, data_words, locals_)
    node = graph.add((*members, *reads), set(), make, job)
    by_slice = [[r.id for r in reads if r.unit // 2 == s // 2] for s in (map_slice, data_slice)]
    graph.together += [tuple(ids) for ids in ([m.id for m in members], *by_slice)]
    for member in members:
        graph.node_of[member.id] = node


def write_groups(graph: Graph) -> None:
    """Join the writes of an element's byte planes into neighbouring slices to typed writes."""
    groups: dict[Any, list[Issue]] = {}
    for issue in graph.issues:
        if issue.op.name != "mem.write" or issue.lanes < graph.spec.lanes:
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
            state.sram.store(index, moved(where, state.shift[local]), values)

        return step

    job = Store(index, members[0].steps, fetch, element, local)
    node = graph.add(tuple(members), needs, make, job)
    graph.together.append(tuple(m.id for m in members))
    for member in members:
        graph.node_of[member.id] = node
