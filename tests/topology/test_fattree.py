import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import fattree


@given(st.integers(2, 200))
@settings(max_examples=25)
def test_it_is_a_binary_tree_within_the_ports(chips):
    graph = fattree(chips)
    oracle = nx.Graph(((i - 1) // 2, i) for i in range(1, chips))
    assert set(graph.edges) == set(oracle.edges)
    assert max(sum(d["link"].count for d in near.values()) for _, near in graph.adjacency()) <= 16


def test_links_get_fatter_towards_the_root():
    graph = fattree(63)
    counts = [graph.edges[(i - 1) // 2, i]["link"].count for i in (62, 30, 14, 6, 2)]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 8
