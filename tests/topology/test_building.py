import networkx as nx
import numpy as np
import pytest

from topology import FAMILIES, parse, ports
from topology.building import build
from topology.errors import Disconnected
from topology.links import Link, profile


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_conventions(example, family):
    graph = example(family)
    assert nx.is_frozen(graph) and nx.is_connected(graph)
    assert sorted(graph) == list(range(len(graph)))
    for _, data in graph.nodes(data=True):
        assert isinstance(data["coordinates"], tuple)
        assert all(isinstance(data[key], int) for key in ("node", "rack", "system"))
    for u, v, data in graph.edges(data=True):
        assert u != v and isinstance(data["link"], Link)
    assert graph.graph["name"] and graph.graph["profile"].name in ("ship", "lp30")


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_are_distinct_within_budget_and_match_the_cables(example, family):
    graph = example(family)
    numbered = ports(graph)
    for chip in graph:
        used = [port for group in numbered[chip].values() for port in group]
        assert len(set(used)) == len(used) <= graph.graph["port_limit"]
        assert max(used) < graph.graph["port_limit"]
        for other, group in numbered[chip].items():
            assert len(group) == len(numbered[other][chip]) == graph[chip][other]["link"].count


@pytest.mark.parametrize("spec", ["ring:7", "torus:5x4", "torus:3x3x3", "full:6", "node"])
def test_regular_graphs_use_one_port_for_one_direction(spec):
    graph = parse(spec)
    numbered = ports(graph)
    sizes = [max(c) + 1 for c in np.transpose([graph.nodes[chip]["coordinates"] for chip in graph])]

    def direction(chip, other):
        places = graph.nodes[chip]["coordinates"], graph.nodes[other]["coordinates"]
        return tuple((b - a) % size for a, b, size in zip(*places, sizes, strict=True))

    by_port = {}
    for chip in graph:
        for other, (port,) in numbered[chip].items():
            by_port.setdefault(port, set()).add(direction(chip, other))
    assert all(len(directions) == 1 for directions in by_port.values())


def test_a_disconnected_graph_is_refused():
    with pytest.raises(Disconnected) as caught:
        build(
            "two", profile(), [(0,), (1,), (2,), (3,)], [(0, 1, 1, "", None), (2, 3, 1, "", None)]
        )
    assert (caught.value.chip, caught.value.unreachable) == (0, 2)
