from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.firstfit import first_fit

routes = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)
runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9), routes), max_size=30)


@given(runs)
@settings(max_examples=100)
def test_runs_never_overlap_and_are_never_early(asked):
    earliest = np.array([e for e, _, _ in asked], np.int64)
    busy = np.array([b for _, b, _ in asked], np.int64)
    channel = np.array([c for _, _, route in asked for c in route], np.int64)
    offset = np.array([7 * h for _, _, route in asked for h in range(len(route))], np.int64)
    first = np.cumsum([0] + [len(route) for _, _, route in asked])
    free = np.full(5, 3)
    start = first_fit(np.arange(len(asked)), earliest, busy, first, channel, offset, free)
    assert (start >= earliest).all()
    run = np.repeat(np.arange(len(asked)), np.diff(first))
    begin = start[run] + offset
    for cable in range(5):
        mine = channel == cable
        spans = sorted(zip(begin[mine], (begin + busy[run])[mine], strict=True))
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert not spans or (spans[0][0] >= 3 and free[cable] == max(end for _, end in spans))


def test_a_gap_is_filled():
    one = np.array([0, 1, 2])
    start = first_fit(
        *(np.arange(2), np.array([100, 0]), np.array([10, 20]), one[:3], np.array([0, 0])),
        *(np.zeros(2, np.int64), np.zeros(1, np.int64)),
    )
    assert start.tolist() == [100, 0]
