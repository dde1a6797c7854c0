"""Ring algorithms: every rank talks to the next one only.

`ring` keeps all chunks in flight and uses both directions; `ring-stepwise` is the textbook one way
ring with chunks one after another and whole messages; `dimension` runs rings along every axis of a
lattice, each on the share that the axes before left over.
"""

import numpy as np

from topology.collectives.engine import Engine, Job
from topology.collectives.registry import algorithm
from topology.errors import BadCollective
from topology.fabric import Fabric, Ints


@algorithm("ring", "all_reduce", "reduce_scatter", "all_gather")
def ring(job: Job) -> Engine:
    """Shares travel round the ring in both directions at once, all chunks in flight."""
    ways = 2 if job.ranks > 2 else 1
    chunks = ways * (job.chunks or job.stripes)
    engine = Engine(job, job.ranks * chunks, shares=chunks)
    order = ring_order(job.fabric, job.chips)
    for step in range(_steps(job)):
        for way in range(ways):
            _ring_step(engine, job, order if way == 0 else order[::-1], step, way, ways)
    return engine


def _ring_step(engine: Engine, job: Job, order: Ints, step: int, way: int, ways: int) -> None:
    """Send every second chunk (of two ways) of one share per rank to the next rank."""
    place = np.arange(job.ranks)
    add, lag = _phase(job, step)
    share = order[(place - lag) % job.ranks]
    chunks = np.arange(way, engine.shares, ways)
    block = (share[:, None] * engine.shares + chunks).ravel()
    src, dst = _cached_pairs(engine, order, len(chunks))
    engine.send(src, dst, block, add=add)


def _cached_pairs(engine: Engine, order: Ints, chunks: int) -> tuple[Ints, Ints]:
    return np.repeat(order, chunks), np.repeat(np.roll(order, -1), chunks)


@algorithm("ring-stepwise", "all_reduce", "reduce_scatter", "all_gather")
def ring_stepwise(job: Job) -> Engine:
    """One direction, chunk after chunk, a message only when all of the last one has arrived."""
    chunks = job.chunks or 1
    # Blocks of a chunk lie together: chunk c of share s is block s * chunks + c.
    engine = Engine(job, job.ranks * chunks, shares=chunks)
    order = ring_order(job.fabric, job.chips)
    following, place = np.roll(order, -1), np.arange(job.ranks)
    shares = [order[(place - lag) % job.ranks] * chunks for lag in range(job.ranks)]
    done: Ints | int = 0
    for chunk in range(chunks):
        for step in range(_steps(job)):
            add, lag = _phase(job, step)
            block = shares[lag % job.ranks] + chunk
            engine.send(order, following, block, add=add, whole=True, after=done)
        last = engine.ready(0)[1][:, chunk::chunks]
        done = int(last.max())
    return engine


@algorithm("dimension", "all_reduce")
def dimension(job: Job) -> Engine:
    """Reduce-scatter along axis after axis of a full lattice, then all-gather back."""
    chunks, sizes = job.chunks or 1, _lattice(job)
    engine = Engine(job, job.ranks * chunks, shares=1)
    coordinates = np.array(np.unravel_index(np.arange(job.ranks), sizes))
    forth = [(axis, step) for axis in range(len(sizes)) for step in range(sizes[axis] - 1)]
    back = [(axis, step + sizes[axis] - 1) for axis, step in forth]
    back.sort(key=lambda visit: -visit[0])
    for axis, step in forth + back:
        size, stride = sizes[axis], int(np.prod(sizes[axis + 1 :]))
        add, lag = step < size - 1, step + 1 if step < size - 1 else step - size + 1
        place = coordinates.copy()
        place[axis] = (place[axis] - lag) % size
        place[axis + 1 :] = 0
        share = np.ravel_multi_index(tuple(place), sizes)
        target = coordinates.copy()
        target[axis] = (target[axis] + 1) % size
        dst = np.ravel_multi_index(tuple(target), sizes)
        for chunk in range(chunks):
            block = share + chunk * job.ranks
            engine.send(np.arange(job.ranks), dst, block, blocks=stride, add=add)
    return engine


def _lattice(job: Job) -> tuple[int, ...]:
    """Return the axis sizes if the group is a whole lattice in row-major order."""
    places = np.array([job.graph.nodes[chip]["coordinates"] for chip in job.chips])
    sizes = tuple(int(extent) for extent in places.max(axis=0) + 1)
    if not np.array_equal(places, np.array(list(np.ndindex(sizes)))):
        raise BadCollective(job.operation, "'dimension' needs a whole lattice", "use ring or auto")
    return sizes


def _steps(job: Job) -> int:
    return (job.ranks - 1) * (2 if job.operation == "all_reduce" else 1)


def _phase(job: Job, step: int) -> tuple[bool, int]:
    """Return whether the step adds, and how far behind a place the share it sends is."""
    half = job.ranks - 1
    if job.operation == "all_gather":
        return False, step
    return (True, step + 1) if step < half else (False, step - half)


def ring_order(fabric: Fabric, chips: tuple[int, ...]) -> Ints:
    """Return ranks in an order in which neighbours are mostly linked.

    A greedy walk that prefers the neighbour with the fewest ways on (Warnsdorff's rule), lowest
    rank first; where it gets stuck it jumps to the lowest rank left.
    """
    rank_of = {chip: rank for rank, chip in enumerate(chips)}
    near = [
        [rank_of[int(c)] for c in fabric.head[slice(*fabric.row[chip : chip + 2])] if c in rank_of]
        for chip in chips
    ]
    if all((rank + 1) % len(chips) in near[rank] for rank in range(len(chips))):
        return np.arange(len(chips))
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
