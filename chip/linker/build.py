"""How the instructions of each unit become nodes."""

from collections.abc import Callable

import numpy as np

from chip.errors import AddressError, LanesOff, Misaligned
from chip.isa import NO_STREAM, STACKS, lookup
from chip.isa.sxm import ZERO
from chip.linker.fetch import Fetch, Ints, Take
from chip.linker.graph import Graph, made_by
from chip.linker.node_ops import (
    Accumulate,
    CheckFetch,
    Columns,
    Gather,
    GatheredColumns,
    MoveLanes,
    Pointwise,
    Products,
    Receive,
    Resting,
    Scatter,
    Send,
    Store,
    Streamed,
)
from chip.linker.streams import PRODUCT, Feed
from chip.linker.timeline import Issue
from chip.linker.weights import Tiles
from chip.sram import GROUP, Places

LOADED = lookup("mxm.lw").index("a")


def _operands(graph: Graph, issue: Issue) -> tuple[list[Fetch], set[int]]:
    found = [graph.operand(issue, index) for index in issue.op.sources]
    return [fetch for fetch, _ in found], set().union(*(needs for _, needs in found))


def pointwise(graph: Graph, issue: Issue) -> int:
    """A function of one, two or three operands."""
    fetches, needs = _operands(graph, issue)
    element = issue.op.element(issue.op.sources[-1], issue.instruction.args)
    rows, made = issue.instruction.count, made_by(issue)
    return graph.add((issue,), needs, Pointwise(issue.op, tuple(fetches), element, made, rows))


def fetch(graph: Graph, issue: Issue) -> int:
    """An Ifetch, which takes all lanes."""
    (source,), needs = _operands(graph, issue)
    if issue.lanes < graph.spec.lanes:
        raise issue.hazard(LanesOff, f"an Ifetch takes all {graph.spec.lanes} lanes")
    image = np.frombuffer(issue.image, np.uint8).reshape(-1, graph.spec.lanes)
    return graph.add((issue,), needs, CheckFetch(issue.op, source, image))


# --- SXM ------------------------------------------------------------------------------------
def move_lanes(graph: Graph, issue: Issue) -> int:
    """Lanes move inside the powered ones; a map over all lanes must keep them together."""
    fetches, needs = _operands(graph, issue)
    powered, whole = issue.lanes, graph.spec.lanes
    constants: list[int | Ints] = []
    for operand, value in zip(issue.op.operands, issue.instruction.args, strict=True):
        if operand.kind == "int":
            if value > whole:
                raise issue.hazard(Misaligned, f"shifts by {value} of {whole} lanes")
            constants.append(min(value, powered))
        elif operand.kind == "map":
            _check_map(graph, issue, value)
            table = graph.maps[value]
            constants.append(table[:powered] if len(table) == whole else table)
    made, lanes = made_by(issue), None
    if len(fetches) == 1 and powered == whole and made not in STACKS:
        numbers = np.arange(1, whole + 1)[None]  # the definition says where each lane goes
        lanes = issue.op.function(*constants, numbers)[0] - 1
    rows = issue.instruction.count
    op = MoveLanes(issue.op, tuple(constants), tuple(fetches), made, rows, powered, lanes)
    return graph.add((issue,), needs, op)


def _check_map(graph: Graph, issue: Issue, number: int) -> None:
    table, kind = graph.maps[number], issue.op.map_kind
    size = graph.spec.superlane_lanes if kind == "superlane" else graph.spec.lanes
    if len(table) != size and kind != "choice":
        raise issue.hazard(Misaligned, f"map {number} has {len(table)} lanes, not {size}")
    if kind == "choice":
        legal = len(table) == size and bool(np.isin(table, (0, 1)).all())
    elif kind == "permutation":
        legal = np.array_equal(np.sort(table), np.arange(size))
    else:
        legal = bool(((table >= 0) & (table < size) | (table == ZERO)).all())
    if not legal:
        raise issue.hazard(Misaligned, f"map {number} is none of a {issue.op.name}")
    if kind == "permutation" and (table[: issue.lanes] >= issue.lanes).any():
        detail = f"the map takes some of the {issue.lanes} lanes from beyond them"
        raise issue.hazard(LanesOff, detail)


