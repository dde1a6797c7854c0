"""Minimal routes: deterministic, and balanced by a hash where several are equally short.

Routing is fixed before anything runs (no adaptivity), so a route depends only on the graph and on
the two chips. At every chip the next hop is dealt from the neighbours nearer to the destination
by (source, destination, here), each as often as it has parallel cables; traffic of many pairs
therefore spreads evenly over equal paths, which the tests measure.
"""

from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.errors import NoRoute
from topology.fabric import Fabric, Ints, compiled

UNREACHED = np.iinfo(np.int16).max
FEW, MANY = 64, 8192  # sources that are searched from one by one, in graphs of more chips
BLOCK_SOURCES = 4096  # of a search at a time
LITTLE = 1 << 16  # hops that are written out, and kept, in any case
SPARSE, MOST_LEVELS = 32, 16  # or unless that is so many times those asked for, and so far
_distances_to: "WeakKeyDictionary[Fabric, dict[int, NDArray[np.int16]]]" = WeakKeyDictionary()


def route(graph: nx.Graph, src: int, dst: int) -> tuple[int, ...]:
    """Return the chips of the minimal route, both ends included; (src,) when they are equal.

    Raises NoRoute if either chip is missing or none exists.
    """
    fabric = compiled(graph)
    if src not in graph or dst not in graph:
        raise NoRoute(fabric.name, src, dst)
    edges = paths(fabric, np.array([src]), np.array([dst])).edges
    return (src, *map(int, fabric.head[edges]))


class Paths:
    """Routes of many pairs: the edges of route i are edges[start[i]:start[i + 1]]."""

    def __init__(self, start: Ints, edges: Ints) -> None:
        self.start, self.edges = start, edges

    @property
    def hops(self) -> Ints:
        """Number of edges of each route."""
        return np.diff(self.start)

    def some(self, which: Ints) -> "Paths":
        """Return the routes of these numbers."""
        hops = self.hops[which]
        start = np.concatenate(([0], np.cumsum(hops)))
        offset = np.repeat(self.start[which] - start[:-1], hops)
        return Paths(start, self.edges[np.arange(start[-1]) + offset])


def paths(fabric: Fabric, src: Ints, dst: Ints) -> Paths:
    """Return the routes of all pairs (src[i], dst[i]); raises NoRoute if one has none."""
    src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    direct = fabric.edges_between(src, dst)
    far = np.flatnonzero((direct < 0) & (src != dst))
    hops = (src != dst).astype(np.int64)
    steps, far_hops = _steps(fabric, src[far], dst[far])
    hops[far] = far_hops
    start = np.concatenate(([0], np.cumsum(hops)))
    edges = np.empty(start[-1], np.int64)
    near = direct >= 0
    edges[start[:-1][near]] = direct[near]
    for step, (who, edge) in enumerate(steps):
        edges[start[far[who]] + step] = edge
    return Paths(start, edges)


def _steps(fabric: Fabric, src: Ints, dst: Ints) -> tuple[list[tuple[Ints, Ints]], Ints]:
    """Move all pairs one hop at a time; per step, which pairs moved and over which edge."""
    targets, column = np.unique(dst, return_inverse=True)
    steps: list[tuple[Ints, Ints]] = []
    hops = np.zeros(len(src), np.int64)
    if not len(src):
        return steps, hops
    nearness = _nearness(fabric, targets, len(src))
    if np.any(lost := nearness[column, src] == UNREACHED):
        raise NoRoute(fabric.name, int(src[lost.argmax()]), int(dst[lost.argmax()]))
    who, here = np.arange(len(src)), src
    while len(who):
        edge = _next_edge(fabric, nearness, column[who], src[who], dst[who], here)
        steps.append((who, edge))
        hops[who] += 1
        here = fabric.head[edge]
        moving = here != dst[who]
        who, here = who[moving], here[moving]
    return steps, hops


