"""W8A8 and W8A16: chips say what NumPy by the same rules says, bit for bit, on any plan."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from chip.jit import set_backend
from chip.spec import GROQCHIP1, LP30
from cluster.cli import main
from cluster.compiler.limits import check_weights
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.errors import BadValue, DoesNotFit
from cluster.facade import plan
from cluster.machines.machine import LocalMachine
from cluster.model.graph.int8 import Int8Matrix
from cluster.model.known import changed_model, known_model
from cluster.model.reference import Reference
from cluster.model.weights.synthetic import SyntheticWeights
from tests.cluster.tiny import PROMPT, forced, no_progress, outcome, tiny_weights
from topology import parse

PLANS = {
    "one chip": (1, 1, "node"),
    "pp and tp": (2, 2, "ring:4"),
    "a head of zeros": (3, 1, "ring:3"),
}
SHAPES = {
    "tiny": {},
    "wide": {
        "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
        "intermediate_size": 700, "num_hidden_layers": 1,
    },
    "biases and GELU": {"attention_bias": True, "hidden_act": "gelu_pytorch_tanh"},
    "Qwen3": {"model_type": "qwen3"},
    "OLMo 2": {"model_type": "olmo2"},
}  # fmt: skip


@dataclass(frozen=True)
class RoundedWeights:
    """Matrices as int8 rows mean them: what float32 makes of these differs by activations only."""

    source: SyntheticWeights

    @property
    def model(self):
        return self.source.model

    def array(self, place, weight, rows=slice(None)):
        found = self.source.array(place, weight)
        if weight.inner:
            rounded = Int8Matrix.of(found)
            found = rounded.integers * rounded.scales[:, None]
        return found[rows]

    def embedding_rows(self, ids):
        return self.source.embedding_rows(ids)


def lowered(
    weights: SyntheticWeights, tp: int, pp: int, topology: str, kind: str = "int8"
) -> Lowered:
    graph = parse(topology)
    plan = partition(weights.model, GROQCHIP1, tp, pp, weights=kind)
    return lower(plan, place(plan, graph, topology), graph, weights)


def loaded(plan: Lowered) -> LocalMachine:
    machine = LocalMachine()
    machine.load(plan, no_progress)
    return machine


@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        ("tiny", "pp and tp"), ("tiny", "a head of zeros"), ("wide", "one chip"),
        ("biases and GELU", "pp and tp"), ("Qwen3", "pp and tp"), ("OLMo 2", "a head of zeros"),
    ],
)  # fmt: skip
def test_logits_equal_the_reference_bit_for_bit(shape, plan):
    weights = tiny_weights(**SHAPES[shape])
    here = lowered(weights, *PLANS[plan])
    reference = Reference(weights, 64, PLANS[plan][0], exact=True)
    ours = forced(here, loaded(here), PROMPT, 7, 80, 2)
    for logits, ids in zip(ours, (PROMPT, [7], [80], [2]), strict=True):
        assert np.array_equal(logits, reference.forward(ids))


@pytest.mark.parametrize(
    ("shape", "plan"), [("wide", "one chip"), ("biases and GELU", "pp and tp")]
)
def test_rows_of_16_bits_equal_the_reference_bit_for_bit_and_are_closer(shape, plan):
    """Prompts and single tokens: what is left of the distance to float32 is that of the weights."""
    weights = tiny_weights(**SHAPES[shape])
    here = lowered(weights, *PLANS[plan], "w8a16")
    exact, coarse = (
        Reference(weights, 64, PLANS[plan][0], exact=True, integers=kind) for kind in ("i16", "i8")
    )
    rounded = Reference(RoundedWeights(weights), 64)
    ours = forced(here, loaded(here), PROMPT, 7, 80, 2)
    for logits, ids in zip(ours, (PROMPT, [7], [80], [2]), strict=True):
        wanted, int8 = rounded.forward(ids), coarse.forward(ids)
        assert np.array_equal(logits, exact.forward(ids))
        assert np.abs(logits - wanted).max() < 0.1 * np.abs(int8 - wanted).max()


def test_a_long_context_adds_its_blocks_in_order():
    weights, graph, ids = tiny_weights(), parse("node"), [n % 128 for n in range(330)]
    plan = partition(weights.model, GROQCHIP1, 1, 1, context=400, weights="int8")
    here = lower(plan, place(plan, graph, "node"), graph, weights)
    (ours,) = forced(here, loaded(here), ids)
    assert np.array_equal(ours, Reference(weights, 400, exact=True).forward(ids))


def test_the_numpy_and_the_compiled_path_give_one_digest():
    found = set()
    for backend in ("numpy", "auto"):
        set_backend(backend)
        try:
            here = lowered(tiny_weights(), 1, 1, "node")
            found.add(outcome(here, loaded(here)))
        finally:
            set_backend("auto")
    assert len(found) == 1


# --- plans ----------------------------------------------------------------------------------
def test_int8_needs_about_half_the_memory():
    spec = known_model("smollm2")
    needs = [partition(spec, GROQCHIP1, 1, 6, weights=w).sram_bytes_max for w in ("fp16", "int8")]
    assert 0.45 < needs[1] / needs[0] < 0.6


def test_a_layer_of_the_70b_model_fits_eight_chips_in_int8_only():
    spec = known_model("llama-2-70b")
    with pytest.raises(DoesNotFit):
        partition(spec, GROQCHIP1, 8, 80)
    assert partition(spec, GROQCHIP1, 8, 80, weights="int8").sram_bytes_max < 170e6


def test_heads_must_be_whole_words_of_sixteen_columns():
    model = changed_model("tiny", head_dim=24)
    with pytest.raises(
        BadValue, match="int8 needs heads of a multiple of 16 elements, tiny has 24"
    ):
        partition(model, GROQCHIP1, 1, 1, weights="int8")


def test_a_chip_without_int8_is_refused():
    spec = replace(LP30, name="narrow", mxm_types=("f16",))
    with pytest.raises(BadValue, match="chip narrow multiplies fp16"):
        partition(known_model("tiny"), spec, 1, 1, weights="int8")


def test_the_command_line_takes_the_type_of_the_weights(capsys):
    line = ["run", "tiny", "--prompt-ids", "1", "--max-new-tokens", "1", "--json", "--weights"]
    assert main([*line, "int8"]) == 0
    assert '"weights": "int8"' in capsys.readouterr().out
    assert main([*line, "w8a16", "--accuracy"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["weights"] == "w8a16" and found["accuracy"]["tokens"] == 1
    assert 0 < found["accuracy"]["logit_distance_rms"] < found["accuracy"]["logit_distance_max"] < 1
    assert main([*line, "w8a16", "--accuracy", "--draft", "ngram:3"]) == 2
    assert "--accuracy : is for one prompt, token by token: no --draft" in capsys.readouterr().err
    assert main([*line, "int4"]) == 2


def test_an_encoder_takes_no_rows_of_16_bits():
    with pytest.raises(
        BadValue, match="w8a16: is for decoders, bert-base is an encoder: take fp16"
    ):
        check_weights(known_model("bert-base"), GROQCHIP1, "w8a16")


def test_a_plan_with_16_bits_says_what_they_cost_in_accuracy():
    notes = [plan("tiny", chips=1, weights=kind)["notes"] for kind in ("int8", "w8a16")]
    assert notes[0] == [] and "1.57 in w8a16, 5.86 in int8, 0.0651 in fp16" in notes[1][0]
