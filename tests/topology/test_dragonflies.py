from collections import Counter

import networkx as nx
import pytest

from topology import dragonfly, rack
from topology.errors import TopologyError


def cables_between(graph, label):
    """Count cables by the pair of nodes or racks that they join."""
    of = nx.get_node_attributes(graph, label)
    pairs = Counter()
    for u, v, data in graph.edges(data=True):
        pairs[frozenset((of[u], of[v]))] += data["link"].count
    return pairs


def test_a_rack_is_nine_doubly_connected_nodes_with_144_ports_left():
    """ISCA'22: 72 TSPs; 144 of 288 global ports stay inside, 144 leave."""
    graph = rack()
    pairs = cables_between(graph, "node")
    between = [count for pair, count in pairs.items() if len(pair) == 2]
    assert len(graph) == 72 and between == [2] * 36
    inside = sum(between) * 2
    leaving = 72 * 11 - 2 * sum(d["link"].count for *_, d in graph.edges(data=True))
    assert (inside, leaving) == (144, 144)


@pytest.mark.parametrize(("nodes", "each"), [(2, 32), (3, 16), (9, 4), (17, 2), (18, 1), (33, 1)])
def test_one_level_is_all_to_all_between_nodes(nodes, each):
    pairs = cables_between(dragonfly(8 * nodes), "node")
    between = [count for pair, count in pairs.items() if len(pair) == 2]
    assert between == [each] * (nodes * (nodes - 1) // 2)


def test_264_chips_use_every_port_and_need_three_hops():
    """ISCA'22: 33 nodes = 264 TSPs, at most 3 hops."""
    graph = dragonfly(264)
    assert set(dict(graph.degree).values()) == {11}
    assert nx.diameter(graph) == 3


@pytest.mark.parametrize("chips", [272, 576, 656, 1000])
def test_two_levels_join_all_racks_and_the_last_may_be_partial(chips):
    graph = dragonfly(chips)
    racks = -(-chips // 72)
    pairs = cables_between(graph, "rack")
    assert len(graph) == chips
    assert sum(len(pair) == 2 for pair in pairs) == racks * (racks - 1) // 2
    inside = cables_between(graph, "node")
    of = nx.get_node_attributes(graph, "node")
    same_rack = [c for p, c in inside.items() if len(p) == 2 and len({n // 9 for n in p}) == 1]
    assert set(same_rack) == {2} and len(set(of.values())) == chips // 8


def test_145_racks_use_every_port_and_one_cable_joins_any_two():
    """ISCA'22: 145 racks = 10,440 TSPs."""
    graph = dragonfly(10_440)
    degrees = Counter()
    for _, near in graph.adjacency():
        degrees[sum(data["link"].count for data in near.values())] += 1
    assert degrees == {11: 10_440}
    between = [count for pair, count in cables_between(graph, "rack").items() if len(pair) == 2]
    assert between == [1] * (145 * 144 // 2)


@pytest.mark.parametrize("chips", [8, 12, 265, 10_448])
def test_other_sizes_are_refused(chips):
    with pytest.raises((TopologyError, ValueError)):
        dragonfly(chips)
