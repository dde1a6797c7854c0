import pytest

from topology import collective, parse
from topology.collectives import OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_two_chips_reach_the_bound(operation):
    timed = collective(operation, parse("ring:2"), 320 * 64)
    assert timed.cycles == pytest.approx(timed.lower_bound_cycles, abs=270)


def test_the_bound_has_a_latency_and_a_bandwidth_side():
    graph = parse("ring:16")
    assert collective("all_reduce", graph, 320).lower_bound_cycles == 8 * 270
    large = collective("broadcast", graph, 320 * 20_001)
    assert large.lower_bound_cycles == 270 + 10_000 * 27


def test_shares_that_are_empty_because_units_are_whole_need_no_way():
    """Two units of five vectors among five ranks: the two that are farthest apart do not talk."""
    chips = (5, 0, 3, 1, 4)
    timed = collective("all_gather", parse("mesh:2x3"), 2000, "tiled", chips, unit_vectors=5)
    assert timed.lower_bound_cycles <= timed.cycles == 648
