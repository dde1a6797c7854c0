"""Random programs: the linked executor and the naive interpreter agree on all of them."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.isa import OPS
from chip.program import Instruction
from chip.spec import TINY
from chip.wire import pack
from tests.chip.chaos import INDICES, SPAN, Chaos
from tests.chip.naive import float_product
from tests.chip.outcomes import damaged, mutated, outcome, survives
from tests.chip.programs import at, program


def test_random_programs_agree(addresses):
    found = [outcome(Chaos(seed).program(), addresses) for seed in range(80)]
    assert found.count("ran") > 30
    assert found.count("empty") > 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(min_value=1000))
def test_more_random_programs_agree(seed, addresses):
    outcome(Chaos(seed).program(), addresses)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0))
def test_a_mutation_is_rejected_or_done_as_the_naive_chip_does_it(seed, addresses):
    random = Random(seed)
    assert outcome(mutated(Chaos(seed % 500).program(), random), addresses)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0))
def test_damaged_bytes_are_one_error_or_a_program(seed):
    random = Random(seed)
    assert survives(damaged(pack(Chaos(seed % 40).program()), random))


def test_random_programs_have_every_instruction():
    """But Ifetch, whose data is a program; what fills gaps is there by itself."""
    seen = {one.op for seed in range(2500) for one in instructions(seed)}
    assert set(OPS) - {"icu.ifetch", "icu.nop"} <= seen


def instructions(seed: int) -> list[Instruction]:
    chaos = Chaos(seed)
    return [*chaos.program().startup, *(one.instruction for one in chaos.placed)]


def test_an_address_outside_its_region_stops_both(addresses):
    image = addresses.copy()
    image[INDICES[1], 2] = 1
    far, loops = TINY.slice_position(20), (4, 3, 1)
    lead = TINY.d_func("mem.read")
    placed = [
        at(
            f"mem.r:{i}",
            60 - lead - abs(far - TINY.slice_position(i)),
            "mem.read",
            0,
            i - 8,
            loops=loops,
        )
        for i in (8, 9)
    ]
    placed.append(at("mem.r:20", 60, "mem.gather", 512, SPAN, 0, 6, loops=(4, 3, 0)))
    assert outcome(program(*placed), image) == "stopped"


def test_the_naive_product_is_exact():
    x, w = np.zeros(320, np.float16), np.zeros((8, 320), np.float16)
    x[:3], w[0, :3] = [60000, 2.0**-24, -60000], [60000, 2.0**-24, 60000]
    w[1, 1:2], w[2, :1] = 2.0**-24, 65504
    loaded = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    assert float_product(x, w, loaded).tolist() == [
        2.0**-48,
        2.0**-48,
        65504.0 * 60000,
        0,
        0,
        0,
        0,
        0,
    ]
