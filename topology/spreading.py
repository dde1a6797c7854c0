"""Deterministic spreading: one large tensor over several link-disjoint paths at once.

Longer paths start to help when what they take off the direct one outweighs their extra hops;
below that crossover all of it goes the minimal way (about 8 KB in a node, ISCA'22). There is no
adaptivity: how many vectors take which path is fixed by arithmetic before anything runs.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import networkx as nx
import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.errors import NoRoute
from topology.fabric import Fabric, Ints, compiled
from topology.routes import Paths, route


@dataclass(frozen=True)
class Share:
    """The part of a tensor that takes one path."""

    path: tuple[int, ...]
    vectors: int
    latency_cycles: int


def disjoint_paths(graph: nx.Graph, src: int, dst: int) -> list[tuple[int, ...]]:
    """Return as many link-disjoint paths as there are, shortest first, the minimal route leading.

    An edge with k parallel cables counts as k links. Raises NoRoute.
    """
    if src not in graph or dst not in graph:
        raise NoRoute(graph.graph.get("name", "graph"), src, dst)
    minimal = route(graph, src, dst)
    rest = nx.Graph((u, v, {"capacity": d["link"].count}) for u, v, d in graph.edges(data=True))
    found: list[tuple[int, ...]] = []
    # Shortest first, cable by cable: within a node this is the direct link and all two-hop detours.
    while True:
        path = minimal if not found else _shortest(rest, src, dst)
        if path is None:
            return found
        found.append(path)
        for u, v in pairwise(path):
            rest.edges[u, v]["capacity"] -= 1
            if rest.edges[u, v]["capacity"] == 0:
                rest.remove_edge(u, v)


def _shortest(graph: nx.Graph, src: int, dst: int) -> tuple[int, ...] | None:
    try:
        return tuple(nx.shortest_path(graph, src, dst))
    except nx.NetworkXNoPath:
        return None


def spread(graph: nx.Graph, src: int, dst: int, vectors: int) -> list[Share]:
    """Return how to split `vectors` over disjoint paths so that the last arrives earliest.

    The finish time is found by bisection: a path of latency L carries all vectors that can leave
    within finish - L. Paths that carry nothing are left out.
    """
    fabric = compiled(graph)
    paths = disjoint_paths(graph, src, dst)
    latency = np.array([_latency(fabric, path) for path in paths])
    paces = [_pace(fabric, path) for path in paths]
    p = np.array([pace.numerator for pace in paces])
    q = np.array([pace.denominator for pace in paces])

    def carried(finish: int) -> Ints:
        return np.where(finish >= latency, (finish - latency) * q // p + 1, 0)

    low, high = int(latency.min()) - 1, int(latency[0]) + -(-vectors * int(p[0]) // int(q[0]))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if carried(middle).sum() >= vectors else (middle, high)
    split, left = carried(high), vectors
    shares = []
    for path, most, cycles in zip(paths, split, latency, strict=True):
        taken = min(int(most), left)
        left -= taken
        if taken:
            shares.append(Share(path, taken, int(cycles)))
    return shares


def crossover_bytes(graph: nx.Graph, src: int, dst: int) -> int | None:
    """Return the smallest tensor that arrives earlier spread than on its minimal route alone."""
    fabric = compiled(graph)
    paths = disjoint_paths(graph, src, dst)
    if len(paths) < 2:
        return None
    direct, pace = _latency(fabric, paths[0]), _pace(fabric, paths[0])
    detour = min(_latency(fabric, path) for path in paths[1:])
    # The last of n vectors lands at direct + (n - 1) * pace; a detour can take it by `detour`.
    extra = max(detour - direct, 0)
    vectors = extra * pace.denominator // pace.numerator + 2
    return int(vectors * fabric.payload_bytes)


@algorithm("spread", "point_to_point")
def spread_transfer(job: Job) -> Messages:
    """Send one tensor over disjoint paths; equal to `direct` below the crossover."""
    shares = spread(job.graph, job.chips[0], job.chips[1], job.vectors)
    draft = Draft(job, len(shares))
    ends = np.cumsum([0] + [share.vectors for share in shares])
    draft.resize(np.diff(-(-ends // job.unit_vectors) * job.unit_vectors))
    fabric = job.fabric
    edges = [fabric.edge(u, v) for share in shares for u, v in pairwise(share.path)]
    start = np.cumsum([0] + [len(share.path) - 1 for share in shares])
    one = np.zeros(len(shares), np.int64)
    block = np.arange(len(shares))
    draft.send(one, one + 1, block, via=Paths(start, np.array(edges)))
    return draft.messages()


def _latency(fabric: Fabric, path: tuple[int, ...]) -> int:
    hops = pairwise(path)
    return int(sum(fabric.latency_cycles[fabric.edge(u, v)] for u, v in hops))


def _pace(fabric: Fabric, path: tuple[int, ...]) -> Fraction:
    hops = pairwise(path)
    return max(fabric.paces[int(fabric.pace[fabric.edge(u, v)])] for u, v in hops)
