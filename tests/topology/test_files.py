import json
from fractions import Fraction

import networkx as nx
import pytest

from topology import TopologyError, all_reduce, parse
from topology.errors import BadFile, Disconnected, PortsExceeded


def test_graphml_keeps_shape_names_and_link_fields(user_graph):
    graph = parse(f"file:{user_graph}")
    assert nx.is_isomorphic(graph, nx.petersen_graph())
    assert graph.nodes[3]["label"] == "chip-3"
    assert graph.edges[0, 1]["link"].latency_cycles == 400
    assert graph.edges[0, 1]["link"].cycles_per_vector == Fraction(81, 2)
    assert graph.edges[2, 3]["link"].count == 2
    assert graph.edges[0, 4]["link"].latency_cycles == 270


def test_json_as_a_list_of_links_or_as_node_link_data(tmp_path):
    short, long = tmp_path / "short.json", tmp_path / "long.json"
    short.write_text(
        json.dumps({"links": [[0, 1], [1, 2, {"latency_cycles": 300}], [2, 0], [0, 1]]})
    )
    graph = parse(f"file:{short}")
    assert graph.edges[0, 1]["link"].count == 2 and graph.edges[1, 2]["link"].latency_cycles == 300
    long.write_text(json.dumps(nx.node_link_data(nx.cycle_graph(5), edges="links")))
    assert nx.is_isomorphic(parse(f"file:{long}"), nx.cycle_graph(5))


def test_a_directed_file_means_full_duplex_cables(tmp_path):
    path = tmp_path / "directed.graphml"
    nx.write_graphml(nx.DiGraph([(0, 1), (1, 0), (1, 2)]), path)
    graph = parse(f"file:{path}")
    assert sorted(graph.edges) == [(0, 1), (1, 2)]
    assert graph.edges[0, 1]["link"].count == 1


def test_files_can_be_used_like_any_other_graph(user_graph):
    timed = all_reduce(parse(f"file:{user_graph}"), 10_000)
    timed.check()
    assert timed.cycles >= timed.lower_bound_cycles


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("not xml", BadFile),
        ("<graphml></graphml>", BadFile),
        ({"links": [[0, 0], [0, 1]]}, BadFile),
        ({"links": [[0, 1], [2, 3]]}, Disconnected),
        ({"links": [[0, i] for i in range(1, 19)]}, PortsExceeded),
        ({"links": [[0, 1, {"latency_cycles": -4}]]}, BadFile),
        ({"links": [[0, 1, {"latency_cycles": 1.5}]]}, BadFile),
        ({"links": [[0, 1, {"cycles_per_vector": "0"}]]}, BadFile),
        ({"links": [[0]]}, BadFile),
        ({"edges": 4}, BadFile),
        ([], BadFile),
    ],
)
def test_broken_files_give_one_line(tmp_path, text, error):
    path = tmp_path / ("x.graphml" if isinstance(text, str) else "x.json")
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(error) as caught:
        parse(f"file:{path}")
    assert isinstance(caught.value, TopologyError) and "\n" not in str(caught.value)