def _next_edge(
    fabric: Fabric, nearness: "NDArray[np.int16] | _Levels", column: Ints, src: Ints, dst: Ints,
    here: Ints,
) -> Ints:  # fmt: skip
    first, degree = fabric.row[here], np.diff(fabric.row)[here]
    slots = np.arange(degree.max())
    edge = np.minimum(first[:, None] + slots, len(fabric.head) - 1)
    nearer = nearness[column[:, None], fabric.head[edge]] < nearness[column, here][:, None]
    nearer &= slots < degree[:, None]
    # Parallel cables make a neighbour proportionally likelier.
    weight = np.cumsum(np.where(nearer, fabric.cables[edge], 0), axis=1)
    wanted = spread_over(weight[:, -1], src, dst, here)
    chosen: Ints = first + (weight <= wanted[:, None]).sum(axis=1)
    return chosen


def spread_over(choices: Ints, *keys: Ints) -> Ints:
    """Return a number in 0..choices - 1 that is dealt evenly over neighbouring keys.

    The additive recurrence on the generalised golden ratio of three dimensions (x^4 = x + 1), in
    64-bit integers: more even than a random hash, and without the patterns of a simple sum.
    """
    total = np.zeros(np.shape(keys[0]), np.uint64)
    with np.errstate(over="ignore"):
        for key, step in zip(keys, _STEPS, strict=False):
            total += np.asarray(key).astype(np.uint64) * step
    high = total >> np.uint64(32)
    return ((high * np.asarray(choices).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


# 2^64 / g, / g^2, / g^3 with g = 1.2207440846057596.
_STEPS = tuple(np.uint64(2**64 / 1.2207440846057596**k) for k in (1, 2, 3))


def distances_to(fabric: Fabric, targets: Ints) -> NDArray[np.int16]:
    """Return hops[i, chip] from chip to targets[i], remembered per graph; UNREACHED if none."""
    known = _distances_to.setdefault(fabric, {})
    missing = [int(t) for t in targets if int(t) not in known]
    for at in range(0, len(missing), 4096):
        block = np.array(missing[at : at + 4096])
        if len(block) <= FEW and fabric.chips > MANY:
            known.update(zip(missing, _one_by_one(fabric, block), strict=True))
            break
        found = np.full((len(block), fabric.chips), UNREACHED, np.int16)
        for level, fresh in hop_levels(fabric, block):
            bits = np.unpackbits(fresh.view(np.uint8), axis=1, bitorder="little")
            found.T[bits[:, : len(block)].astype(bool)] = level
        known.update(zip(missing[at : at + 4096], found, strict=True))
    return np.stack([known[int(t)] for t in targets])


def hops_within(fabric: Fabric, sources: Ints, targets: Ints) -> NDArray[np.int16]:
    """Return hops [n, b, a] to each of targets [n, b] from each of sources [n, a], row by row.

    UNREACHED if there is no way. No further is looked than these are apart, and nothing is kept.
    """
    each = sources.shape[1]
    found = np.full((*targets.shape, each), UNREACHED, np.int16)
    some = max(1, BLOCK_SOURCES // max(1, each))
    for at in range(0, len(sources), some):
        block, ends = found[at : at + some], targets[at : at + some, :, None]
        bit = np.arange(len(block) * each, dtype=np.uint64).reshape(-1, 1, each)
        word, left = (bit // 64).astype(np.int64), block.size
        for level, fresh in hop_levels(fabric, sources[at : at + some].ravel()):
            here = (fresh[ends, word] >> bit % np.uint64(64) & np.uint64(1)).astype(bool)
            block[here] = level
            left -= int(np.count_nonzero(here))
            if not left:
                break
    return found


class _Levels:
    """Hops as `distances_to` has them, each made of bits when it is asked for.

    Writing them all out takes longer than the search where few are ever looked at.
    """

    def __init__(self, levels: list[NDArray[np.uint64]]) -> None:
        self.levels = levels  # each [chips, words]: who is at least so near to whom

    def __getitem__(self, key: tuple[Ints, Ints]) -> Ints:
        column, chip = np.broadcast_arrays(*key)
        word, bit, near = column // 64, (column % 64).astype(np.uint64), np.zeros(chip.shape, int)
        for reached in self.levels:
            near += (reached[chip, word] >> bit & np.uint64(1)).astype(int)
        return np.where(near > 0, len(self.levels) - near, UNREACHED)


def _nearness(fabric: Fabric, targets: Ints, pairs: int) -> "NDArray[np.int16] | _Levels":
    """Hops to each target, by its number and the chip, for so many pairs."""
    written = len(targets) * fabric.chips
    if written > LITTLE and pairs * SPARSE < written:
        levels: list[NDArray[np.uint64]] = []
        for _, fresh in hop_levels(fabric, targets):
            levels.append(levels[-1] | fresh if levels else fresh)
            if len(levels) > MOST_LEVELS:
                break
        else:
            return _Levels(levels)
    return distances_to(fabric, targets)


def _one_by_one(fabric: Fabric, targets: Ints) -> NDArray[np.int16]:
    """The same by a search for each: levels of long thin graphs are many, and nearly empty."""
    from scipy.sparse import csr_array  # which takes long to load
    from scipy.sparse.csgraph import dijkstra

    ones = np.ones(len(fabric.head), np.int8)
    links = csr_array((ones, fabric.head, fabric.row), shape=(fabric.chips, fabric.chips))
    found = dijkstra(links, indices=targets, unweighted=True)  # cables lead both ways
    hops = np.minimum(found, UNREACHED - 1)
    return np.where(np.isfinite(found), hops, UNREACHED).astype(np.int16)


def hop_levels(fabric: Fabric, sources: Ints) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield (hops, bits): bit s of row c is set if chip c is exactly that far from sources[s].

    Breadth-first search from 64 sources per machine word: ten thousand sources cost seconds.
    """
    words = -(-len(sources) // 64)
    reached = np.zeros((fabric.chips, words), np.uint64)
    index = np.arange(len(sources))
    bit = np.uint64(1) << (index % 64).astype(np.uint64)
    np.bitwise_or.at(reached, (np.asarray(sources), index // 64), bit)
    fresh, level = reached.copy(), 0
    spread = _spreading(fabric, words)
    while fresh.any():
        yield level, fresh
        fresh = spread(fresh) & ~reached
        reached |= fresh
        level += 1


def _spreading(fabric: Fabric, words: int) -> Callable[[NDArray[np.uint64]], NDArray[np.uint64]]:
    """What says of the bits of all chips [chips, words] which are those of any neighbour's."""
    degree = np.diff(fabric.row)
    joined = np.flatnonzero(degree)
    if words == 1:
        starts = fabric.row[joined]

        def of_one(fresh: NDArray[np.uint64]) -> NDArray[np.uint64]:
            found = np.zeros_like(fresh)
            if len(starts):
                found[joined, 0] = np.bitwise_or.reduceat(fresh[:, 0][fabric.head], starts)
            return found

        return of_one
    # Row by row of "the j-th neighbour of every chip that has one": faster than `reduceat`.
    columns = [np.flatnonzero(degree > j) for j in range(int(degree.max(initial=0)))]
    near = [fabric.head[fabric.row[chips] + j] for j, chips in enumerate(columns)]

    def of_many(fresh: NDArray[np.uint64]) -> NDArray[np.uint64]:
        found = np.zeros_like(fresh)
        for chips, others in zip(columns, near, strict=True):
            if len(chips) == len(found):
                found |= fresh[others]
            else:
                found[chips] |= fresh[others]
        return found

    return of_many


def in_one_piece(fabric: Fabric) -> bool:
    """Whether each chip has a way to each other."""
    levels = hop_levels(fabric, fabric.alive[:1])
    return sum(int(np.count_nonzero(fresh)) for _, fresh in levels) == len(fabric.alive)


def tree_hops(
    fabric: Fabric, nearness: NDArray[np.int16], column: Ints, salt: Ints, dst: Ints, here: Ints
) -> Ints:
    """Return the chip after `here` on a minimal way to dst; depends on `salt`, not on a source.

    All who pass `here` with one salt go on alike, so the ways to one destination form a tree.
    """
    return fabric.head[_next_edge(fabric, nearness, column, salt, dst, here)]
