from itertools import pairwise, permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import FAMILIES, dragonfly, full, mesh, parse, ring, route
from topology.errors import NoRoute
from topology.fabric import compiled, part_of
from topology.routes import distances_to, hop_levels, hops_within, in_one_piece, paths


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


@pytest.mark.parametrize("spec", ["mesh:5x7", "dragonfly:72", "ring:9"])
def test_hops_within_are_those_of_all_distances(spec):
    fabric = compiled(parse(spec))
    rng = np.random.default_rng(3)
    sources, targets = (rng.integers(0, fabric.chips, (40, count)) for count in (3, 5))
    found, every = hops_within(fabric, sources, targets), distances_to(fabric, fabric.alive)
    assert (found == every[sources[:, None, :], targets[:, :, None]]).all()


def test_routes_of_few_pairs_in_a_large_graph_are_those_of_each_alone():
    """Many targets: hops are made of bits, and not all written out."""
    fabric, src = compiled(dragonfly(792)), np.arange(300)
    dst = (src + 400) % fabric.chips
    found = paths(fabric, src, dst)
    each = np.split(found.edges, found.start[1:-1])
    for at in range(0, 300, 17):
        alone = paths(fabric, src[at : at + 1], dst[at : at + 1]).edges
        assert each[at].tolist() == alone.tolist()


def test_parts_are_in_one_piece_or_not():
    fabric = compiled(ring(9))
    assert in_one_piece(fabric) and in_one_piece(part_of(fabric, [8, 0, 1]))
    assert not in_one_piece(part_of(fabric, [0, 1, 4]))


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
