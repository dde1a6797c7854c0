"""W8A8: chips say what a NumPy reference of the same rules says, bit for bit, on any plan."""

from dataclasses import replace

import numpy as np
import pytest

from chip.jit import set_backend
from chip.spec import GROQCHIP1, LP30
from cluster.cli import main
from cluster.errors import BadValue, DoesNotFit
from cluster.generation.session import Session
from cluster.lowering.lower import Lowered, lower
from cluster.lowering.quantised import quantised
from cluster.machines.machine import LocalMachine
from cluster.mapping.partition import partition
from cluster.mapping.placement import place
from cluster.model.presets import named_spec
from cluster.model.reference import Reference
from cluster.model.reference_int8 import Int8Matrix, Int8Rows, ReferenceInt8, integer_dot, lane_sum
from cluster.model.spec import ModelSpec
from cluster.model.synthetic import TINY, tiny_weights
from tests.cluster.tiny import PROMPT, no_progress, outcome
from topology import parse

PLANS = {"one chip": (1, 1, "node"), "pp and tp": (2, 2, "ring:4")}
WIDE = replace(TINY, hidden=576, heads=9, kv_heads=3, head_dim=64, ffn=700, layers=1)
OTHER = replace(TINY, qkv_bias=True, activation="gelu")


def lowered(spec: ModelSpec, tp: int, pp: int, topology: str) -> Lowered:
    weights, graph = tiny_weights(spec), parse(topology)
    plan = partition(spec, GROQCHIP1, tp, pp, weights="int8")
    return lower(plan, place(plan, graph, topology), graph, weights)


def loaded(plan: Lowered) -> LocalMachine:
    machine = LocalMachine()
    machine.load(plan, no_progress)
    return machine


@pytest.mark.parametrize(
    ("spec", "plan"),
    [(TINY, "pp and tp"), (WIDE, "one chip"), (OTHER, "one chip")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_logits_equal_the_reference_bit_for_bit(spec, plan):
    here = lowered(spec, *PLANS[plan])
    session = Session(here, loaded(here))
    reference = ReferenceInt8(tiny_weights(spec), context=64, tp=PLANS[plan][0])
    assert np.array_equal(session.prefill(PROMPT), reference.forward(PROMPT))
    for token in (7, 80, 2):
        assert np.array_equal(session.decode(token), reference.forward([token]))


def test_a_long_context_adds_its_blocks_in_order():
    weights, graph, ids = tiny_weights(), parse("node"), [n % 128 for n in range(330)]
    plan = partition(weights.spec, GROQCHIP1, 1, 1, context=400, weights="int8")
    here = lower(plan, place(plan, graph, "node"), graph, weights)
    session, reference = Session(here, loaded(here)), ReferenceInt8(weights, context=400)
    assert np.array_equal(session.prefill(ids), reference.forward(ids))


def test_the_numpy_and_the_compiled_path_give_one_digest():
    found = set()
    for backend in ("numpy", "auto"):
        set_backend(backend)
        try:
            here = lowered(TINY, 1, 1, "node")
            found.add(outcome(here, loaded(here)))
        finally:
            set_backend("auto")
    assert len(found) == 1


def test_int8_stays_near_float32():
    reference, wanted = ReferenceInt8(tiny_weights(), 64), Reference(tiny_weights(), 64)
    assert np.abs(reference.forward(PROMPT) - wanted.forward(PROMPT)).max() < 0.15


def test_integer_sums_equal_int64():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-128, 128, (n, 3000)).astype(np.float32) for n in (3, 5))
    exact = a.astype(np.int64) @ b.astype(np.int64).T
    assert (integer_dot(a, b) == exact).all()


@pytest.mark.parametrize("total", [64, 320, 576, 1000])
def test_the_order_of_a_sum_over_lanes_is_nearly_no_matter(total):
    rows = np.random.default_rng(total).standard_normal((3, total), np.float32) ** 2
    assert np.allclose(lane_sum(rows)[:, 0], rows.astype(np.float64).sum(axis=1), rtol=1e-6)


def test_weights_round_to_half_a_step_and_both_sides_alike():
    matrix = np.random.default_rng(1).standard_normal((20, 30), np.float32)
    matrix[3] = 0
    integers, scales = quantised(matrix)
    assert np.abs(integers * scales[:, None] - matrix).max() <= scales.max() * 0.501
    theirs = Int8Matrix.of(matrix)
    assert (theirs.integers == integers).all()
    assert (theirs.scales == scales).all()


def test_each_part_of_a_row_has_a_step_of_its_own():
    rows = np.float32([[1, 2, 300, 400], [0, 0, 0, 0]])
    (_, left, first), (_, right, second) = Int8Rows.of(rows, [2, 2]).parts
    assert left.tolist() == [[64, 127], [0, 0]]
    assert right.tolist() == [[95, 127], [0, 0]]
    assert np.allclose(first[0], 2 / 127) and np.allclose(second[0], 400 / 127)


# --- plans ----------------------------------------------------------------------------------
def test_int8_needs_about_half_the_memory():
    spec = named_spec("smollm2")
    needs = [partition(spec, GROQCHIP1, 1, 6, weights=w).sram_bytes_max for w in ("fp16", "int8")]
    assert 0.45 < needs[1] / needs[0] < 0.6


def test_a_layer_of_the_70b_model_fits_eight_chips_in_int8_only():
    spec = named_spec("llama-2-70b")
    with pytest.raises(DoesNotFit):
        partition(spec, GROQCHIP1, 8, 80)
    assert partition(spec, GROQCHIP1, 8, 80, weights="int8").sram_bytes_max < 170e6


def test_heads_must_be_whole_words_of_sixteen_columns():
    spec = replace(TINY, head_dim=24)
    with pytest.raises(
        BadValue, match="int8 needs heads of a multiple of 16 elements, tiny has 24"
    ):
        partition(spec, GROQCHIP1, 1, 1, weights="int8")


def test_a_chip_without_int8_is_refused():
    spec = replace(LP30, name="narrow", mxm_types=("f16",))
    with pytest.raises(BadValue, match="chip narrow multiplies fp16"):
        partition(TINY, spec, 1, 1, weights="int8")


def test_the_command_line_takes_the_type_of_the_weights(capsys):
    line = ["run", "tiny", "--prompt-ids", "1", "--max-new-tokens", "1", "--json", "--weights"]
    assert main([*line, "int8"]) == 0
    assert '"weights": "int8"' in capsys.readouterr().out
    assert main([*line, "int4"]) == 2
