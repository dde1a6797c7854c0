from dataclasses import replace

import numpy as np
import pytest

from topology import all_reduce, collective, execute, parse
from topology.errors import CausalityError


def test_a_sum_of_floats_that_is_exact_is_equal_to_the_bit():
    timed = all_reduce(parse("node"), 320 * 40)
    inputs = np.random.default_rng(0).integers(-999, 999, (8, 40, 80)).astype(np.float32)
    np.testing.assert_array_equal(execute(timed, inputs)[3], inputs.sum(axis=0))


def test_only_the_root_s_data_counts_in_a_broadcast():
    timed = collective("broadcast", parse("ring:5"), 3200, root=2)
    inputs = np.arange(50).reshape(5, 10, 1)
    assert (execute(timed, inputs) == inputs[2]).all()


def test_data_overwritten_before_it_is_sent_is_found():
    """All to all within one buffer: what arrives would destroy what is still to be sent."""
    timed = collective("all_to_all", parse("ring:6"), 320 * 600, "direct")
    steps = [replace(b, send=replace(b.send, dst_slot=0)) for b in timed.batches]
    with pytest.raises(CausalityError, match="overwritten"):
        execute(replace(timed, steps=steps), np.ones((6, timed.vectors, 1), np.int64))
