import networkx as nx
import pytest

from topology import all_reduce, fattree, parse, ports, rack, route, torus
from topology.errors import BadFault, NoRoute
from topology.faults import apply, remap


def test_a_dead_link_is_routed_around_and_accounted_for():
    graph = torus((4, 4))
    damage = apply(graph, "link:0-1")
    assert route(damage.graph, 0, 1) != (0, 1) and len(route(damage.graph, 0, 1)) == 4
    assert damage.dead_cables == 1 and damage.unreachable == ()
    assert damage.lost_bytes_per_s == pytest.approx(320 * 900e6 / 27)


def test_ids_and_port_numbers_stay():
    graph = torus((4, 4))
    before, after = ports(graph), ports(apply(graph, "chip:5,link:0-1").graph)
    assert 5 not in after
    for chip, group in after.items():
        assert all(before[chip][other] == numbers for other, numbers in group.items())


def test_one_of_parallel_cables_can_die():
    graph = fattree(15)
    damage = apply(graph, "link:0-1:2")
    assert damage.graph.edges[0, 1]["link"].count == graph.edges[0, 1]["link"].count - 2


def test_dead_nodes_lose_their_chips_and_collectives_still_work(verify):
    damage = apply(parse("quadfour:136"), "node:3,node:4,node:5")
    assert damage.dead_chips == tuple(range(24, 48))
    verify(all_reduce(damage.graph, 5000, chips=range(0, 136, 17)[:2]))
    verify(all_reduce(damage.graph, 5000, "tree", chips=[0, 20, 50, 100]))
    with pytest.raises(NoRoute):
        all_reduce(damage.graph, 5000, chips=[0, 30])


def test_what_is_cut_off_is_reported():
    damage = apply(parse("mesh:6"), "link:1-2")
    assert damage.unreachable == (0, 1) and sorted(damage.graph) == [2, 3, 4, 5]


@pytest.mark.parametrize("what", ["links:5:1", "chips:3:1", "nodes:2:1"])
def test_seeded_faults_are_repeatable(what):
    first, again = (apply(parse("dragonfly:72"), what, whole=False) for _ in range(2))
    other = apply(parse("dragonfly:72"), what[:-1] + "2", whole=False)
    assert set(first.graph.edges) == set(again.graph.edges) != set(other.graph.edges)


@pytest.mark.parametrize("text", ["link:0-9", "link:0", "chip:99", "node:7", "core:1", "chip:x",
                                  "links:999", "link:0-1:2", "chips:8"])  # fmt: skip
def test_faults_that_name_nothing_are_refused(text):
    with pytest.raises(BadFault):
        apply(parse("node"), text)


def test_a_spare_node_takes_the_place_of_a_dead_one():
    """ISCA'22: N + 1 nodes, one of nine is the spare."""
    graph = rack()
    moved = remap(graph, dead_node=2, spare_node=8)
    assert len(moved) == 64 and len(set(moved.values())) == 64
    assert [moved[chip] for chip in range(16, 24)] == list(range(64, 72))
    alive = apply(graph, "node:2").graph
    assert set(moved.values()) <= set(alive) and nx.is_connected(alive)
    with pytest.raises(BadFault):
        remap(graph, 2, 9)
