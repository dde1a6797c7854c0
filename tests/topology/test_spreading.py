from itertools import pairwise

import networkx as nx
import pytest

from topology import crossover_bytes, disjoint_paths, node, parse, point_to_point, spread
from topology.errors import NoRoute


@pytest.mark.parametrize("spec", ["node", "torus:4x4", "quadfour:72", "fattree:15", "hyperx:3x3"])
def test_paths_share_no_cable_and_start_with_the_minimal_one(spec):
    graph = parse(spec)
    paths = disjoint_paths(graph, 0, len(graph) - 1)
    used = [frozenset(hop) for path in paths for hop in pairwise(path)]
    assert all(used.count(hop) <= graph.edges[tuple(hop)]["link"].count for hop in used)
    assert len(paths[0]) - 1 == nx.shortest_path_length(graph, 0, len(graph) - 1)
    assert [len(p) for p in paths] == sorted(len(p) for p in paths)


def test_a_node_offers_seven_paths():
    """ISCA'22: one direct link and detours over the six other chips."""
    assert sorted(map(len, disjoint_paths(node(), 0, 5))) == [2, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("profile", ["isca22", "ship"])
def test_the_crossover_is_where_spreading_starts_to_help(profile):
    graph = node(profile)
    at = crossover_bytes(graph, 0, 5)

    def cycles(num_bytes, algorithm):
        return point_to_point(graph, 0, 5, num_bytes, algorithm).cycles

    assert cycles(at, "spread") < cycles(at, "direct")
    for num_bytes in range(320, at, 320):
        assert cycles(num_bytes, "spread") == cycles(num_bytes, "direct")


def test_no_other_split_finishes_earlier():
    graph = node()
    shares = spread(graph, 0, 1, 100)
    assert sum(share.vectors for share in shares) == 100
    finish = [share.latency_cycles + (share.vectors - 1) * 27 for share in shares]
    # Moving the last vector of the last path to any other would only end later.
    assert max(finish) <= min(finish) + 27


def test_missing_chips_are_refused():
    with pytest.raises(NoRoute):
        disjoint_paths(node(), 0, 8)
