"""Random programs: the linked executor and the naive interpreter agree on all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.core import Chip
from chip.errors import ChipError, EmptyStream, HazardError
from chip.linker import link
from chip.program import Program
from chip.spec import TINY
from chip.wire import pack, unpack
from tests.chip.chaos import INDICES, SPAN, Chaos
from tests.chip.naive import Misread, OutOfRegion, float_product, interpret
from tests.chip.programs import agree, at, fill, launch, packets_for, program


def outcome(what: Program, image: np.ndarray) -> str:
    """Run a random program through both; how it ended."""
    try:
        link(unpack(pack(what)))
    except EmptyStream:
        with pytest.raises((Misread, OutOfRegion)):  # whichever it meets first
            interpret(pack(what), image, Anything())
        return "empty"
    except HazardError:
        return "hazard"
    try:
        agree(what, image)
    except OutOfRegion:
        chip = Chip(what.chip, TINY)
        fill(chip, image, what)
        ready = chip.load("it", pack(what))
        with pytest.raises(ChipError, match="outside the region"):
            launch(chip, ready, packets_for(ready))
        return "stopped"
    return "ran"


class Anything(dict):
    """Packets for any port at any time."""

    def __missing__(self, key):
        return np.zeros(TINY.lanes, np.uint8)


def test_random_programs_agree(addresses):
    found = [outcome(Chaos(seed).program(), addresses) for seed in range(80)]
    assert found.count("ran") > 30
    assert found.count("empty") > 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(min_value=1000))
def test_more_random_programs_agree(seed, addresses):
    outcome(Chaos(seed).program(), addresses)


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
