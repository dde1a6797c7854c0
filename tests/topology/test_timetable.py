import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import Run, Timetable, parse, ring
from topology.errors import LinkConflict, NoRoute


def test_departures_follow_the_rational_rate():
    run = Run(100, 4, Fraction(5, 2), "a")
    assert run.departures().tolist() == [100, 103, 105, 108]
    assert run.end_cycle == 110


def test_a_conflict_names_both_owners_the_link_and_the_cycle():
    table = Timetable(ring(4))
    table.book(0, 1, 10, 3, "attention")
    table.book(1, 0, 10, 3, "the other direction")
    with pytest.raises(LinkConflict) as caught:
        table.book(0, 1, 64, 1, "norm")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.src, error.dst, error.cycle, error.owner, error.other) == (
        *(0, 1, 64, "norm", "attention"),
    )
    table.book(0, 1, 10 + 3 * 27, 1, "right behind")


def test_slow_runs_may_interleave_if_no_two_vectors_are_too_close():
    table = Timetable(ring(4, overrides={"cycles_per_vector": 10}))
    table.book(0, 1, 0, 5, "a", cycles_per_vector=Fraction(20))
    table.book(0, 1, 10, 5, "b", cycles_per_vector=Fraction(20))
    with pytest.raises(LinkConflict):
        table.book(0, 1, 35, 1, "c")


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 8), st.integers(0, 1)), max_size=25),
    st.fractions(min_value=1, max_value=30, max_denominator=8),
)
@settings(max_examples=60)
def test_first_free_is_free_and_the_earliest(requests, pace):
    table = Timetable(ring(3, overrides={"cycles_per_vector": pace, "count": 2}))
    for number, (earliest, vectors, cable) in enumerate(requests):
        start = table.first_free(0, 1, earliest, vectors, cable)
        assert start >= earliest
        if start > earliest:
            assert table.conflict(0, 1, Run(start - 1, vectors, pace, "x"), cable) is not None
        table.book(0, 1, start, vectors, f"run {number}", cable)
    # Checked anew: all departures of a cable, in order, are at least the whole pace apart.
    for cable in (0, 1):
        runs = [run for *_, c, run in table.runs() if c == cable]
        gaps = np.diff(np.sort(np.concatenate([r.departures() for r in runs]))) if runs else [99]
        assert len(gaps) == 0 or min(gaps) >= int(pace)


def test_a_chain_moves_through_without_waiting():
    table = Timetable(ring(6))
    table.book(1, 2, 300, 4, "in the way")
    start = table.first_free_chain((0, 1, 2, 3), 0, 5)
    assert start == 300 + 4 * 27 - 270
    assert table.book_chain((0, 1, 2, 3), start, 5, "chain") == start + 3 * 270
    starts = {(u, v): run.start_cycle for u, v, _, run in table.runs() if run.owner == "chain"}
    assert starts == {(0, 1): start, (1, 2): start + 270, (2, 3): start + 540}


def test_utilisation_and_export():
    table = Timetable(ring(3))
    table.book(0, 1, 0, 2, "a")
    table.book(1, 2, 27 * 3, 1, "b")
    assert table.utilisation() == {(0, 1, 0): 0.5, (1, 2, 0): 0.25}
    data = json.loads(table.export())
    assert data["rows"] == [[0, 1, 0, 0, 2, 27, 1, "a"], [1, 2, 0, 81, 1, 27, 1, "b"]]


def test_links_and_cables_that_are_not_there_are_refused():
    table = Timetable(parse("ring:5"))
    with pytest.raises(NoRoute):
        table.book(0, 2, 0, 1, "a")
    with pytest.raises(NoRoute):
        table.book(0, 1, 0, 1, "a", cable=1)
