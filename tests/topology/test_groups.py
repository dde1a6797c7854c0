from collections import Counter

import networkx as nx
import pytest

from topology import groups, ports
from topology.clocks import tree_root
from topology.fabric import compiled

SIZES = [(62, 96, 1), (61, 128, 1), (3, 40, 3), (2, 16, 15)]


@pytest.mark.parametrize(("count", "size", "each"), SIZES)
def test_nodes_of_a_group_are_all_to_all_and_chips_lead_to_the_groups_beside(count, size, each):
    graph, nodes = groups(count * size, size), size // 8
    inside, beside = Counter(), Counter()
    for u, v, data in graph.edges(data=True):
        if u // size == v // size:
            inside[u // 8, v // 8] += data["link"].count
        elif u % size == v % size:
            beside[u // size, v // size] += data["link"].count
    between = {pair: cables for pair, cables in inside.items() if len({*pair}) == 2}
    assert len(between) == count * nodes * (nodes - 1) // 2 and {*between.values()} == {each}
    assert len(beside) == (count if count > 2 else 1) and {*beside.values()} == {size}
    assert max(dict(graph.degree).values()) <= 11


def test_groups_are_cabled_alike():
    graph = groups(61 * 128, 128)

    def cabled(first):
        """Neighbours of the chips of a group inside it, by ports."""
        own = range(first, first + 128)
        found = ((u, v, ports(graph)[u][v]) for u in own for v in graph[u] if v in own)
        return {(u - first, v - first, mine) for u, v, mine in found}

    assert cabled(0) == cabled(128) == cabled(60 * 128)


def test_clocks_of_a_long_ring_are_few_links_apart():
    """Half of a ring of 61 groups would be 30 links."""
    graph = groups(61 * 128, 128)
    _, height = tree_root(compiled(graph))
    assert height < 15
    assert nx.get_node_attributes(graph, "rack")[128] == 1


@pytest.mark.parametrize(
    ("chips", "size", "rule"),
    [
        (7808, 100, "whole nodes of 8"),
        (7808, 136, "from 16 chips to 128"),
        (7800, 128, "chips come in groups of 128"),
        (128, 128, "two at least"),
    ],
)
def test_other_groups_are_refused(chips, size, rule):
    with pytest.raises(ValueError, match=rule):
        groups(chips, size)
