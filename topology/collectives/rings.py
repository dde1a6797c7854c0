"""Ring algorithms: every rank talks to the next one only.

`ring` keeps all chunks in flight and uses both directions; `ring-stepwise` is the textbook one way
ring with chunks one after another and whole messages; `dimension` runs rings along every axis of a
lattice, each on the share that the axes before left over.
"""

import math

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.errors import BadCollective
from topology.fabric import Fabric, Ints


@algorithm("ring", "all_reduce", "reduce_scatter", "all_gather")
def ring(job: Job) -> Messages:
    """Shares travel round the ring in both directions at once, all chunks in flight."""
    ways = 2 if job.ranks > 2 else 1
    chunks = ways * (job.chunks or job.stripes)
    draft = Draft(job, job.ranks * chunks, shares=chunks)
    order = ring_order(job.fabric, job.chips, _places(job))
    rings = [_Ring(draft, o, np.arange(way, chunks, ways)) for way, o in _ways(order, ways)]
    for step in range(_steps(job)):
        for ring in rings:
            ring.step(step, whole=False)
    return draft.messages()


@algorithm("ring-stepwise", "all_reduce", "reduce_scatter", "all_gather")
def ring_stepwise(job: Job) -> Messages:
    """One direction, chunk after chunk, a message only when all of the last one has arrived."""
    chunks = job.chunks or 1
    draft = Draft(job, job.ranks * chunks, shares=chunks)
    order = ring_order(job.fabric, job.chips, _places(job))
    for chunk in range(chunks):
        ring = _Ring(draft, order, np.array([chunk]), after_all=chunk > 0)
        for step in range(_steps(job)):
            ring.step(step, whole=True)
    return draft.messages()


class _Ring:
    """Some chunks of every share on their way round; chunk c of share s is block s * chunks + c."""

    def __init__(self, draft: Draft, order: Ints, chunks: Ints, after_all: bool = False) -> None:
        self.draft, self.chunks, self.after_all = draft, chunks, after_all
        self.src = np.repeat(order, len(chunks))
        self.dst = np.repeat(np.roll(order, -1), len(chunks))
        self.blocks = (order[:, None] * draft.shares + chunks).ravel()
        self.before = _turned(np.arange(len(self.src)), len(chunks))
        self.sent: int | None = None

    def step(self, number: int, whole: bool) -> None:
        """Send one share per rank to the next rank, the one that came in with the last step."""
        draft, job = self.draft, self.draft.job
        add, lag = _phase(job, number)
        self.sent = draft.send(
            *(self.src, self.dst, _turned(self.blocks, lag % job.ranks * len(self.chunks))),
            add=add,
            whole=whole,
            barrier=self.after_all,
            from_start=number == 0,
            follows=(self.sent, self.before) if self.sent is not None and draft.plain else None,
            noted=not draft.plain,
        )
        self.after_all = False


def _turned(values: Ints, places: int) -> Ints:
    """Return values moved on by `places`, those at the end to the front (a faster `np.roll`)."""
    cut = len(values) - places
    return np.concatenate((values[cut:], values[:cut]))


def _ways(order: Ints, ways: int) -> list[tuple[int, Ints]]:
    return [(0, order), (1, order[::-1])][:ways]


@algorithm("dimension", "all_reduce")
def dimension(job: Job) -> Messages:
    """Reduce-scatter along axis after axis of a full lattice, then all-gather back."""
    chunks, sizes = job.chunks or 1, _lattice(job)
    draft = Draft(job, job.ranks * chunks, shares=1)
    axes = [axis for axis in range(len(sizes)) if sizes[axis] > 1]
    for axis in axes:
        _along(draft, sizes, axis, chunks, True, axis == axes[0])
    for axis in reversed(axes):
        _along(draft, sizes, axis, chunks, False, axis == axes[0])
    return draft.messages()


