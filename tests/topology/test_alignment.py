import numpy as np
import pytest

from topology import dragonfly, node
from topology.alignment import align, characterise, simulate
from topology.clocks import ClockSpec, clock_plan
from topology.errors import MarginExceeded


def test_v13_link_latency_has_the_published_spread():
    """ISCA'22 Table 2: mean 216.3-217.4, min 209-211, max 225-228, std 2.6-2.9 (15 %)."""
    for link in range(7):
        found = characterise(ClockSpec(), link, 100_000, seed=2)
        assert 216.27 * 0.995 <= found.mean <= 217.35 * 1.005
        assert 209 <= found.minimum <= 211 and 225 <= found.maximum <= 228
        assert 2.63 * 0.85 <= found.std <= 2.93 * 1.15


def test_counters_are_aligned_within_what_the_plan_holds():
    graph = dragonfly(264)
    plan = clock_plan(graph)
    for seed in range(5):
        found = align(graph, plan.spec, seed)
        apart = [abs(found.error_cycles[u] - found.error_cycles[v]) for u, v in graph.edges]
        assert found.root == plan.root and max(apart) + 0.5 <= plan.alignment_cycles
        # Nobody moves more than half a period, a level after the other.
        assert found.epochs <= plan.height * plan.spec.hac_period_cycles / 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_hour_passes_without_a_miss_whatever_the_seed(seed):
    graph = node()
    hour = simulate(graph, clock_plan(graph), seed=seed)
    assert hour.seconds == 3600 and hour.slack_cycles >= 0
    assert hour.receives_checked == 3600 * 56
    assert hour.worst_link in {(u, v) for u in range(8) for v in range(8) if u != v}


@pytest.mark.parametrize("excess", [{"drift_ppm": 200.0}, {"jitter_std_cycles": 8.0}])
def test_too_much_drift_or_jitter_names_the_link(excess):
    graph = dragonfly(72)
    with pytest.raises(MarginExceeded) as caught:
        simulate(graph, clock_plan(graph), seconds=600, **excess)
    assert graph.has_edge(caught.value.src, caught.value.dst)
    assert caught.value.slip_cycles > 0


def test_the_same_seed_gives_the_same_hour():
    graph = node()
    plan = clock_plan(graph)
    assert simulate(graph, plan, seed=7, seconds=50) == simulate(graph, plan, seed=7, seconds=50)
    first, again = align(graph, plan.spec, 3), align(graph, plan.spec, 3)
    np.testing.assert_array_equal(first.error_cycles, again.error_cycles)
