import numpy as np
import pytest

from topology import FAMILIES, torus
from topology.errors import NoRoute
from topology.fabric import compiled


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arrays_say_what_the_graph_says(example, family):
    graph = example(family)
    fabric = compiled(graph)
    assert len(fabric.tail) == 2 * graph.size()
    assert fabric.channels == 2 * sum(d["link"].count for *_, d in graph.edges(data=True))
    picked = np.random.default_rng(0).integers(0, len(fabric.tail), 50)
    for edge in picked.tolist():
        u, v = int(fabric.tail[edge]), int(fabric.head[edge])
        link = graph.edges[u, v]["link"]
        assert fabric.edge(u, v) == edge == fabric.edges_between(np.array([u]), np.array([v]))[0]
        assert fabric.latency_cycles[edge] == link.latency_cycles
        assert fabric.paces[fabric.pace[edge]] == link.cycles_per_vector
        assert fabric.cables[edge] == link.count
        assert fabric.channel_edge[fabric.first_channel[edge]] == edge


def test_frozen_graphs_are_compiled_once_and_copies_anew():
    graph = torus((3, 3))
    assert compiled(graph) is compiled(graph)
    thawed = graph.copy()
    thawed.remove_edge(0, 1)
    assert len(compiled(thawed).tail) == len(compiled(graph).tail) - 2


def test_missing_links_are_named():
    fabric = compiled(torus((4, 4)))
    with pytest.raises(NoRoute):
        fabric.edge(0, 10)
    assert fabric.edges_between(np.array([0]), np.array([10])).tolist() == [-1]
