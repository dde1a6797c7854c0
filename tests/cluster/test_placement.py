"""Placements: the best there is in small graphs, near a bound in all, never two on a chip."""

from itertools import combinations, pairwise, permutations

import networkx as nx
import pytest

from cluster.compiler.place import REDUCE_WEIGHT, Places
from topology import parse
from topology.faults import apply

SHAPES = [(1, 4), (2, 2), (3, 2), (4, 1), (5, 1), (2, 3), (1, 6)]


def weighted(graph: nx.Graph, placement) -> int:
    hops = dict(nx.all_pairs_shortest_path_length(graph))
    inside = sum(hops[a][b] for group in placement for a, b in combinations(group, 2))
    between = sum(hops[a][b] for g, h in pairwise(placement) for a, b in zip(g, h, strict=True))
    return REDUCE_WEIGHT * inside + between


@pytest.mark.parametrize("topology", ["ring:6", "mesh:2x3", "node", "hypercube:3", "torus:3x3"])
@pytest.mark.parametrize("tp, pp", SHAPES)
def test_hops_are_counted_as_networkx_counts_them_and_lie_above_the_bound(topology, tp, pp):
    graph = parse(topology)
    found = Places(graph).place(tp, pp)
    assert len({chip for group in found.placement for chip in group}) == tp * pp
    assert found.hops == weighted(graph, found.placement) >= found.lower_bound_hops
    assert found.gap >= 0 and (found.exact or found.hops > found.lower_bound_hops)


@pytest.mark.parametrize("topology", ["ring:6", "mesh:2x3", "ring:5"])
@pytest.mark.parametrize("tp, pp", [(2, 2), (1, 5), (3, 1), (4, 1)])
def test_no_placement_of_a_small_graph_is_better(topology, tp, pp):
    graph = parse(topology)
    found = Places(graph).place(tp, pp)
    every = permutations(graph, tp * pp)
    cut = ([order[s * tp : (s + 1) * tp] for s in range(pp)] for order in every)
    assert found.exact and found.hops == min(weighted(graph, one) for one in cut)


def test_a_dead_chip_costs_no_more_than_its_whole_node_where_there_is_a_node_to_spare():
    one, all_of_it = (
        Places(apply(parse("dragonfly:72"), what).graph).place(16, 4)
        for what in ("chip:25", "node:3")
    )
    assert one.hops <= all_of_it.hops


def test_dead_chips_hold_nothing():
    graph = apply(parse("mesh:2x4"), "chip:0,chip:6", whole=False).graph
    found = Places(graph).place(2, 3)
    assert {chip for group in found.placement for chip in group} == set(graph)
