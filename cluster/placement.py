"""Which chip of the graph holds which stage and rank: neighbours that talk are placed close."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import networkx as nx

from cluster.errors import BadValue
from cluster.partition import Plan

Placement = tuple[tuple[int, ...], ...]  # chips of each stage, by rank


def place(plan: Plan, graph: nx.Graph, spec: str) -> Placement:
    """Assign chips to (stage, rank): the best of several walks over the graph, by hops.

    Raises BadValue when the graph has too few chips.
    """
    chips = graph.number_of_nodes()
    if chips < plan.chips:
        need = f"has {chips} chips, the plan needs {plan.chips} ({plan.pp} stages x tp {plan.tp})"
        raise BadValue("--topology", spec, need)
    walks = [_groups(order, plan) for order in _orders(graph, plan.tp)]
    return min(walks, key=lambda placement: _hops(graph, placement))


def _groups(order: list[int], plan: Plan) -> Placement:
    """Cut a walk over the graph into groups of tp chips, one per stage."""
    return tuple(tuple(order[s * plan.tp : (s + 1) * plan.tp]) for s in range(plan.pp))


def _orders(graph: nx.Graph, tp: int) -> Iterator[list[int]]:
    """Walks: by number, breadth first, and for grids boustrophedon in strips as wide as a group."""
    yield sorted(graph)
    yield list(nx.bfs_tree(graph, min(graph)))
    spots = nx.get_node_attributes(graph, "coordinates")
    if len(spots) == len(graph) and len({len(c) for c in spots.values()}) == 1:
        for axis in range(len(next(iter(spots.values())))):
            yield _strips(spots, axis, tp)


def _strips(spots: dict[int, tuple[int, ...]], axis: int, tp: int) -> list[int]:
    """Strips of `tp` chips along `axis`, walked up and down in the other dimensions in turn."""
    at = {spot: chip for chip, spot in spots.items()}
    extent = [1 + max(spot[d] for spot in at) for d in range(len(next(iter(at))))]
    others = [d for d in range(len(extent)) if d != axis]
    order = []
    up = True
    for start in range(0, extent[axis], tp):
        strip = range(start, min(start + tp, extent[axis]))
        rows = list(_snake([extent[d] for d in others]))
        for row in rows if up else reversed(rows):
            for along in strip:
                spot = [0] * len(extent)
                spot[axis] = along
                for d, value in zip(others, row, strict=True):
                    spot[d] = value
                if tuple(spot) in at:
                    order.append(at[tuple(spot)])
        up = not up
    return order


def _snake(extent: list[int]) -> Iterator[tuple[int, ...]]:
    """All points of a grid, each one step from the one before."""
    if not extent:
        yield ()
        return
    for first in range(extent[0]):
        rest = list(_snake(extent[1:]))
        for tail in rest if first % 2 == 0 else reversed(rest):
            yield (first, *tail)


def _hops(graph: nx.Graph, placement: Placement) -> int:
    """Hops of all-reduces (twice a layer, roughly) and of stage boundaries."""
    total = 0
    distance: dict[int, dict[int, int]] = {}

    def hops(a: int, b: int) -> int:
        if a not in distance:
            distance[a] = dict(nx.single_source_shortest_path_length(graph, a))
        return distance[a][b]

    for group in placement:
        total += 4 * sum(hops(a, b) for a, b in combinations(group, 2))
    for group, after in pairwise(placement):
        total += sum(hops(a, b) for a, b in zip(group, after, strict=True))
    return total