# --- links ----------------------------------------------------------------------------------
def receive(graph: Graph, issue: Issue) -> int:
    """Packets off the link."""
    return graph.add((issue,), set(), Receive(issue.id))


def send(graph: Graph, issue: Issue) -> int:
    """Packets for the link."""
    (source,), needs = _operands(graph, issue)
    return graph.add((issue,), needs, Send(source, issue.id, issue.lanes))


# --- SRAM -----------------------------------------------------------------------------------
def gather(graph: Graph, issue: Issue) -> int:
    """A read whose addresses are data; checked against its region when they are known."""
    (lanes,), needs = _operands(graph, issue)
    base, count = issue.arg("base"), issue.arg("words")
    op = Gather(issue.op, issue.unit, base, count, lanes, issue.id, issue.lanes)
    return graph.add((issue,), needs, op)


def write(graph: Graph, issue: Issue) -> int:
    """One byte plane to one slice; `typed_writes` has taken those that make whole elements."""
    (a,), needs = _operands(graph, issue)
    op = Store(issue.unit, issue.steps, a, "u8", issue.id, issue.lanes)
    return graph.add((issue,), needs, op)


def scatter(graph: Graph, issue: Issue) -> int:
    """A write whose addresses are data; checked against its region when they are known."""
    (lanes, a), needs = _operands(graph, issue)
    base, count = issue.arg("base"), issue.arg("words")
    op = Scatter(issue.op, issue.unit, base, count, lanes, a, issue.id, issue.lanes)
    return graph.add((issue,), needs, op)


# --- MXM ------------------------------------------------------------------------------------
def accumulate(graph: Graph, issue: Issue) -> int:
    """Products into accumulators; the slots of one adding instruction differ."""
    source, needs = graph.operand(issue, PRODUCT)
    mode, slots, depth = issue.arg("mode"), issue.steps, graph.spec.accumulator_depth
    if slots.min() < 0 or slots.max() >= depth:
        wrong = slots[(slots < 0) | (slots >= depth)]
        raise issue.hazard(AddressError, f"accumulator {int(wrong[0])} of {depth}")
    if len(np.unique(slots)) < len(slots) and mode:
        raise issue.hazard(Misaligned, "an adding ACC names one accumulator twice")
    emits, made = issue.arg("out") != NO_STREAM, made_by(issue)
    op = Accumulate(issue.op, issue.unit, mode, slots, source, made, emits, issue.lanes)
    return graph.add((issue,), needs, op)


def products(graph: Graph, issue: Issue) -> int:
    """Activations through all tiles that they meet."""
    tiles = graph.tiles[issue.id]
    feeds, rows = graph.feeds[issue.id, issue.op.index("a")], len(issue.cycles)
    is_narrow = issue.lanes < graph.spec.lanes
    shared = None if is_narrow else _shared_rows(graph, feeds, tiles)
    read = graph.typed_read(feeds, tiles.format, shared) if shared is not None else None
    if read is not None and shared is not None:
        source: Fetch = Take(read)
        needs, rows = {read}, shared
    else:
        source, needs = graph.fetch(feeds, tiles.format)
    found = None if is_narrow else _columns_in_sram(graph, tiles)
    weights: Resting | Streamed
    gathered = None if is_narrow or found else _gathered_columns(graph, tiles)
    if gathered is not None:
        node, columns = gathered
        weights = Resting(columns, node)
        needs |= {node}
    elif found is None:
        weights, more = _streamed(graph, tiles)
        needs |= more
    else:
        members, columns = found
        graph.together.append(tuple(member.id for member in members))
        reader = None if columns.is_constant else graph.add(members, set(), columns)
        weights = Resting(columns, reader)
        needs |= set() if reader is None else {reader}
    made, first = made_by(issue), tiles.first_column
    op = Products(source, rows, weights, first, tiles.tile, made, issue.lanes)
    return graph.add((issue,), needs, op)


