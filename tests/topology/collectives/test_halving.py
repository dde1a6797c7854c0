import pytest

from topology import all_reduce, collective, parse
from topology.errors import BadCollective


def test_it_takes_log2_steps_each_way():
    timed = all_reduce(parse("hypercube:4"), 320 * 16, "halving-doubling")
    # Halves of 8, 4, 2, 1 vectors: a step may follow the one before it vector by vector.
    assert len(timed.batches) == 8 and 8 * 270 <= timed.cycles <= 8 * 270 + 2 * 15 * 27


def test_one_way_needs_a_power_of_two():
    with pytest.raises(BadCollective, match="power of two"):
        collective("all_gather", parse("ring:6"), 3200, "doubling")
