"""The alpha-beta lower bound: what no schedule of an operation on this graph can beat.

alpha: data of one chip must reach another, however far. beta: a chip's own cables must carry what
the chip has to send and receive, and all cables together what all chips have to move.
"""

import numpy as np

from topology.collectives.job import Job
from topology.fabric import Fabric, Ints
from topology.routes import distances_to

# Above this many chips the farthest pair is looked for from this many chips only: still a bound.
_SOURCES = 64


def lower_bound_cycles(job: Job) -> int:
    """Return cycles that every schedule of the job needs at least, additions not counted."""
    fabric, ranks, vectors = job.fabric, job.ranks, job.vectors
    if ranks < 2 or vectors == 0:
        return 0
    rooted = job.operation in ("broadcast", "reduce", "point_to_point")
    far = _farthest_cycles(fabric, job.chips, [job.root] if rooted else range(ranks))
    near = int(fabric.latency_cycles.min())
    vectors = int(job.sums.on_cables(np.array(vectors)))  # more than that where nodes have several
    units = vectors // job.unit_vectors
    share = units // ranks * job.unit_vectors  # a rounded-down count keeps this a bound
    largest = -(-units // ranks) * job.unit_vectors
    own = {
        "reduce_scatter": vectors - largest,
        "all_gather": vectors - largest,
        "all_to_all": share * (ranks - 1),
    }.get(job.operation, vectors)
    moved = {
        "all_reduce": 2 * (ranks - 1) * vectors,
        "reduce_scatter": (ranks - 1) * vectors,
        "all_gather": (ranks - 1) * vectors,
        "all_to_all": (ranks - 1) * ranks * share,
        "broadcast": (ranks - 1) * vectors,
        "reduce": (ranks - 1) * vectors,
    }.get(job.operation, vectors)
    chips = np.array(job.chips)
    ports = _port_counts(fabric, chips)
    narrow = int(ports[job.root] if rooted else ports.min())
    busiest = max(_drain(fabric, own, narrow), _drain(fabric, moved, fabric.channels))
    # With fewer units than ranks some shares are empty: the farthest pair may not need to talk.
    shared_out = job.operation in ("reduce_scatter", "all_gather", "all_to_all")
    return max(near if shared_out and units < ranks else far, near + busiest)


def _port_counts(fabric: Fabric, chips: Ints) -> Ints:
    total = np.r_[0, np.cumsum(fabric.cables)]
    ports: Ints = total[fabric.row[chips + 1]] - total[fabric.row[chips]]
    return ports


def _drain(fabric: Fabric, vectors: int, cables: int) -> int:
    """Return cycles from the first to the last departure of `vectors` over equal fast cables."""
    p, q = fabric.paces[0].as_integer_ratio()
    return max(0, -(-vectors // cables) - 1) * p // q


def _farthest_cycles(fabric: Fabric, chips: tuple[int, ...], ranks: "range | list[int]") -> int:
    sources = [chips[rank] for rank in list(ranks)[:_SOURCES]]
    if len(np.unique(fabric.latency_cycles)) == 1:
        hops = distances_to(fabric, np.array(sources))[:, list(chips)].max()
        return int(hops) * int(fabric.latency_cycles[0])
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    weights = csr_array(
        (fabric.latency_cycles.astype(float), fabric.head, fabric.row),
        shape=(fabric.chips, fabric.chips),
    )
    return int(dijkstra(weights, indices=sources)[:, list(chips)].max())
