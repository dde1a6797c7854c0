import dataclasses
import json
from fractions import Fraction

import networkx as nx
import pytest
from click.testing import CliRunner

from cluster.cli import lpu
from topology import TopologyError, all_reduce, facts, parse
from topology.errors import BadFile, BadSpec, Disconnected, PortsExceeded
from topology.families import files
from topology.links import Link


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
        ("<?xml version='1.0' encoding='u-f-8'?><graphml/>", BadFile),
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


def graphml(tmp_path, edges, directed=False):
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_edges_from(edges)
    path = tmp_path / "mine.graphml"
    nx.write_graphml(graph, path)
    return f"file:{path}"


@pytest.mark.parametrize(
    ("edges", "directed", "message"),
    [
        ([(0, 1, {"latency_cycle": 5})], False, "'latency_cycle'; did you mean 'latency_cycles'"),
        ([(0, 1, {"bandwidth": 5})], False, "unknown attribute 'bandwidth'; known are"),
        ([(0, 1, {"count": 1}), (1, 0, {"count": 2})], True, "links 0->1 and 1->0 differ"),
    ],
)
def test_no_attribute_and_no_direction_is_ignored(edges, directed, message, tmp_path):
    with pytest.raises(BadFile, match=message):
        parse(graphml(tmp_path, edges, directed))
    (tmp_path / "nodes.json").write_text('{"nodes": [{"id": 0, "rak": 1}, {"id": 1}], "links": []}')
    with pytest.raises(BadFile, match="did you mean 'rack'"):
        parse(f"file:{tmp_path / 'nodes.json'}")


def test_what_editors_of_graphs_write_is_harmless_and_equal_directions_are_one_cable(tmp_path):
    edges = [(0, 1, {"weight": 2.0, "label": "a"}), (1, 2, {"id": "e7"}), (2, 1, {"id": "e8"})]
    graph = parse(graphml(tmp_path, edges, directed=True))
    assert sorted(graph.edges) == [(0, 1), (1, 2)]


def test_the_summary_shows_the_links_of_the_file_and_not_of_the_profile(tmp_path):
    edges = [(0, 1, {"latency_cycles": 500}), (1, 2, {"latency_cycles": 500})]
    shown = CliRunner().invoke(lpu, ["topology", graphml(tmp_path, edges), "--json"])
    assert json.loads(shown.stdout)["link"]["latency_cycles"] == 500
    edges[0][2]["latency_cycles"] = 300
    shown = CliRunner().invoke(lpu, ["topology", graphml(tmp_path, edges)])
    assert "300 to 500 cycles per hop" in shown.stdout


def test_graphs_of_two_chips_have_a_bisection_and_large_ones_are_quick_or_refused():
    assert facts(parse("ring:2")).bisection_cables == 1
    assert facts(parse("ring:1500")).diameter_hops == 750
    with pytest.raises(BadSpec, match="take too long"):
        facts(parse("ring:60000"))
    for spec in ("ring:1000000", "torus:1000x1000"):
        with pytest.raises(BadSpec, match="65,536"):
            parse(spec)


def test_every_attribute_of_a_file_is_used_harmless_or_refused_by_name(tmp_path):
    """Used are the fields of a Link, which differ then, and where a chip is."""
    usual = parse(graphml(tmp_path, [(0, 1, {})])).edges[0, 1]["link"]
    values = {"kind": "mine", "source": "mine", "cycles_per_vector": "7/2"}
    values |= {"bytes_per_vector_wire": 400, "payload_bytes": 300}
    for field in dataclasses.fields(Link):
        value = values.get(field.name, 3)
        link = parse(graphml(tmp_path, [(0, 1, {field.name: value})])).edges[0, 1]["link"]
        assert getattr(link, field.name) != getattr(usual, field.name), field.name
    for name in files.HARMLESS - {"id", "key", "name"}:
        assert parse(graphml(tmp_path, [(0, 1, {name: "5"})])).edges[0, 1]["link"] == usual
    for name in [f"{field.name}_" for field in dataclasses.fields(Link)]:
        with pytest.raises(BadFile, match=f"unknown attribute '{name}'"):
            parse(graphml(tmp_path, [(0, 1, {name: 3})]))
    path = tmp_path / "nodes.json"
    for name, value in {"node": 2, "rack": 1, "system": 1, "coordinates": "4,5"}.items():
        nodes = [{"id": 0, name: value}, {"id": 1}]
        path.write_text(json.dumps({"nodes": nodes, "links": [{"source": 0, "target": 1}]}))
        wanted = (4, 5) if name == "coordinates" else value
        assert parse(f"file:{path}").nodes[0][name] == wanted
