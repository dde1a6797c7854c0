"""A layer of SmolLM2's shape, decoded on the naive interpreter: equal bits, equal cycles."""

import numpy as np
import numpy.typing as npt

from chip.core import Chip
from chip.isa import NUMPY_TYPES
from chip.kernels.attention import Heads
from chip.kernels.lanes import MAPS
from chip.kernels.shape import DecoderShape, blocks
from chip.program import Program, Region
from chip.spec import GROQCHIP1 as SPEC
from chip.sram import GROUP
from chip.wire import pack
from cluster.compiler.stage import Stage
from tests.chip.naive import interpret

HEADS = Heads(kv_of=(0, 0, 0, 1, 1, 1, 2, 2, 2), kv_heads=3, head_lanes=64)
SHAPE = DecoderShape(
    hidden=blocks(576),
    heads=HEADS,
    ffn=blocks(1536),
    vocab=None,
    layers=1,
    eps=1e-5,
    context=320,
    chunk=32,
)
POSITION = 41  # of the token; 41 tokens are in the caches


def write_random(chip: Chip, region: Region, scale: float = 1.0) -> None:
    rng = np.random.default_rng([region.index, region.address])
    values = rng.standard_normal((region.vectors, SPEC.lanes), np.float32) * scale
    chip.write(region, values.astype(NUMPY_TYPES[region.dtype]))


def fill(chip: Chip, stage: Stage) -> None:
    """Weights, tables, caches and the host's inputs: all lanes random, more than a model has."""
    memory = stage.memory
    for placed in stage.matrices.values():
        write_random(chip, placed.buffer.region, scale=1 / 24)
    for name in ("x0", "gamma", "cos", "sin", "0.K0", "0.V0", "0.VT0"):
        write_random(chip, memory[name].region)
    ones, identity = memory["ones"].region, memory["identity"].region
    chip.write(ones, np.ones((ones.vectors, SPEC.lanes), np.float16))
    chip.write(identity, np.eye(identity.vectors, SPEC.lanes, dtype=np.float16))
    lanes = np.arange(SPEC.lanes)
    mask = np.where(lanes <= POSITION, np.float32(0), np.float32(-30000))
    chip.write(stage.view("mask", 1).region, mask[None])
    words = np.full(8, SHAPE.context // 8, np.uint16)
    words[POSITION % 8] = POSITION // 8
    chip.write(stage.view("maps", 8).region, np.repeat(words[:, None], SPEC.lanes, axis=1))


def image(chip: Chip) -> npt.NDArray[np.uint8]:
    """The whole SRAM [slices, words, lanes]."""
    out = np.empty((SPEC.slices, SPEC.slice_words, SPEC.lanes), np.uint8)
    for first in range(0, SPEC.slices, GROUP):
        out[first : first + GROUP] = chip.sram.group(first).transpose(2, 0, 1)
    return out


def test_a_smollm2_layer_has_equal_bits_and_cycles_on_the_naive_interpreter():
    stage = Stage(SPEC, (SHAPE,))
    plan, result = stage.schedule(1, 1, {}), "x0"
    data = pack(plan.program(0, Program(0, SPEC.name, 0, {}, MAPS)))
    chip = Chip(0)
    linked = chip.load("decode", data)
    fill(chip, stage)
    naive = interpret(data, image(chip))
    before = chip.read(stage.memory[result].region).copy()
    chip.begin("decode")
    chip.run(0, {})
    assert chip.finish().end_cycle == naive.end_cycle == linked.end_cycle == plan.end_cycle
    x = chip.read(stage.memory[result].region)[: SHAPE.hidden.count]
    assert np.isfinite(x).all() and not np.array_equal(x, before[: SHAPE.hidden.count])
    for first in range(0, SPEC.slices, GROUP):
        expected = naive.sram[first : first + GROUP].transpose(1, 2, 0)
        assert np.array_equal(chip.sram.group(first), expected), f"slices {first}.."
