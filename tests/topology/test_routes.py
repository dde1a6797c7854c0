from itertools import pairwise, permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import FAMILIES, dragonfly, full, mesh, parse, ring, route
from topology.errors import NoRoute
from topology.fabric import compiled
from topology.routes import distances_to, hop_levels, paths


@pytest.mark.parametrize("family", FAMILIES)
def test_routes_are_shortest_paths(example, family):
    graph = example(family)
    rng = np.random.default_rng(1)
    for src, dst in rng.integers(0, len(graph), (20, 2)).tolist():
        found = route(graph, src, dst)
        assert found[0] == src and found[-1] == dst
        assert all(graph.has_edge(u, v) for u, v in pairwise(found))
        assert len(found) - 1 == nx.shortest_path_length(graph, src, dst)


@given(st.integers(2, 40), st.integers(0, 10**6))
@settings(max_examples=20)
def test_bulk_routes_equal_single_ones(chips, seed):
    graph = parse(f"random:{2 * chips + 2}:3:{seed}")
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, len(graph), (2, 12))
    found = paths(compiled(graph), src, dst)
    for i in range(12):
        edges = found.edges[found.start[i] : found.start[i + 1]]
        assert (src[i], *compiled(graph).head[edges]) == route(graph, int(src[i]), int(dst[i]))


def test_two_equal_ways_round_a_ring_are_used_alike():
    graph = ring(64)
    clockwise = sum(
        route(graph, chip, (chip + 32) % 64)[1] == (chip + 1) % 64 for chip in range(64)
    )
    assert 20 <= clockwise <= 44


@pytest.mark.parametrize(
    "spec", ["torus:6x6", "hypercube:6", "dragonfly:72", "dragonfly:264", "rack"]
)
def test_all_pairs_load_links_evenly(spec):
    graph = parse(spec)
    fabric = compiled(graph)
    pairs = np.array(list(permutations(range(len(graph)), 2))).T
    load = np.bincount(paths(fabric, *pairs).edges, minlength=len(fabric.tail))
    kind = np.array(
        [
            graph.edges[u, v]["link"].kind == "node"
            for u, v in zip(fabric.tail, fabric.head, strict=True)
        ]
    )
    for group in (load[kind], load[~kind]):
        if len(group):
            assert group.max() <= 2 * group.mean()


def test_distances_are_networkx_s():
    graph = mesh((5, 7))
    oracle = dict(nx.all_pairs_shortest_path_length(graph))
    found = distances_to(compiled(graph), np.arange(35))
    assert all(found[a, b] == oracle[a][b] for a in range(35) for b in range(35))


def test_distances_to_a_few_of_many_chips_are_those_of_networkx():
    graph = parse("torus:95x95")
    found = distances_to(compiled(graph), np.array([4000, 11]))
    for chip, mine in zip((4000, 11), found, strict=True):
        wanted = nx.single_source_shortest_path_length(graph, chip)
        assert {other: int(mine[other]) for other in graph} == wanted


def test_levels_cover_every_pair_once():
    graph = dragonfly(80)
    seen = sum(
        np.bitwise_count(bits).sum() for _, bits in hop_levels(compiled(graph), np.arange(80))
    )
    assert seen == 80 * 80


@pytest.mark.parametrize(("src", "dst"), [(0, 9), (9, 0), (-1, 2)])
def test_chips_that_are_not_there_have_no_route(src, dst):
    with pytest.raises(NoRoute):
        route(full(5), src, dst)
