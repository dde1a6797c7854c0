import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import full, node, parse, random, ring


@given(st.integers(3, 40))
@settings(max_examples=15)
def test_a_ring_is_a_cycle(chips):
    assert nx.is_isomorphic(ring(chips), nx.cycle_graph(chips))


def test_a_ring_of_two_is_one_cable():
    assert list(ring(2).edges) == [(0, 1)] and ring(2).edges[0, 1]["link"].count == 1


@given(st.integers(2, 17))
@settings(max_examples=10)
def test_full_is_complete(chips):
    assert nx.is_isomorphic(full(chips), nx.complete_graph(chips))


def test_a_node_is_eight_chips_with_28_cables():
    """ISCA'22: 8 TSPs all-to-all, 7 local links each."""
    graph = node()
    assert len(graph) == 8 and graph.size() == 28
    assert set(dict(graph.degree).values()) == {7}


@pytest.mark.parametrize(("chips", "degree"), [(10, 3), (64, 6), (9, 2), (7, 4)])
def test_random_is_regular_connected_and_repeatable(chips, degree):
    graph = random(chips, degree, 5)
    assert set(dict(graph.degree).values()) == {degree} and nx.is_connected(graph)
    assert set(graph.edges) == set(random(chips, degree, 5).edges)
    assert set(graph.edges) != set(random(chips, degree, 6).edges)
    assert set(parse(f"random:{chips}:{degree}:seed").edges) == set(
        random(chips, degree, "seed").edges
    )
