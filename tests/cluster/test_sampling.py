import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadValue, ClusterError
from cluster.generation.sampling import Sampling, exp_nonpositive, greedy, sample, uniform

logit_rows = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40).map(np.float32)


def test_greedy_takes_the_lowest_id_of_equal_logits():
    assert greedy(np.array([1.0, 7.0, 7.0, 2.0])) == 1


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf, 0.0]])
def test_logits_that_are_no_finite_row_are_refused(bad):
    with pytest.raises(ClusterError):
        greedy(np.array(bad))
    with pytest.raises(ClusterError):
        sample(np.array(bad), 1.0, 1.0, 0.5)


@given(logit_rows)
def test_a_tiny_top_p_or_temperature_is_greedy(logits):
    best = greedy(logits)
    assert sample(logits, 1.0, 1e-9, 0.999) == best
    assert logits[sample(logits, 1e-300, 1.0, 0.999)] == logits[best]


@given(logit_rows, st.floats(0.1, 5), st.floats(0.01, 1), st.floats(0, 1, exclude_max=True))
def test_a_sample_is_inside_the_likeliest_mass(logits, temperature, top_p, draw):
    token = sample(logits, temperature, top_p, draw)
    weight = np.exp((logits.astype(float) - logits.max()) / temperature)
    likelier = weight[logits > logits[token]].sum() / weight.sum()
    assert likelier <= top_p + 1e-9


def test_frequencies_follow_the_softmax():
    logits = np.log(np.array([0.5, 0.2, 0.3]))
    draws = [sample(logits, 1.0, 1.0, uniform(7, step)) for step in range(4000)]
    assert np.bincount(draws) / 4000 == pytest.approx([0.5, 0.2, 0.3], abs=0.03)


def test_a_pick_depends_on_seed_and_step_only():
    logits = np.zeros(1000)
    sampling = Sampling(temperature=1.0, seed=3)
    picks = [sampling.pick(logits, step) for step in range(8)]
    assert picks == [sampling.pick(logits, step) for step in range(8)]
    assert len(set(picks)) > 4
    assert picks != [Sampling(temperature=1.0, seed=4).pick(logits, step) for step in range(8)]


def test_zero_temperature_is_greedy():
    assert Sampling().pick(np.array([0.0, 3.0, 3.0]), step=0) == 1


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1}, {"temperature": math.nan}, {"top_p": 0}, {"top_p": 1.1}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(BadValue):
        Sampling(**bad)


def test_our_exp_is_within_two_ulp():
    x = -np.concatenate([np.linspace(0, 700, 20001), np.geomspace(1e-20, 1, 1000)])
    exact = np.array([math.exp(value) for value in x])
    assert np.all(np.abs(exp_nonpositive(x) - exact) <= 2 * np.spacing(exact))
    assert exp_nonpositive(np.array([-701.0, -np.inf])).tolist() == [0.0, 0.0]
