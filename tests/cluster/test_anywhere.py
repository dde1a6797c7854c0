"""Matrices in all slices of a chip: they fill it, and say what they say in 16 neighbours."""

from dataclasses import replace

import numpy as np
import pytest

from chip.isa import NUMPY_TYPES
from chip.kernels.sram_map import QUAD
from chip.spec import GROQCHIP1, TINY
from cluster.compiler.launch import launch_kinds
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.sizes import Sizes
from cluster.compiler.stages import partition
from cluster.machines.machine import LocalMachine
from cluster.model.load import find_decoder
from cluster.planning.timing import PlanTiming
from tests.cluster.tiny import forced, no_progress, tiny_weights
from topology import parse

SMALL = replace(TINY, slice_words=768)
WIDE = {"hidden_size": 640, "intermediate_size": 1600, "num_hidden_layers": 2,
        "num_attention_heads": 10, "num_key_value_heads": 2, "head_dim": 64,
        "vocab_size": 320}  # fmt: skip


@pytest.fixture(scope="module")
def full() -> Lowered:
    """A chip that is 87 % full, though 16 neighbouring slices twice a side are 73 % of it."""
    source, graph = tiny_weights(**WIDE), parse("node")
    plan = partition(source.model, SMALL, 1, 1)
    return lower(plan, place(plan, graph, "node"), graph, source)


def said(plan: Lowered) -> list[np.ndarray]:
    machine = LocalMachine()
    machine.load(plan, no_progress)
    return forced(plan, machine, (1, 5, 9, 20, 3), 7)


def test_a_full_chip_says_what_a_chip_with_room_says_in_planned_cycles(full):
    (stage,) = full.plan.stages
    assert stage.anywhere and stage.sram_bytes > 0.86 * SMALL.sram_bytes
    graph = parse("node")
    timed = PlanTiming(full.plan, full.placement, graph)
    for kind in launch_kinds(full.plan):
        ends = full.launches[str(kind)].end_cycles
        assert timed.launch(kind).cycles == max(ends.values())
    plan = partition(full.plan.model, GROQCHIP1, 1, 1)
    assert not plan.stages[0].anywhere
    roomy = lower(plan, full.placement, graph, full.weights)
    np.testing.assert_array_equal(said(full), said(roomy))


def test_each_fourth_of_a_word_lies_in_slices_of_its_own(full):
    """Columns put together again from the regions that a chip is given are the matrix."""
    (stage,) = full.stages
    name = max(stage.memory.copies, key=lambda name: len(stage.memory[name].stretches))
    buffer = stage.memory[name]
    assert len(buffer.stretches) > 1
    dtype = NUMPY_TYPES[buffer.region.dtype]
    rng = np.random.default_rng(1)
    values = rng.integers(0, 99, (buffer.region.vectors, SMALL.lanes)).astype(dtype)
    slices = np.zeros((SMALL.slice_words, SMALL.lanes, SMALL.slices), np.uint8)
    for region, own in stage.memory.at_rest(name, 1, values):
        planes = np.ascontiguousarray(own).view(np.uint8).reshape(*own.shape, QUAD)
        end = region.address + region.words
        slices[region.address : end, :, region.index : region.index + QUAD] = planes
    for word in range(buffer.region.words):
        quads = [(own.region.index, own.region.address + row) for own, row in buffer.quads(word)]
        further = next(s.words for s in buffer.stretches if s.first <= word < s.first + s.words)
        planes = [slices[at + further, :, index : index + QUAD] for index, at in quads]
        columns = np.concatenate(planes, axis=1).view(dtype).T
        np.testing.assert_array_equal(columns, values[word * len(columns) :][: len(columns)])


def test_a_wide_stage_fills_95_percent_of_a_chip():
    sizes = Sizes(find_decoder("llama-2-70b"), GROQCHIP1, 320, "int8")
    laid = sizes.laid(24, 8, 5, False)
    held = laid.kinds["weights"] + laid.kinds["kv_cache"]
    assert laid.anywhere and held > 0.95 * GROQCHIP1.sram_bytes
