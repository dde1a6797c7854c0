from dataclasses import replace

import numpy as np
import pytest

from topology import dragonfly, parse
from topology.errors import LinkConflict
from topology.traffic import schedule


@pytest.mark.parametrize("spec", ["dragonfly:72", "torus:4x4", "quadfour:72", "fattree:15"])
def test_random_packets_make_a_conflict_free_schedule_near_the_bound(spec):
    graph = parse(spec)
    rng = np.random.default_rng(3)
    src, dst = rng.integers(0, len(graph), (2, 2000))
    timed = schedule(graph, src, dst, rng.integers(1, 20, 2000))
    timed.check()
    assert timed.lower_bound_cycles <= timed.cycles <= 2 * timed.lower_bound_cycles + 5000
    assert (timed.arrival_cycle[src == dst] == timed.start_cycle[src == dst]).all()


def test_gaps_are_filled():
    graph = parse("mesh:4")
    # The long packet leaves a gap on the last cable that the short one fits into.
    timed = schedule(graph, np.array([0, 2]), np.array([3, 3]), np.array([4, 4]))
    assert timed.start_cycle.tolist() == [0, 0]


def test_a_broken_schedule_is_noticed():
    graph = dragonfly(16)
    timed = schedule(graph, np.array([0, 0]), np.array([1, 1]), np.array([5, 5]))
    with pytest.raises(LinkConflict, match="packet"):
        replace(timed, departs=np.zeros_like(timed.departs)).check()
