"""The published numbers of the chip, and the time law between every kind of unit."""

from itertools import pairwise, product

import pytest

from chip.errors import EmptyStream, ProgramError
from chip.isa import OPS
from chip.linker.timeline import locate
from chip.spec import ASSUMED_D_FUNC_CYCLES, EAST, GROQCHIP1, SPECS, TINY, WEST, ChipSpec
from tests.chip.programs import At, at, linked

CHIP = GROQCHIP1


# --- published identities -------------------------------------------------------------------
def test_the_chip_has_220_mib_in_88_slices():
    assert CHIP.slices == 88
    assert CHIP.sram_bytes == 220 * 2**20
    assert CHIP.bank_words * CHIP.slice_banks == CHIP.slice_words == 8192


def test_a_cycle_moves_the_published_bytes():
    queues = 2 * (CHIP.hemisphere_slices + CHIP.sxm_queues + 6) + CHIP.vxm_alus
    assert queues == 144
    assert queues * CHIP.instruction_bytes == CHIP.fetch_bytes_per_cycle == 2304
    assert 2 * CHIP.streams * CHIP.lanes == 20_480  # all streams past one point
    assert 2 * CHIP.slices * CHIP.lanes == 56_320  # a read and a write in every slice
    assert 2 * CHIP.lw_streams * CHIP.lanes == 10_240  # weights into both hemispheres


def test_lanes_are_twenty_superlanes_of_sixteen():
    assert (CHIP.superlanes, CHIP.superlane_lanes, CHIP.lanes) == (20, 16, 320)


def test_peak_rates_are_those_of_the_brief():
    products = 2 * CHIP.lanes * CHIP.lanes / CHIP.abc_interval_fp16
    assert 2 * products * CHIP.clock_hz == pytest.approx(188e12, rel=0.02)


def test_a_vector_costs_eight_bytes_on_the_wire():
    assert CHIP.vector_bytes_on_wire == CHIP.lanes + 8


def test_specs_are_found_by_their_name():
    assert all(SPECS[name].name == name for name in SPECS)
    assert TINY.positions == CHIP.positions


def test_assumptions_that_are_fields_exist():
    words = [entry for entry in CHIP.assumptions if " " not in entry]
    assert {"accumulator_depth", "d_func_cycles"} <= set(words)
    assert all(hasattr(CHIP, entry) for entry in words)


def test_every_delay_is_used_and_is_at_least_a_cycle():
    assert set(ASSUMED_D_FUNC_CYCLES) == {op.timing for op in OPS.values() if op.timing}
    assert all(cycles >= 1 for cycles in ASSUMED_D_FUNC_CYCLES.values())
    with pytest.raises(ProgramError, match=r"no timing entry for 'vxm\.think'"):
        CHIP.d_func("vxm.think")


def test_another_chip_may_have_other_delays():
    other = ChipSpec(d_func_cycles=ASSUMED_D_FUNC_CYCLES | {"mem.read": 9})
    assert other.d_func("mem.read") == 9


# --- geometry -------------------------------------------------------------------------------
def test_units_stand_in_the_published_order():
    west = [CHIP.edge_position(unit, WEST) for unit in ("c2c", "mxm", "sxm")]
    west += [CHIP.slice_position(index) for index in range(87, 43, -1)]
    east = [CHIP.slice_position(index) for index in range(44)]
    east += [CHIP.edge_position(unit, EAST) for unit in ("sxm", "mxm", "c2c")]
    assert [*west, CHIP.vxm_position, *east] == list(range(CHIP.positions))


def test_streams_cross_the_chip_in_both_directions():
    along = {d: [CHIP.along(d, p) for p in range(CHIP.positions)] for d in (EAST, WEST)}
    assert along[EAST] == along[WEST][::-1] == list(range(CHIP.positions))


QUEUES = [
    *(f"mem.{port}:{index}" for port in "rw" for index in range(88)),
    *(f"vxm:{alu}" for alu in range(16)),
    *(f"sxm:{index}" for index in range(28)),
    *(f"mxm.{kind}:{side}" for kind in ("lw", "iw") for side in (0, 1)),
    *(f"mxm.{kind}:{plane}" for kind in ("abc", "acc") for plane in range(4)),
    *(f"c2c.{kind}:{port}" for kind in "sr" for port in range(16)),
]


def test_every_queue_has_a_place():
    places = {queue: locate(queue, CHIP)[2] for queue in QUEUES}
    assert set(places.values()) == set(range(CHIP.positions))
    assert places["sxm:13"] == CHIP.edge_position("sxm", EAST)
    assert places["sxm:14"] == CHIP.edge_position("sxm", WEST)
    assert places["c2c.s:4"] == CHIP.edge_position("c2c", EAST)
    assert places["c2c.r:5"] == CHIP.edge_position("c2c", WEST)
    families = {op.queue for op in OPS.values()} - {"any", "icu"}
    assert {queue.partition(":")[0] for queue in QUEUES} == families


# --- the time law ---------------------------------------------------------------------------
T = 300  # the cycle in which every producer drives stream 0 of its direction
SLICES = (0, 1, 21, 43, 44, 60, 87)


def reads(position: int, cycle: int, codes: range) -> list[At]:
    """Bytes for an operand, read at the far side and passing a position in a cycle."""
    first = 48 if codes.start < TINY.streams else 2
    return [
        at(f"mem.r:{first + n}",
           cycle - abs(position - TINY.slice_position(first + n)) - TINY.d_func("mem.read"),
           "mem.read", 0, code)
        for n, code in enumerate(codes)
    ]  # fmt: skip


