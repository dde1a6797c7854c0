"""What a topology is worth: size, hops, memory, bisection and latency, without all-pairs memory."""

from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.errors import BadSpec
from topology.fabric import Fabric, compiled
from topology.routes import distances_to, hop_levels

_BLOCK = 4096  # sources searched at once: 64 words per chip
_MOST_WORK = 10**10  # words touched; half a minute


@dataclass(frozen=True)
class Facts:
    """Facts of one graph; bandwidth in payload bytes, one direction."""

    name: str
    profile: str
    chips: int
    links: int  # edges, parallel cables counted once
    cables: int
    ports_max: int
    diameter_hops: int
    mean_hops: float
    hop_histogram: tuple[int, ...]  # ordered pairs of different chips by distance 1, 2, ...
    bisection_bytes_per_s: float
    bisection_cables: int
    bisection_exact: bool  # else the best cut found: an upper bound
    sram_bytes: int
    max_latency_s: float  # farthest pair, one vector, minimal route


def facts(graph: nx.Graph) -> Facts:
    """Return the facts of a connected graph; raises BadSpec where the search would take minutes."""
    from topology.bisection import bisection  # with SciPy, which takes long to load

    fabric, profile = compiled(graph), graph.graph["profile"]
    _check_size(fabric)
    pairs = hop_counts(fabric)
    cut = bisection(graph)
    total = sum(pairs[1:])
    return Facts(
        name=fabric.name,
        profile=profile.name,
        chips=len(fabric.alive),
        links=len(fabric.tail) // 2,
        cables=fabric.channels // 2,
        ports_max=max_ports(fabric),
        diameter_hops=len(pairs) - 1,
        mean_hops=sum(hops * n for hops, n in enumerate(pairs)) / max(total, 1),
        hop_histogram=tuple(pairs[1:]),
        bisection_bytes_per_s=cut.bytes_per_s,
        bisection_cables=cut.cables,
        bisection_exact=cut.exact,
        sram_bytes=len(fabric.alive) * profile.sram_bytes,
        max_latency_s=max_latency_cycles(fabric, len(pairs) - 1) / profile.clock_hz,
    )


def _check_size(fabric: Fabric) -> None:
    levels = 1 + int(distances_to(fabric, fabric.alive[:1])[0, fabric.alive].max())
    chips, most = len(fabric.alive), _BLOCK // 64
    words = -(-chips // _BLOCK) * min(most, -(-chips // 64))
    if words * levels * (len(fabric.tail) + 4 * chips) > _MOST_WORK:
        problem = f"{chips:,} chips, up to {levels - 1:,} hops apart, take too long to measure"
        raise BadSpec(fabric.name, problem, "use fewer chips, or more links")


def hop_counts(fabric: Fabric) -> list[int]:
    """Return how many ordered pairs (a chip and itself included) are 0, 1, 2, ... hops apart."""
    counts: list[int] = []
    for at in range(0, len(fabric.alive), _BLOCK):
        for level, fresh in hop_levels(fabric, fabric.alive[at : at + _BLOCK]):
            counts.extend([0] * (level + 1 - len(counts)))
            counts[level] += int(np.bitwise_count(fresh).sum())
    return counts


def max_ports(fabric: Fabric) -> int:
    """Return the most cables that any chip has."""
    return int(np.bincount(fabric.tail, fabric.cables).max(initial=0))


def max_latency_cycles(fabric: Fabric, diameter_hops: int) -> int:
    """Return the latency of one vector between the farthest pair over its fastest route."""
    latencies = np.unique(fabric.latency_cycles)
    if len(latencies) == 1:  # all links alike: the farthest pair by hops
        return diameter_hops * int(latencies[0])
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    weights = csr_array(
        (fabric.latency_cycles.astype(float), fabric.head, fabric.row),
        shape=(fabric.chips, fabric.chips),
    )
    farthest = 0.0
    for at in range(0, len(fabric.alive), 512):
        block = dijkstra(weights, indices=fabric.alive[at : at + 512])[:, fabric.alive]
        farthest = max(farthest, float(block[np.isfinite(block)].max()))
    return int(farthest)