def _shared_rows(graph: Graph, feeds: list[Feed], tiles: Tiles) -> int | None:
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


def _columns_in_sram(graph: Graph, tiles: Tiles) -> tuple[list[Issue], Columns] | None:
    """The reads and the columns if the tiles come straight from four quads of slices."""
    members: dict[int, Issue] = {}
    words = np.empty(tiles.loads.shape[:2], np.int64)
    places: Places = ()
    for owner in np.unique(tiles.loads[:, :, 0]):
        feeds = graph.feeds[int(owner), LOADED]
        reads = [graph.read_members(feeds[n : n + GROUP]) for n in range(0, len(feeds), GROUP)]
        quads = [quad for quad in reads if quad is not None and _is_quad(quad)]
        if len(quads) < len(reads):
            return None
        steps = [quad[0].steps[feeds[n * GROUP].iterations] for n, quad in enumerate(quads)]
        further = [int(own[0] - steps[0][0]) for own in steps]
        if any((own - steps[0] != by).any() for own, by in zip(steps, further, strict=True)):
            return None
        there = tuple((quad[0].unit, by) for quad, by in zip(quads, further, strict=True))
        if places not in ((), there):
            return None
        places, mine = there, tiles.loads[:, :, 0] == owner
        words[mine] = steps[0][tiles.loads[:, :, 1][mine]]
        members.update({read.id: read for quad in quads for read in quad})
    found, each = list(members.values()), list(members.values())[: GROUP * len(places) : GROUP]
    rests = [graph.is_constant(read, index, words + by, GROUP)
             for read, (index, by) in zip(each, places, strict=True)]  # fmt: skip
    constant = all(rests)
    columns = Columns(places, words, tiles.format, found[0].id, constant)
    return (found, columns) if constant or columns.neighbours else None


def _is_quad(reads: list[Issue]) -> bool:
    first = reads[0].unit
    return first % GROUP == 0 and [read.unit for read in reads] == [*range(first, first + GROUP)]


def _gathered_columns(graph: Graph, tiles: Tiles) -> tuple[int, Columns] | None:
    """The node that has gathered all tiles, and how they lie in its value."""
    owner = int(tiles.loads[0, 0, 0])
    node = graph.node_of.get(int(graph.feeds[owner, LOADED][0].producers[0]))
    if node is None:
        return None
    op = graph.nodes[node].op
    if not isinstance(op, GatheredColumns):
        return None
    words = np.arange(op.rows).reshape(tiles.loads.shape[:2])
    return node, Columns(op.places, words, op.format, op.local, False)


def _streamed(graph: Graph, tiles: Tiles) -> tuple[Streamed, set[int]]:
    """Weights that come from elsewhere than one 16-slice group."""
    needs: set[int] = set()
    parts = []
    for owner in np.unique(tiles.loads[:, :, 0]):
        fetch, more = graph.fetch(graph.feeds[int(owner), LOADED], "w16")
        mine = tiles.loads[:, :, 0] == owner
        parts.append((mine, tiles.loads[:, :, 1][mine], fetch))
        needs |= more
    shape = (tiles.loads.shape[0], tiles.loads.shape[1])
    return Streamed(tuple(parts), shape, tiles.format), needs


_BY_ROLE: dict[str, Callable[[Graph, Issue], int]] = {
    "pointwise": pointwise,
    "lanes": move_lanes,
    "gather": gather,
    "write": write,
    "scatter": scatter,
    "products": products,
    "sums": accumulate,
    "send": send,
    "receive": receive,
    "fetch": fetch,
}


def node(graph: Graph, issue: Issue) -> int:
    """The node of an issue, made by the role of its op."""
    return _BY_ROLE[issue.op.role](graph, issue)