def slice_producer(index: int, code: int) -> list[At]:
    return [at(f"mem.r:{index}", T - TINY.d_func("mem.read"), "mem.read", 0, code)]


def vxm_producer(code: int) -> list[At]:
    issue = T - TINY.d_func("vxm.alu")
    fed = range(8, 12)
    return [*reads(TINY.vxm_position, issue, fed), at("vxm:9", issue, "vxm.copy", 2, 8, code)]


def sxm_producer(side: int, code: int) -> list[At]:
    issue, fed = T - TINY.d_func("sxm.distribute"), 8 if side == EAST else 40
    position = TINY.edge_position("sxm", side)
    moved = at(f"sxm:{14 * side}", issue, "sxm.distribute", 0, 0, fed, code)
    return [*reads(position, issue, range(fed, fed + 1)), moved]


def mxm_producer(side: int, code: int) -> list[At]:
    acc = T - TINY.d_func("mxm.acc")
    abc, position = acc - TINY.d_func("mxm.abc"), TINY.edge_position("mxm", side)
    base = TINY.streams * side
    return [
        *reads(position, abc - 2, range(base + 16, base + 32)),
        at(f"mxm.lw:{side}", abc - 2, "mxm.lw", 0, 0, base + 16),
        at(f"mxm.iw:{side}", abc - 1, "mxm.iw", 0, 0, 8),
        *reads(position, abc, range(base + 8, base + 10)),
        at(f"mxm.abc:{side}", abc, "mxm.abc", 0, base + 8),
        at(f"mxm.acc:{side}", acc, "mxm.acc", 0, 0, 0, code),
    ]


def receive_producer(port: int, code: int) -> list[At]:
    return [at(f"c2c.r:{port}", T - TINY.d_func("c2c.receive"), "c2c.receive", code)]


PRODUCERS = {
    **{f"slice {n}": (TINY.slice_position(n), slice_producer, n) for n in SLICES},
    "vxm": (TINY.vxm_position, lambda _, code: vxm_producer(code), 0),
    **{f"sxm {s}": (TINY.edge_position("sxm", s), sxm_producer, s) for s in (EAST, WEST)},
    **{f"mxm {s}": (TINY.edge_position("mxm", s), mxm_producer, s) for s in (EAST, WEST)},
    **{f"port {p}": (TINY.edge_position("c2c", p % 2), receive_producer, p) for p in (0, 1)},
}
CONSUMERS = {
    **{f"slice {n}": (TINY.slice_position(n), f"mem.w:{n}", "mem.write", (7,)) for n in SLICES},
    "vxm": (TINY.vxm_position, "vxm:3", "vxm.copy", (0,)),
    **{
        f"sxm {s}": (TINY.edge_position("sxm", s), f"sxm:{14 * s + 5}", "sxm.distribute", (0, 0))
        for s in (EAST, WEST)
    },
    **{
        f"port {p}": (TINY.edge_position("c2c", p % 2), f"c2c.s:{p}", "c2c.send", ())
        for p in (0, 1)
    },
}


def seen(producer: str, consumer: str, late: int) -> bool:
    """Whether the consumer finds the value when it looks `late` cycles after the law's."""
    p, make, unit = PRODUCERS[producer]
    q, queue, op, args = CONSUMERS[consumer]
    code = 0 if q >= p else TINY.streams
    out = (63,) if op in ("vxm.copy", "sxm.distribute") else ()
    reader = at(queue, T + abs(q - p) + late, op, *args, code, *out)
    try:
        linked(*make(unit, code), reader, maps=(tuple(range(16)),))
    except EmptyStream as error:
        assert error.queue == queue
        return False
    return True


@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_value_is_seen_as_many_cycles_later_as_positions_away(producer):
    for consumer in CONSUMERS:
        if PRODUCERS[producer][0] == CONSUMERS[consumer][0]:
            assert not any(seen(producer, consumer, late) for late in (-1, 0, 1)), consumer
        else:
            found = {late: seen(producer, consumer, late) for late in (-1, 0, 1)}
            assert found == {-1: False, 0: True, 1: False}, consumer


def test_a_value_is_never_seen_against_its_direction():
    for upstream, downstream in pairwise(SLICES[:4]):
        driven = slice_producer(downstream, 0)
        for late in range(-2, 3):
            away = TINY.slice_position(downstream) - TINY.slice_position(upstream)
            reader = at(f"mem.w:{upstream}", T + away + late, "mem.write", 0, 0)
            with pytest.raises(EmptyStream):
                linked(*driven, reader)


def test_every_pair_of_slices_keeps_the_law():
    """One program: each slice is read once and all slices see it, each in its cycle."""
    placed = []
    for (n, source), direction in product(enumerate((86, 0, 42)), (EAST, WEST)):
        cycle, code = 200 * n + 100, TINY.streams * direction + n
        placed.append(at(f"mem.r:{source}", cycle - 10 * direction, "mem.read", 0, code))
        driven = cycle - 10 * direction + TINY.d_func("mem.read")
        start = TINY.along(direction, TINY.slice_position(source))
        for target in range(TINY.slices):
            away = TINY.along(direction, TINY.slice_position(target)) - start
            if away > 0:
                queue = f"mem.w:{target}"
                placed.append(at(queue, driven + away, "mem.write", 600 + n, code))
    linked(*placed)