def _along(
    draft: Draft, sizes: tuple[int, ...], axis: int, chunks: int, add: bool, outer: bool
) -> None:
    """Ring reduce-scatter (`add`) or all-gather on one axis; every line of it at once.

    On the outermost axis nothing else happens to the blocks in between, so a step only needs to
    know when the last one landed; elsewhere the own partial sums of earlier axes count too.
    """
    ranks, size, stride = np.arange(draft.job.ranks), sizes[axis], math.prod(sizes[axis + 1 :])
    coordinates = np.array(np.unravel_index(ranks, sizes))
    target = coordinates.copy()
    target[axis] = (target[axis] + 1) % size
    dst = np.ravel_multi_index(tuple(target), sizes)
    quick = outer and draft.plain and draft.one_cable
    before = np.argsort(dst)  # whose message brings what a rank passes on
    sent: list[int | None] = [None] * chunks
    coordinates[axis + 1 :] = 0
    for step in range(size - 1):
        place = coordinates.copy()
        place[axis] = (place[axis] - step - add) % size
        share = np.ravel_multi_index(tuple(place), sizes)
        for chunk in range(chunks):
            last = sent[chunk]
            sent[chunk] = draft.send(
                *(ranks, dst, share + chunk * len(ranks)),
                blocks=stride,
                add=add,
                from_start=quick and step == 0 and add,
                follows=(last, before) if quick and last is not None else None,
                noted=not quick or (add and step == size - 2),
            )


def _lattice(job: Job) -> tuple[int, ...]:
    """Return the axis sizes if the group is a whole lattice in row-major order."""
    places = _places(job)
    sizes = () if places is None else tuple(int(extent) for extent in places.max(axis=0) + 1)
    if not np.array_equal(np.asarray(places), np.array(list(np.ndindex(sizes)))):
        raise BadCollective(job.operation, "'dimension' needs a whole lattice", "use ring or auto")
    return sizes


def _places(job: Job) -> Ints | None:
    """Return the coordinates of all ranks, [P, axes]; None if they differ in length."""
    places = [job.graph.nodes[chip].get("coordinates", ()) for chip in job.chips]
    return np.array(places, np.int64) if len({len(place) for place in places}) == 1 else None


def _steps(job: Job) -> int:
    return (job.ranks - 1) * (2 if job.operation == "all_reduce" else 1)


def _phase(job: Job, step: int) -> tuple[bool, int]:
    """Return whether the step adds, and how far behind a place the share it sends is."""
    half = job.ranks - 1
    if job.operation == "all_gather":
        return False, step
    return (True, step + 1) if step < half else (False, step - half)


def ring_order(fabric: Fabric, chips: tuple[int, ...], places: Ints | None = None) -> Ints:
    """Return ranks in an order in which neighbours are mostly linked.

    The best of: as they are; a snake through `places` (coordinates, [P, axes]); a greedy walk.
    """
    number = np.arange(len(chips))
    orders = [number] if places is None else [number, _snake(places)]
    ids = np.array(chips, np.int64)

    def linked(order: Ints) -> int:
        return int((fabric.edges_between(ids[order], ids[np.roll(order, -1)]) >= 0).sum())

    best = max(orders, key=linked)
    if linked(best) >= len(chips) - 1:
        return best
    return max(best, _greedy(fabric, chips), key=linked)


def _snake(places: Ints) -> Ints:
    """Return rows in lexical order, every axis running back and forth."""
    turned, parity = places.copy(), np.zeros(len(places), np.int64)
    for axis in range(places.shape[1]):
        turned[:, axis] = np.where(parity % 2, -places[:, axis], places[:, axis])
        parity = parity + places[:, axis]
    return np.lexsort(turned.T[::-1])


def _greedy(fabric: Fabric, chips: tuple[int, ...]) -> Ints:
    """Walk to the neighbour with the fewest ways on (Warnsdorff's rule), lowest rank first.

    Where the walk gets stuck it jumps to the lowest rank left.
    """
    rank_of = {chip: rank for rank, chip in enumerate(chips)}
    near = [
        [rank_of[int(c)] for c in fabric.head[slice(*fabric.row[chip : chip + 2])] if c in rank_of]
        for chip in chips
    ]
    ways = [len(n) for n in near]
    left, here, order = dict.fromkeys(range(len(chips))), 0, []
    while left:
        del left[here]
        order.append(here)
        for other in near[here]:
            ways[other] -= 1
        open_ = [other for other in near[here] if other in left]
        here = min(open_, key=lambda rank: (ways[rank], rank), default=next(iter(left), 0))
    return np.array(order)
