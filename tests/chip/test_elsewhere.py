"""Chains that are written once for many members, and schedules that may take so long only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chip.kernels.transfer import Hop, Moved, _transfer, port_side, transfer
from chip.program import Region
from chip.schedule import Buffer, Rows, Schedule, TooLong
from chip.schedule.elsewhere import elsewhere
from chip.spec import GROQCHIP1

SOURCE, TARGET = (Buffer(name, Region(index, 0, 64, "f32")) for name, index in (("x", 0), ("y", 4)))
ports = st.integers(0, GROQCHIP1.c2c_ports - 1)
hops = st.lists(st.tuples(ports, ports), min_size=1, max_size=3)
moves = st.builds(
    Moved, st.just(Rows(SOURCE)), st.just(Rows(TARGET, 8)), st.integers(1, 20), st.booleans()
)


def along(ends, members):
    """A route over cables between ports: from each of the members to the next."""
    pairs = zip(members, members[1:], ends, strict=False)
    return tuple(Hop(a, out, b, into, 20, 3) for a, b, (out, into) in pairs)


@given(hops, moves, st.permutations(range(9)))
def test_a_transfer_elsewhere_is_the_one_that_is_written_there(ends, moved, members):
    members = members[: len(ends) + 1]
    sides = [(port_side(out), port_side(into)) for out, into in ends]
    chain, *_ = _transfer(GROQCHIP1, along(sides, range(len(members))), moved)
    taken = {(n, "c2c.s"): out for n, (out, _) in enumerate(ends)}
    taken |= {(n + 1, "c2c.r"): into for n, (_, into) in enumerate(ends)}
    there, *_ = _transfer(GROQCHIP1, along(ends, members), moved)
    assert elsewhere(chain, members, taken) == there


@given(hops, moves, st.integers(1, 3))
def test_a_schedule_is_too_long_just_where_something_is_under_way_later(ends, moved, count):
    def placed(most_cycles=None):
        plan = Schedule(GROQCHIP1, most_cycles)
        for _ in range(count):
            transfer(plan, along(ends, range(len(ends) + 1)), moved)
        return plan

    most = placed().quiet_cycle
    assert placed(most).timings == placed().timings
    with pytest.raises(TooLong):
        placed(most - 1)
