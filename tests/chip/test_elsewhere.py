"""Chains that are written once for many members, and what schedules refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chip.errors import ProgramError
from chip.kernels.transfer import Hop, Moved, _multicast, _transfer, multicast, transfer
from chip.program import Region
from chip.schedule import Buffer, Rows, Schedule, TooLong, run
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
    route = along(ends, members[: len(ends) + 1])
    written, there = Schedule(GROQCHIP1), Schedule(GROQCHIP1)
    for _ in range(2):  # the second is as late as the first makes it
        written.place(_transfer(GROQCHIP1, route, moved)[0])
        transfer(there, route, moved)
    assert there.placed == written.placed
    assert there.timings == written.timings


@given(st.lists(ports, min_size=1, max_size=3, unique=True), ports, st.permutations(range(9)))
def test_a_multicast_elsewhere_is_the_one_that_is_written_there(outs, into, members):
    routes = [along([(out, into)], (members[0], end))
              for out, end in zip(outs, members[1:], strict=False)]  # fmt: skip
    written, there = Schedule(GROQCHIP1), Schedule(GROQCHIP1)
    moved = Rows(SOURCE, 3), (Rows(TARGET, 8),) * len(routes), 2, True
    for _ in range(2):
        written.place(_multicast(GROQCHIP1, tuple(routes), moved)[0])
        multicast(there, routes, *moved[:3], apart=True)
    assert there.placed == written.placed


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


@pytest.mark.parametrize("beside", [False, True])
def test_a_chain_that_wants_more_alus_than_there_are_is_refused(beside):
    def copies(plan, count):
        chain = plan.chain("copies", 3)
        for number in range(count):
            rows = Rows(Buffer(f"x{number}", Region(number, 0, 64, "u8")))
            chain.vxm("copy", rows, loops=run(40))
        return plan.place(chain)

    plan = Schedule(GROQCHIP1)
    assert copies(plan, GROQCHIP1.vxm_alus) < copies(plan, GROQCHIP1.vxm_alus)  # not: for ever
    if beside:
        plan = Schedule(GROQCHIP1, beside={3: (plan, 3)})
    with pytest.raises(ProgramError, match=r"copies wants 17 ALUs .* at once.* a chip has 16"):
        copies(plan, GROQCHIP1.vxm_alus + 1)
