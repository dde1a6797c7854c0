"""A decoder's layer on the naive interpreter: equal bits in all of SRAM, equal cycles."""

import numpy as np
import numpy.typing as npt

from chip.core import Chip
from chip.isa import NUMPY_TYPES
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
POSITION = 41  # of the token; 41 tokens are in the caches


def made() -> Stage:
    """A stage of one layer: every kernel of an fp16 decoder on one chip."""
    sharded = compiled(layer(SHAPE), 1, "fp16")
    ranks = ranks_of([sharded], SPEC.lanes)
    return Stage(SPEC, StageShape((sharded,), None, ranks, CONTEXT_BLOCK, 8))


def fill(chip: Chip, stage: Stage) -> None:
    """All of SRAM random, all lanes of it, more than a model has; but words of caches exist."""
    for name, buffer in stage.memory.buffers.items():
        region = buffer.region
        rng = np.random.default_rng([*name.encode()])
        values = rng.standard_normal((region.vectors, SPEC.lanes), np.float32)
        if stage.memory.roles[name] == CONSTANT:
            values /= 24
        chip.write(region, values.astype(NUMPY_TYPES[region.dtype]))
    ones, identity = stage.memory["ones"].region, stage.memory["identity"].region
    chip.write(ones, np.ones((ones.vectors, SPEC.lanes), np.float16))
    chip.write(identity, np.eye(identity.vectors, SPEC.lanes, dtype=np.float16))
    lanes = np.arange(SPEC.lanes)
    mask = np.where(lanes <= POSITION, np.float32(0), np.float32(-30000))
    chip.write(stage.view("mask", 1).region, mask[None])
    words = np.full(8, CONTEXT_BLOCK // 8, np.uint16)
    words[POSITION % 8] = POSITION // 8
    rows = np.repeat(words[:, None], SPEC.lanes, axis=1)
    region = stage.view("maps", 8).region
    chip.write(Region(region.index, region.address, 8, region.dtype), rows)


def image(chip: Chip) -> npt.NDArray[np.uint8]:
    """The whole SRAM [slices, words, lanes]."""
    out = np.empty((SPEC.slices, SPEC.slice_words, SPEC.lanes), np.uint8)
    for first in range(0, SPEC.slices, GROUP):
        out[first : first + GROUP] = chip.sram.group(first).transpose(2, 0, 1)
    return out


def test_a_layer_has_equal_bits_and_cycles_on_the_naive_interpreter():
    stage = made()
    plan, result = stage.schedule(1, 1, {}), stage.view("x0", stage.hidden_blocks).region
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
