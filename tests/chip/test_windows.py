"""Equal stretches of a program are linked once, and run as if each had been linked for itself."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from chip.core import Chip
from chip.errors import ChipError, HazardError, WeightsInUse, WeightsMissing
from chip.linker import Linked, cuts, link
from chip.program import Program, Region
from chip.spec import EAST, TINY
from chip.wire import pack, unpack
from tests.chip.chaos import INDICES, SPAN, Chaos
from tests.chip.naive import OutOfRegion
from tests.chip.programs import (
    At,
    agree,
    at,
    fill,
    launch,
    linked,
    numbers,
    packets_for,
    program,
)

MXM = TINY.edge_position("mxm", EAST)


@pytest.fixture(autouse=True)
def eager(monkeypatch) -> None:
    """Cut wherever nothing is under way, however short the stretch."""
    monkeypatch.setattr(cuts, "FEWEST", 1)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    filled = numbers().copy()
    filled[INDICES[0]] %= SPAN
    filled[INDICES[1]] = 0
    return filled


def templates(ready: Linked) -> tuple[int, int]:
    """(stretches, different lists of nodes) of a linked program."""
    blocks = [block for segment in ready.segments for block in segment]
    return len(blocks), len({tuple(id(op) for _, op in block.nodes) for block in blocks})


def moved(one: At, cycles: int, words: int) -> At:
    args = one.instruction.args
    if one.instruction.op.startswith("mem"):
        args = (args[0] + words, *args[1:])
    return At(one.queue, one.cycle + cycles, replace(one.instruction, args=args))


def repeated(seed: int) -> Program:
    """A random program three times, its addresses shifted alike, by slice, or each for itself."""
    chaos, random = Chaos(seed), Random(seed)
    body = chaos.program()
    period = max(one.cycle + one.instruction.span_cycles for one in chaos.placed)
    period += random.choice([8, 30, 120, 200])
    words = random.choice(
        [lambda one: 40, lambda one: 40 * (int(one.queue[6:]) % 3),
         lambda one: 40 * (int(one.queue[6:]) // 16), lambda one: random.choice([0, 1, 40])]
    )  # fmt: skip
    placed = [
        moved(one, turn * period, turn * words(one) if one.queue.startswith("mem") else 0)
        for turn in range(3)
        for one in chaos.placed
    ]
    weights, floats = Region(16, 0, 800, "f16", "columns"), Region(44, 0, 100, "f32")
    constants = random.choice([(), (), (weights,), (floats, weights)])
    return program(*placed, maps=body.maps, start_cycle=body.start_cycle, constants=constants)


def test_repeated_random_programs_agree(image):
    ran = stretches = different = 0
    for seed in range(60):
        what = repeated(seed)
        try:
            ready = link(unpack(pack(what)))
        except HazardError:
            continue
        try:
            agree(what, image, launches=2)
        except OutOfRegion:
            chip = Chip(what.chip, TINY)
            fill(chip, image, what)
            with pytest.raises(ChipError, match="outside the region"):
                for _ in range(2):
                    launch(chip, chip.load("it", pack(what)), packets_for(ready))
        ran += 1
        counts = templates(ready)
        stretches, different = stretches + counts[0], different + counts[1]
    assert ran > 20
    assert different < 0.8 * stretches


def copies(*turns: tuple[int, int, int]) -> list[At]:
    """Three cycles after another, a word of slice 3 is copied to slice 9: (cycle, from, to)."""
    away = TINY.d_func("mem.read") + TINY.slice_position(9) - TINY.slice_position(3)
    return [
        one
        for cycle, source, target in turns
        for one in (
            at("mem.r:3", cycle, "mem.read", source, 0),
            at("mem.w:9", cycle + away, "mem.write", target, 0),
        )
    ]


def test_what_differs_in_addresses_is_linked_once():
    turns = [(300 * n, 7 * n, 50 + n) for n in range(4)]
    assert templates(linked(*copies(*turns))) == (4, 1)
    agree(program(*copies(*turns)))


def test_a_value_still_on_its_way_is_not_cut_off():
    position = TINY.edge_position("c2c", EAST)
    driven = TINY.d_func("mem.read")
    placed = [at("mem.r:87", 0, "mem.read", 0, 0), at("mem.r:3", 50, "mem.read", 0, 1)]
    cycle = driven + position - TINY.slice_position(87)
    placed.append(at("c2c.s:0", cycle, "c2c.send", 0))
    assert templates(linked(*placed))[0] == 1
    agree(program(*placed))


def columns(load: int, column: int) -> list[At]:
    """Eight columns from slices 16.. into the buffer of the east pair."""
    planes = []
    for n in range(16):
        away = TINY.d_func("mem.read") + MXM - TINY.slice_position(16 + n)
        planes.append(at(f"mem.r:{16 + n}", load - away, "mem.read", 0, 16 + n))
    return [*planes, at("mxm.lw:0", load, "mxm.lw", 0, column, 16)]


def use(start: int) -> list[At]:
    """An activation from slices 4 and 5 that meets the installed tile; its product is kept."""
    planes = []
    for n in (4, 5):
        away = TINY.d_func("mem.read") + MXM - TINY.slice_position(n)
        planes.append(at(f"mem.r:{n}", start - away, "mem.read", 0, n - 4))
    done = start + TINY.d_func("mxm.abc")
    back = done + TINY.d_func("mxm.acc") + MXM
    kept = [
        at(f"mem.w:{n}", back - TINY.slice_position(n), "mem.write", 600, 24 + n)
        for n in range(8, 12)
    ]
    abc, acc = (
        at("mxm.abc:0", start, "mxm.abc", 0, 0),
        at("mxm.acc:0", done, "mxm.acc", 0, 0, 0, 32),
    )
    return [*planes, abc, acc, *kept]


def test_a_tile_may_be_used_long_after_it_was_installed():
    placed = [*columns(200, 0), at("mxm.iw:0", 201, "mxm.iw", 0, 0, 8), *use(202), *use(900)]
    agree(program(*placed))


def test_a_tile_may_be_loaded_long_before_it_is_installed():
    placed = [
        *columns(200, 0),
        *columns(900, 8),
        at("mxm.iw:0", 901, "mxm.iw", 0, 0, 16),
        *use(902),
    ]
    agree(program(*placed))


@pytest.mark.parametrize(("column", "rule"), [(0, WeightsInUse), (8, WeightsMissing)])
def test_loads_never_installed_are_not_forgotten_at_a_cut(column, rule):
    placed = [
        *columns(200, column),
        *columns(900, 0),
        at("mxm.iw:0", 901, "mxm.iw", 0, 0, 8),
        *use(902),
    ]
    with pytest.raises(rule):
        linked(*placed)


def test_sums_may_live_across_a_cut():
    first = [*columns(200, 0), at("mxm.iw:0", 201, "mxm.iw", 0, 0, 8), *use(202)]
    second = [*columns(900, 0), at("mxm.iw:0", 901, "mxm.iw", 0, 0, 8), *use(902)]
    adding = [
        replace(one, instruction=replace(one.instruction, args=(0, 1, *one.instruction.args[2:])))
        if one.queue == "mxm.acc:0"
        else one
        for one in second
    ]
    agree(program(*first, *adding))
