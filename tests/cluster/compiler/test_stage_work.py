"""Steps in order at any pace are those that are put in order at that pace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chip.errors import ProgramError
from chip.schedule import Pace, ScheduleTiming
from cluster.compiler.stage_work import StepsInOrder, StepTiming, in_order

LIMIT = 100


@st.composite
def some_steps(draw):
    """Steps of which one may begin in the one before, which is then over later."""
    found = []
    for quiet in draw(st.lists(st.integers(1, LIMIT), max_size=8)):
        early = draw(st.integers(0, quiet)) if found and draw(st.booleans()) else 0
        timing = ScheduleTiming(quiet, quiet + 3, (0,), (0,), (quiet,), (1,))
        found.append(StepTiming("step", timing, 0, early, draw(st.integers(0, 3))))
    return found


@given(some_steps(), st.lists(st.integers(0, LIMIT + 20), min_size=1))
def test_any_pace_gives_the_order_of_that_pace(steps, passed):
    quick = StepsInOrder(steps)
    assert quick.at(None) == in_order(steps, None)
    for since in passed:
        pace = Pace(5, LIMIT, since)
        try:
            slow = in_order(steps, pace)
        except ProgramError:
            with pytest.raises(ProgramError):
                quick.at(pace)
            continue
        assert quick.at(pace) == slow
