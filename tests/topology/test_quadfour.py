import networkx as nx
import pytest

from topology import parse, quadfour
from topology.faults import apply


@pytest.mark.parametrize("chips", [72, 80, 136, 576])
def test_each_node_has_four_cables_to_four_nodes_each_way(chips):
    """SHIP: 32 external links per node, 4 forward and 4 backward neighbours."""
    graph, nodes = quadfour(chips), chips // 8
    reached = {}
    for u, v, data in graph.edges(data=True):
        a, b = u // 8, v // 8
        if a != b:
            reached[a, (b - a) % nodes] = data["link"].count
            reached[b, (a - b) % nodes] = data["link"].count
    near = {offset % nodes for offset in (1, 2, 3, 4, -1, -2, -3, -4)}
    assert reached == {(a, offset): 4 for a in range(nodes) for offset in near}


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("dead", [1, 2, 3])
def test_up_to_three_consecutive_dead_nodes_do_not_cut_it(first, dead):
    damage = apply(quadfour(136), [f"node:{first + i}" for i in range(dead)])
    assert damage.unreachable == () and len(damage.graph) == 136 - 8 * dead
    assert nx.is_connected(damage.graph)


def test_a_long_line_survives_three_but_two_gaps_of_four_cut_it():
    graph = parse("quadfour:160")
    gaps = [f"node:{i}" for i in (2, 3, 4, 5, 12, 13, 14, 15)]
    assert apply(graph, gaps).unreachable != ()
