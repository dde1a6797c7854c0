import networkx as nx
import pytest

from topology import lpx


@pytest.mark.parametrize(("chips", "lanes"), [(16, 60), (32, 62), (256, 90), (512, 94), (1024, 93)])
def test_lanes_per_chip_follow_the_analysts_budget(chips, lanes):
    """60 lanes inside the tray, 30 inside the rack, up to 4 between racks."""
    graph = lpx(chips)
    used = {sum(d["link"].count for d in near.values()) for _, near in graph.adjacency()}
    assert used == {lanes} and len(graph) == chips


@pytest.mark.parametrize(("chips", "hops"), [(16, 1), (256, 2), (1024, 3)])
def test_a_level_of_packaging_is_a_hop(chips, hops):
    assert max(nx.single_source_shortest_path_length(lpx(chips), 0).values()) == hops
