import networkx as nx
import pytest

from topology import dragonfly, node, parse
from topology.clocks import ClockSpec, clock_plan, spanning_tree_depths, startup_epochs, tree_root
from topology.fabric import compiled, part_of


@pytest.mark.parametrize("height", [1, 3, 5])
@pytest.mark.parametrize("latency", [1, 217, 251, 252, 253, 650])
@pytest.mark.parametrize("period", [252, 100])
def test_v14_start_up_takes_the_published_epochs(height, latency, period):
    """ISCA'22: (floor(L / P) + 1) * h epochs."""
    assert startup_epochs(latency, period, height) == (latency // period + 1) * height


@pytest.mark.parametrize(("spec", "height"), [("node", 1), ("dragonfly:264", 3), ("ring:9", 4)])
def test_the_tree_is_as_low_as_the_graph_s_radius(spec, height):
    assert clock_plan(parse(spec)).height == height


def test_the_margin_is_shared_out_whole():
    plan = clock_plan(dragonfly(264))
    parts = plan.jitter_cycles + plan.alignment_cycles + plan.drift_cycles
    assert parts == plan.spec.margin_cycles
    drifted = 2 * plan.spec.drift_ppm * 1e-6 * plan.runtime_deskew_interval_cycles
    assert drifted <= plan.drift_cycles < drifted + 1
    assert plan.startup_cycles == plan.startup_epochs * 252


def test_more_drift_means_more_frequent_deskew():
    fast = clock_plan(node(), ClockSpec(drift_ppm=100))
    slow = clock_plan(node(), ClockSpec(drift_ppm=50))
    assert fast.runtime_deskew_interval_cycles < slow.runtime_deskew_interval_cycles
    assert clock_plan(node(), ClockSpec(drift_ppm=0)).overhead < 1e-9


def test_depths_are_distances_from_the_root():
    root, depth = spanning_tree_depths(parse("mesh:5"))
    assert (root, depth.tolist()) == (2, [2, 1, 0, 1, 2])


@pytest.mark.parametrize("spec", ["ring:9", "mesh:7x9", "torus:9x10", "dragonfly:264", "lpx:144"])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_the_root_is_the_first_of_the_chips_nearest_to_all(spec, share):
    graph = parse(spec)
    chips = sorted(graph)[: int(len(graph) * share)]
    away = nx.eccentricity(graph.subgraph(chips))
    root = min(chips, key=lambda chip: (away[chip], chip))
    assert tree_root(part_of(compiled(graph), chips)) == (root, away[root])
