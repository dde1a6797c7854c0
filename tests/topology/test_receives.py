import numpy as np
import pytest

from topology import node, parse
from topology.clocks import ClockSpec, clock_plan
from topology.errors import MarginExceeded
from topology.receives import Oscillators, Receives

NODE = node()
PLAN = clock_plan(NODE)


def vectors(count: int = 4000, since: int | None = None, seed: int = 1) -> Receives:
    """Vectors between random chips of a node, up to an interval after their deskews."""
    rng = np.random.default_rng(seed)
    src = rng.integers(0, 8, count)
    dst = (src + rng.integers(1, 8, count)) % 8
    longest = PLAN.runtime_deskew_interval_cycles
    ages = [rng.integers(0, longest, count) if since is None else np.full(count, since)] * 2
    return Receives(src, dst, np.arange(count), *ages)


@pytest.mark.parametrize("seed", range(5))
def test_inside_the_margin_no_seed_misses(seed):
    clocks = Oscillators(NODE, PLAN, seed)
    for launch in range(20):
        clocks.check(vectors(seed=launch))
    assert clocks.checked == 80_000
    assert 0 < clocks.worst_slip_cycles <= PLAN.spec.margin_cycles
    assert NODE.has_edge(*clocks.worst_link)


@pytest.mark.parametrize("excess", [{"drift_ppm": 300.0}, {"jitter_std_cycles": 9.0}])
def test_beyond_it_the_link_and_the_cycle_are_named(excess):
    with pytest.raises(MarginExceeded) as caught:
        Oscillators(NODE, PLAN, **excess).check(received := vectors())
    at = caught.value.cycle
    assert (caught.value.src, caught.value.dst) == (received.src[at], received.dst[at])
    assert caught.value.slip_cycles >= 1


@pytest.mark.parametrize("seed", range(3))
def test_the_slip_is_what_oscillators_jitter_and_alignment_make_of_it(seed):
    """Without drift and jitter only the alignment is left; drift adds its rate times the age."""
    still = Oscillators(NODE, PLAN, seed, drift_ppm=0, jitter_std_cycles=0)
    received = vectors(since=50_000)
    still.check(received)
    error = still._error[received.src] - still._error[received.dst] + 0.5
    assert still.worst_slip_cycles == pytest.approx(error.max())
    moving = Oscillators(NODE, PLAN, seed, drift_ppm=40, jitter_std_cycles=0)
    moving.check(received)
    rate = moving._rate[received.dst] - moving._rate[received.src]
    assert moving.worst_slip_cycles == pytest.approx((error + 50_000 * rate).max())
    assert rate.max() == pytest.approx(80e-6) and np.abs(moving._rate).max() <= 40e-6


def test_a_fresh_deskew_forgives_any_drift():
    Oscillators(NODE, PLAN, drift_ppm=50_000).check(vectors(since=0))


def test_nothing_crosses_nothing_misses():
    clocks = Oscillators(NODE, PLAN, drift_ppm=1e6)
    clocks.check(vectors(0))
    assert clocks.checked == 0


def test_a_part_of_a_graph_has_clocks_of_its_own():
    part = parse("ring:8").subgraph([2, 3, 4])
    plan = clock_plan(part, ClockSpec(drift_ppm=10))
    assert (plan.root, plan.height) == (3, 1)
    one, two = np.array([2]), np.array([3])
    Oscillators(part, plan).check(Receives(one, two, one, one, one))
