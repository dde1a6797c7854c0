"""Which rows of a stretch depend on each other: what does not, threads can share.

A stage is some nodes that work row by row, with no product between them. Its rows fall into
components: the rows of a token are one, if no other token's are looked at. Components are packed
into tasks, each with its part of the rows of every node.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chip.isa import NUMPY_TYPES
from chip.linker.fetch import Cast, Fetch, Ints, Merge, Plane, Stack, Take
from chip.linker.fragment import Step
from chip.linker.node_ops import Accumulate, MoveLanes, NodeOp, Pointwise, Read, Store

MOST_TASKS = 8  # at most
LEAST_ROWS = 512  # of a task, some 15 microseconds

Task = list[tuple[int, Ints]]  # nodes in order, and which of its rows
Pairs = tuple[Ints, Ints]  # rows of one node and of another that belong together


def by_rows(op: NodeOp) -> bool:
    """Whether each row of a node's work stands alone, but for words and accumulators it shares."""
    return isinstance(op, Read | Store | Pointwise | MoveLanes | Accumulate)


def row_count(op: NodeOp) -> int:
    """The rows of such a node."""
    match op:
        case Read(words=places) | Store(words=places) | Accumulate(slots=places):
            return len(places)
        case Pointwise(rows=rows) | MoveLanes(rows=rows):
            return rows
    raise KeyError(op)


def fetches(op: NodeOp) -> Sequence[Fetch]:
    """The operands of such a node."""
    match op:
        case Pointwise(sources=sources):
            return sources
        case MoveLanes(sources=sources):
            return sources[:1]
        case Store(source=source) | Accumulate(source=source):
            return (source,)
    return ()


def taken(where: slice | Ints | None, rows: int) -> Ints:
    """The rows that a `Take` takes; `rows` are all there are where it takes all."""
    if where is None:
        return np.arange(rows)
    return np.arange(where.start, where.stop, where.step) if isinstance(where, slice) else where


