"""Matrices in all slices of a chip: they fill it, and say what they say in 16 neighbours."""

from dataclasses import replace

import numpy as np
import pytest

from chip.isa import NUMPY_TYPES
from chip.kernels.sram_map import QUAD
from chip.spec import GROQCHIP1, TINY
from cluster.compiler.choose import PlanRequest
from cluster.compiler.launch import launch_kinds
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.sizes import Sizes
from cluster.compiler.stages import partition
from cluster.machines.machine import LocalMachine
from cluster.model.known import changed_model
from cluster.model.load import find_decoder
from cluster.model.mixture import spread_experts
from cluster.model.reference import Reference
from cluster.model.weights.synthetic import SyntheticWeights
from cluster.planning.cost_store import CostStore
from cluster.planning.rows import choose_rows
from cluster.planning.timing import PlanTiming
from tests.cluster.tiny import forced, no_progress, tiny_weights
from topology import parse

SMALL = replace(TINY, slice_words=4008)
LONG = {"hidden_size": 640, "intermediate_size": 6400, "num_hidden_layers": 4,
        "num_attention_heads": 10, "num_key_value_heads": 1, "head_dim": 64,
        "vocab_size": 320}  # fmt: skip
PROMPT, NEXT = (1, 5, 9, 20, 3), 7


@pytest.fixture(scope="module")
def full() -> Lowered:
    """A chip of which weights and caches take over 95 %; in 16 neighbours there are 73 % of it."""
    source, graph = tiny_weights(**LONG), parse("node")
    plan = partition(source.model, SMALL, 1, 1)
    return lower(plan, place(plan, graph, "node"), graph, source)


def test_a_full_chip_says_what_the_reference_says_in_planned_cycles(full):
    (stage,) = full.plan.stages
    kinds = full.stages[0].memory.bytes_by_kind()
    assert stage.anywhere
    assert kinds["weights"] + kinds["kv_cache"] > 0.95 * SMALL.sram_bytes
    timed = PlanTiming(full.plan, full.placement, parse("node"))
    for kind in launch_kinds(full.plan):
        ends = full.launches[str(kind)].end_cycles
        assert timed.launch(kind).cycles == max(ends.values())
    machine = LocalMachine()
    machine.load(full, no_progress)
    reference = Reference(full.weights, context=16)
    for ours, ids in zip(forced(full, machine, PROMPT, NEXT), (PROMPT, [NEXT]), strict=True):
        assert np.abs(ours - reference.forward(ids)).max() < 0.01


@pytest.mark.soak
def test_a_cluster_whose_weights_fill_95_percent_says_what_the_reference_says():
    source, graph = (
        tiny_weights(**(LONG | {"num_hidden_layers": 16, "num_key_value_heads": 2})),
        parse("node"),
    )
    spec = replace(TINY, slice_words=7896)
    plan = partition(source.model, spec, 1, 2)
    made = lower(plan, place(plan, graph, "node"), graph, source)
    held = [stage.memory.bytes_by_kind()["weights"] for stage in made.stages]
    assert sum(held) > 0.95 * plan.pp * spec.sram_bytes
    machine, reference = LocalMachine(), Reference(made.weights, context=16)
    machine.load(made, no_progress)
    for ours, ids in zip(forced(made, machine, PROMPT, NEXT), (PROMPT, [NEXT]), strict=True):
        assert np.abs(ours - reference.forward(ids)).max() < 0.01


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


MIXED = {"num_hidden_layers": 2, "hidden_size": 640, "num_attention_heads": 10,
         "num_key_value_heads": 2, "intermediate_size": 640, "vocab_size": 320,
         "num_local_experts": 6, "num_experts_per_tok": 3}  # fmt: skip


def test_experts_that_are_cut_say_what_the_interpreter_says_bit_for_bit():
    """Addresses of one word differ from quad to quad, and regions lie in both banks of a slice."""
    source, graph = SyntheticWeights(changed_model("gpt-oss-20b", **MIXED)), parse("node")
    spec = replace(TINY, slice_words=920)
    plan = partition(source.model, spec, 1, 1, weights="int8")
    made = lower(plan, place(plan, graph, "node"), graph, source)
    cut = [b for b in made.stages[0].memory.buffers.values() if b.stretches]
    experts = [buffer for buffer in cut if buffer.stretches[0].copies > 1]
    assert any(len(buffer.stretches) > 1 for buffer in experts)
    ends = [(at // spec.bank_words, (at + one.words * one.copies - 1) // spec.bank_words)
            for b in experts for one in b.stretches for _, at in one.places]  # fmt: skip
    assert any(low < high for low, high in ends)
    machine, reference = LocalMachine(), Reference(source, 64, exact=True)
    machine.load(made, no_progress)
    for ours, ids in zip(forced(made, machine, PROMPT, NEXT), (PROMPT, [NEXT]), strict=True):
        assert np.array_equal(ours, reference.forward(ids))


@pytest.mark.soak
@pytest.mark.parametrize(("ep", "tp", "layers"), [(16, 48, 3), (64, 64, 4)])
def test_gpt_oss_120b_fills_576_chips(ep, tp, layers):
    model = spread_experts(find_decoder("gpt-oss-120b"), ep)
    sizes = Sizes(model, GROQCHIP1, 320, "int8", cut=True)
    assert tp * (len(model.layers) // layers) == 576
    for head in (False, True):
        assert sum(sizes.laid(tp, 8, layers, head).kinds.values()) > 0.91 * GROQCHIP1.sram_bytes


def test_a_wide_stage_fills_95_percent_of_a_chip():
    sizes = Sizes(find_decoder("llama-2-70b"), GROQCHIP1, 320, "int8", cut=True)
    laid = sizes.laid(24, 8, 5, False)
    held = laid.kinds["weights"] + laid.kinds["kv_cache"]
    assert laid.anywhere and held > 0.95 * GROQCHIP1.sram_bytes


@pytest.mark.parametrize("slots", [4, 12, 16, 24, 30, 38])
def test_a_stage_that_holds_the_caches_of_many_holds_those_of_fewer(slots):
    sizes = Sizes(find_decoder("llama-2-70b"), GROQCHIP1, 320, "int8", slots, 2, cut=True)
    assert sizes.laid(16, 8, 3, False).anywhere


def test_one_side_of_a_chip_holds_columns_of_the_other():
    """The vocabulary's share on eight chips is 16,640 words on its side, of 22,528."""
    sizes = Sizes(find_decoder("gemma-3-4b"), GROQCHIP1, 320, "fp16", cut=True)
    held = sizes.laid(8, 8, 2, True).kinds
    assert held["weights"] + held["kv_cache"] > 0.95 * GROQCHIP1.sram_bytes


def test_rows_are_chosen_for_a_plan_of_cut_matrices(tmp_path):
    chip = tmp_path / "small.toml"
    chip.write_text('name = "small"\nbase = "groqchip1"\nslice_words = 880\n')
    model = tiny_weights(**(LONG | {"intermediate_size": 1600, "num_hidden_layers": 2})).model
    found = choose_rows(model, PlanRequest(chips=1, spec=str(chip), batch=2), CostStore())
    assert found.plan.cut and found.plan.slots == 2
