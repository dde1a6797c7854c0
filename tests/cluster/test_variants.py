"""Decoders that are not quite Llama: their extra parts compute what the float32 reference does."""

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.errors import ModelError
from cluster.machines.machine import LocalMachine
from cluster.model.load import load_model
from cluster.model.reference import Reference
from tests.cluster.tiny import forced, tiny_weights
from topology import parse

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
YARN |= {"attention_factor": 1.2}
VARIANTS = {
    "Qwen2": {"model_type": "qwen2"},
    "Qwen3": {"model_type": "qwen3"},
    "OLMo 2": {"model_type": "olmo2"},
    "GELU": {"hidden_act": "gelu_pytorch_tanh"},
    "Llama 3": {"rope_scaling": LLAMA3},
    "YaRN": {"rope_scaling": YARN},
    "all": {
        "hidden_act": "gelu_pytorch_tanh", "attention_bias": True, "num_hidden_layers": 1,
        "num_attention_heads": 6, "num_key_value_heads": 3,
    },
}  # fmt: skip
PROMPT = [1, 5, 9, 20, 3]


@pytest.mark.parametrize(
    "name, tp",
    [(name, 1) for name in VARIANTS] + [("all", 2), ("all", 3), ("Qwen3", 3), ("OLMo 2", 3)],
)
def test_a_variant_computes_what_the_reference_does(name, tp):
    weights, graph = tiny_weights(**VARIANTS[name]), parse("node")
    plan = partition(weights.model, GROQCHIP1, tp, 1)
    lowered = lower(plan, place(plan, graph, "node"), graph, weights)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    reference = Reference(weights, context=16)
    for ours, ids in zip(forced(lowered, machine, PROMPT, 4), (PROMPT, [4]), strict=True):
        assert np.abs(ours - reference.forward(ids)).max() < 0.01


@pytest.mark.parametrize("model", ["llama-4-scout", "glm-4.5", "minimax-m2.7"])
def test_run_says_what_no_kernel_executes(model):
    with pytest.raises(ModelError, match="which no kernel executes yet"):
        load_model(model)
