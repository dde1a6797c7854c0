"""A decoder's layer on the naive interpreter: equal bits in all of SRAM, equal cycles."""

import numpy as np
import numpy.typing as npt
import pytest

from chip.core import Chip
from chip.isa import NUMPY_TYPES
from chip.kernels.columns import IDENTITY
from chip.kernels.work import CONSTANT
from chip.program import Program, Region
from chip.spec import TINY as SPEC
from chip.sram import GROUP
from chip.wire import pack
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.rank import ranks_of
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, compiled
from tests.chip.naive import interpret
from tests.cluster.model.graphs import Shape, layer

SHAPE = Shape(hidden=336, heads=4, kv_heads=2, head_dim=48, ffn=400, bias=True, qk_norm="head")
POSITIONS = 41, 7  # of each slot's token; as many are in its caches


def made(slots: int) -> Stage:
    """A stage of one layer: every kernel of an fp16 decoder on one chip."""
    sharded = compiled(layer(SHAPE), 1, "fp16")
    ranks = ranks_of([sharded], SPEC.lanes)
    size = CONTEXT_BLOCK, 8, "f16", slots, slots
    return Stage(SPEC, StageShape((sharded,), None, ranks, *size))


def fill(chip: Chip, stage: Stage) -> None:
    """All of SRAM random, all lanes of it, more than a model has; but words of caches exist."""
    for name, buffer in stage.memory.buffers.items():
        region = buffer.region
        rng = np.random.default_rng([*name.encode()])
        values = rng.standard_normal((region.vectors, SPEC.lanes), np.float32)
        if stage.memory.roles[name] == CONSTANT:
            values /= 24
        move = stage.memory.moves.get(name)
        for number in range(len(move.words) if move else 1):  # caches of each slot
            rows = np.roll(values, number, axis=0).astype(NUMPY_TYPES[region.dtype])
            chip.write(stage.memory.region_of(name, number), rows)
    ones = stage.memory["ones"].region
    chip.write(ones, np.ones((ones.vectors, SPEC.lanes), np.float16))
    for name in IDENTITY.values():
        if name in stage.memory.buffers:
            region = stage.memory[name].region
            chip.write(region, np.eye(region.vectors, SPEC.lanes, dtype=np.float16))
    slots, lanes = stage.shape.slots, np.arange(SPEC.lanes)
    positions = np.array(POSITIONS[:slots])[:, None]
    mask = np.where(lanes <= positions, np.float32(0), np.float32(-30000))
    chip.write(stage.view("mask", slots).region, mask)
    words = np.full((slots, 8), CONTEXT_BLOCK // 8, np.uint16)
    np.put_along_axis(words, positions % 8, (positions // 8).astype(np.uint16), axis=1)
    rows = np.repeat(words.reshape(-1, 1), SPEC.lanes, axis=1)
    region = stage.view("maps", 8 * slots).region
    chip.write(Region(region.index, region.address, 8 * slots, region.dtype), rows)


def image(chip: Chip) -> npt.NDArray[np.uint8]:
    """The whole SRAM [slices, words, lanes]."""
    out = np.empty((SPEC.slices, SPEC.slice_words, SPEC.lanes), np.uint8)
    for first in range(0, SPEC.slices, GROUP):
        out[first : first + GROUP] = chip.sram.group(first).transpose(2, 0, 1)
    return out


@pytest.mark.parametrize("slots", [1, 2])
def test_a_layer_has_equal_bits_and_cycles_on_the_naive_interpreter(slots):
    stage = made(slots)
    plan = stage.schedule(slots, 1, {}, slots=range(slots))
    result = stage.view("x0", slots * stage.hidden_blocks).region
    data = pack(plan.program(0, Program(0, SPEC.name, 0, {}, stage.maps)))
    chip = Chip(0, SPEC)
    linked = chip.load("decode", data)
    fill(chip, stage)
    naive, before = interpret(data, image(chip)), chip.read(result).copy()
    chip.begin("decode")
    chip.run(0, {})
    assert chip.finish().end_cycle == naive.end_cycle == linked.end_cycle == plan.end_cycle
    x = chip.read(result)
    assert np.isfinite(x).all() and not np.array_equal(x, before)
    for first in range(0, SPEC.slices, GROUP):
        expected = naive.sram[first : first + GROUP].transpose(1, 2, 0)
        assert np.array_equal(chip.sram.group(first), expected), f"slices {first}.."
