"""Which rows of a stretch depend on each other: what does not, threads can share.

A stage is some nodes that work row by row, with no product between them. Its rows fall into
components: the rows of a token are one, if no other token's are looked at. Components are packed
into strands, each with its part of the rows of every node.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chip.isa import NUMPY_TYPES
from chip.linker.fetch import Cast, Fetch, Ints, Merge, Plane, Stack, Take
from chip.linker.fragment import Step
from chip.linker.node_ops import Accumulate, MoveLanes, NodeOp, Pointwise, Read, Store

STRANDS = 8  # at most
LEAST_ROWS = 512  # of a strand, some 15 microseconds

Strand = list[tuple[int, Ints]]  # nodes in order, and which of its rows
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


def strands(stage: Sequence[int], nodes: Sequence[Step]) -> list[list[Strand]]:
    """Strands of a stage, which threads can share; before these one with what several need."""
    counts = [row_count(nodes[node].op) for node in stage]
    most = min(STRANDS, sum(counts) // LEAST_ROWS)
    if most < 2:
        return [[[(node, np.arange(n)) for node, n in zip(stage, counts, strict=True)]]]
    ends = np.cumsum(counts)
    first = dict(zip(stage, (ends - counts).tolist(), strict=True))
    # What is read here, and not made here before, can be read at first if several need it.
    sources = {
        n for n in stage if isinstance(nodes[n].op, Read) and not first.keys() & nodes[n].before
    }
    inner, outer = [], list[tuple[int, Ints, Ints]]()
    for node in stage:
        inner += [(first[node] + a, first[node] + b) for a, b in _alike(nodes[node].op)]
        for need, (a, b) in _edges(node, nodes, first):
            if need in sources:
                outer.append((need, b, first[node] + a))
            else:
                inner.append((first[node] + a, first[need] + b))
    labels = _components(int(ends[-1]), inner)
    for node in sources:
        labels[first[node] : first[node] + row_count(nodes[node].op)] = -1
    strand = _packed(labels, most)
    shared = set()
    for node, rows, users in outer:
        mine = strand[first[node] : first[node] + row_count(nodes[node].op)]
        unknown = mine[rows] < 0
        mine[rows[unknown]] = strand[users[unknown]]
        if (mine[rows] != strand[users]).any():
            shared.add(node)
    strand = np.maximum(strand, 0)
    found: list[Strand] = [[] for _ in range(most)]
    for node, count in zip(stage, counts, strict=True):
        if node not in shared:
            mine = strand[first[node] : first[node] + count]
            for number in np.unique(mine):
                found[number].append((node, np.flatnonzero(mine == number)))
    before = [(node, np.arange(row_count(nodes[node].op))) for node in stage if node in shared]
    return [*([[before]] if before else []), [one for one in found if one]]


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
    """The strand of each row: components one after another, as many rows in each; -1 as it was."""
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