def tasks(stage: Sequence[int], nodes: Sequence[Step]) -> list[list[Task]]:
    """Tasks of a stage, which threads can share; before these one with what several need."""
    counts = [row_count(nodes[node].op) for node in stage]
    whole = [(node, np.arange(count)) for node, count in zip(stage, counts, strict=True)]
    most = min(MOST_TASKS, sum(counts) // LEAST_ROWS)
    if most < 2:
        return [[whole]]
    chosen, shared = _chosen(stage, nodes, np.cumsum([0, *counts]), most)
    found: list[Task] = [[] for _ in range(most)]
    for node, rows in whole:
        if node not in shared:
            for number in np.unique(chosen[node]):
                found[number].append((node, rows[chosen[node] == number]))
    before = [(node, rows) for node, rows in whole if node in shared]
    return [*([[before]] if before else []), [task for task in found if task]]


def _chosen(
    stage: Sequence[int], nodes: Sequence[Step], bounds: Ints, most: int
) -> tuple[dict[int, Ints], set[int]]:
    """The task of each row of each node; and the nodes whose rows more than one task needs.

    These are words that are read, and were not written in this stage before: the first to be done.
    """
    place = {node: slice(*bounds[n : n + 2].tolist()) for n, node in enumerate(stage)}
    reads = {n for n in stage if isinstance(nodes[n].op, Read)}
    reads = {n for n in reads if not place.keys() & nodes[n].before}
    pairs, of_reads = list[Pairs](), list[tuple[int, Ints, Ints]]()
    for node in stage:
        first = place[node].start
        pairs += [(first + a, first + b) for a, b in _alike(nodes[node].op)]
        for need, (mine, theirs) in _edges(node, nodes, place):
            if need in reads:
                of_reads.append((need, theirs, first + mine))
            else:
                pairs.append((first + mine, place[need].start + theirs))
    labels = _components(int(bounds[-1]), pairs)
    for node in reads:
        labels[place[node]] = -1
    chosen, shared = _packed(labels, most), set()
    for node, rows, users in of_reads:
        mine = chosen[place[node]]
        unknown = mine[rows] < 0
        mine[rows[unknown]] = chosen[users[unknown]]
        if (mine[rows] != chosen[users]).any():
            shared.add(node)
    chosen = np.maximum(chosen, 0)
    return {node: chosen[where] for node, where in place.items()}, shared


def _components(count: int, pairs: Sequence[Pairs]) -> Ints:
    """Of each row the least one that belongs together with it, directly or not."""
    labels = np.arange(count)
    if not pairs:
        return labels
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    while (labels[a] != labels[b]).any():
        least = np.minimum(labels[a], labels[b])
        for side in (a, b):
            np.minimum.at(labels, labels[side], least)
        while (labels[labels] != labels).any():
            labels = labels[labels]
    return labels


def _packed(labels: Ints, most: int) -> Ints:
    """The task of each row: components one after another, as many rows in each; -1 as it was."""
    sizes = np.bincount(labels[labels >= 0], minlength=len(labels))
    middles = np.cumsum(sizes) - sizes // 2
    return np.where(labels < 0, -1, middles[labels] * most // (sizes.sum() + 1))


def _edges(node: int, nodes: Sequence[Step], stage: Iterable[int]) -> Iterator[tuple[int, Pairs]]:
    """The nodes of a stage that must run before one, and its rows beside theirs."""
    op = nodes[node].op
    for fetch in fetches(op):
        for need, mine, theirs in _rows_of(fetch, row_count(op)):
            if need in stage:
                yield need, (mine, theirs)
    for need in nodes[node].before:
        if need in stage:
            match op, nodes[need].op:
                case (Read() | Store(), Read() | Store()) as both:
                    if _share_slices(*both):
                        yield need, _same(both[0].words, both[1].words)
                case (Accumulate() as one, Accumulate() as other) if one.unit == other.unit:
                    mine, theirs = staying(one), staying(other)
                    a, b = _same(one.slots[mine], other.slots[theirs])
                    yield need, (mine[a], theirs[b])


def _rows_of(fetch: Fetch, rows: int) -> Iterator[tuple[int, Ints, Ints]]:
    """The nodes an operand of so many rows is made of: its rows, and theirs."""
    match fetch:
        case Take(node=node, where=where):
            yield node, np.arange(rows), taken(where, rows)
        case Plane(source=source) | Cast(source=source):
            yield from _rows_of(source, rows)
        case Merge(parts=parts):
            for at, part in parts:
                for node, mine, theirs in _rows_of(part, len(at)):
                    yield node, at[mine], theirs
        case Stack(planes=planes):
            for plane in planes:
                yield from _rows_of(plane, rows)


def _share_slices(a: Read | Store, b: Read | Store) -> bool:
    """Whether two accesses have slices in common."""
    ends = (one.index + NUMPY_TYPES[one.element].itemsize for one in (a, b))
    return max(a.index, b.index) < min(ends)


def _same(a: Ints, b: Ints) -> Pairs:
    """All pairs of places in a and in b that hold the same number."""
    order = np.argsort(b, kind="stable")
    low, high = (np.searchsorted(b[order], a, side=side) for side in ("left", "right"))
    counts = high - low
    mine = np.repeat(np.arange(len(a)), counts)
    return mine, order[np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts - low, counts)]


def staying(op: Accumulate) -> Ints:
    """The rows that leave something in the accumulators: of those that set one, the last."""
    if op.mode:
        return np.arange(len(op.slots))
    _, ends = np.unique(op.slots[::-1], return_index=True)
    return np.sort(len(op.slots) - 1 - ends)


def _alike(op: NodeOp) -> Iterator[Pairs]:
    """Rows of one node that write the same place, each with the first of these."""
    if isinstance(op, Store) or (isinstance(op, Accumulate) and op.mode):
        places = op.words if isinstance(op, Store) else op.slots
        if (np.diff(places) <= 0).any():
            _, first, number = np.unique(places, return_index=True, return_inverse=True)
            yield np.arange(len(places)), first[number]
