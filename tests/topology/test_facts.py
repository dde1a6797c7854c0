import networkx as nx
import pytest

from topology import FAMILIES, facts, parse
from topology.links import SRAM_BYTES_V1

SMALL = ["ring:9", "torus:4x5", "mesh:3x4", "hypercube:4", "dragonfly:40", "fattree:20", "lpx:32"]


@pytest.mark.parametrize("spec", SMALL)
def test_distances_agree_with_networkx(spec):
    graph = parse(spec)
    found = facts(graph)
    assert found.diameter_hops == nx.diameter(graph)
    assert found.mean_hops == pytest.approx(nx.average_shortest_path_length(graph))
    assert sum(found.hop_histogram) == len(graph) * (len(graph) - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_facts(example, family):
    graph = example(family)
    found = facts(graph)
    assert found.chips == len(graph) and found.links == graph.size()
    assert found.sram_bytes == len(graph) * graph.graph["profile"].sram_bytes
    assert found.bisection_bytes_per_s > 0 and found.max_latency_s > 0
    assert found.ports_max <= graph.graph["port_limit"]


def test_the_farthest_pair_counts_slow_links(user_graph):
    graph = parse(f"file:{user_graph}")
    weighted = nx.Graph(graph)
    for _, _, data in weighted.edges(data=True):
        data["weight"] = data["link"].latency_cycles
    oracle = max(max(d.values()) for _, d in nx.all_pairs_dijkstra_path_length(weighted))
    assert facts(graph).max_latency_s * 900e6 == pytest.approx(oracle)


def test_sram_of_a_chip_is_220_mib():
    """ISCA'20: 88 slices x 20 tiles x 8,192 words x 16 B."""
    assert SRAM_BYTES_V1 == 220 * 2**20
