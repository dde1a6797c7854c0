"""Decoders that are not quite Llama: their extra parts compute what the float32 reference does."""

from dataclasses import replace

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
from cluster.model.rope import RopeScaling
from cluster.model.synthetic import TINY, tiny_weights
from tests.cluster.tiny import forced
from topology import parse

VARIANTS = {
    "Qwen2": {"qkv_bias": True},
    "Gemma": {"activation": "gelu"},
    "Llama 3": {"rope_scaling": RopeScaling("llama3", 8.0, 64)},
    "YaRN": {"rope_scaling": RopeScaling("yarn", 4.0, 64, 1.0, 32.0, 1.2)},
    "all": {"qkv_bias": True, "activation": "gelu", "heads": 6, "kv_heads": 3, "layers": 1},
}
PROMPT = [1, 5, 9, 20, 3]


@pytest.mark.parametrize("name, tp", [(name, 1) for name in VARIANTS] + [("all", 2), ("all", 3)])
def test_a_variant_computes_what_the_reference_does(name, tp):
    weights, graph = tiny_weights(replace(TINY, **VARIANTS[name])), parse("node")
    plan = partition(weights.spec, GROQCHIP1, tp, 1)
    lowered = lower(plan, place(plan, graph, "node"), graph, weights)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    reference = Reference(weights, context=16)
    for ours, ids in zip(forced(lowered, machine, PROMPT, 4), (PROMPT, [4]), strict=True):
        assert np.abs(ours - reference.forward(ids)).max() < 0.01


@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3", "gpt-oss-120b", "bert-base"])
def test_run_says_what_no_kernel_executes(model):
    with pytest.raises(ModelError, match="which no kernel executes yet"):
        load_model(model)
