"""Golden models of a public library on emulated chips: equal tokens, and logits near float32.

tests/data/architectures holds tiny random models with prompts, greedy tokens, their margins and
logits, made with transformers in float32.
"""

import itertools

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.machines.machine import LocalMachine
from cluster.model.reference import Reference
from cluster.model.weights.safetensors import open_folder
from tests.cluster.model.test_golden import DATA, cases_of, tokens_until_close
from tests.cluster.tiny import forced, no_progress
from topology import parse

NAMES = ("llama3-rope", "qwen2", "qwen3", "olmo2", "phi3", "gemma2", "gemma3", "mistral-window")
# tp, pp (0 is a layer a stage), topology; the widest has a head on each chip
PLANS = {"tp 1": (1, 1, "node"), "tp 2, layer by layer": (2, 0, "node"), "tp 6": (6, 1, "node")}
MIXTURES = ("mixtral", "qwen3-moe")  # whose gathers are interpreted: in the widest group one case
UNEVEN = {"tp 3, layer by layer": (3, 0, "torus:3x3")}  # ranks whose heads share KV heads
LOGITS = 0.025  # largest distance of a logit from float32; 0.0098 was measured


def on_chips(name: str, plan: str, weights: str):
    """The weights, the lowered plan, and a machine that has loaded it."""
    source = open_folder(DATA / "architectures" / name, name)
    tp, pp, topology = (PLANS | UNEVEN)[plan]
    graph = parse(topology)
    cut = partition(source.model, GROQCHIP1, tp, pp or len(source.model.layers), weights=weights)
    lowered = lower(cut, place(cut, graph, topology), graph, source)
    machine = LocalMachine()
    machine.load(lowered, no_progress)
    return source, lowered, machine


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        *itertools.product((*NAMES, *MIXTURES), PLANS),
        *itertools.product(("qwen3", "olmo2"), UNEVEN),
    ],
)
def test_chips_give_the_public_librarys_tokens_and_logits(name, plan):
    _, lowered, machine = on_chips(name, plan, "fp16")
    short = name in MIXTURES and lowered.plan.tp > 2
    for case in cases_of(name)[: 1 if short else None]:
        wanted = tokens_until_close(case)
        logits = forced(lowered, machine, case["prompt_ids"], *case["output_ids"][:-1])
        assert [int(row.argmax()) for row in logits][: len(wanted)] == wanted
        assert np.abs(logits[0] - case["first_logits"]).max() < LOGITS
        assert np.abs(logits[-1] - case["last_logits"]).max() < LOGITS


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("llama3-rope", "tp 1"),
        ("qwen2", "tp 2, layer by layer"),
        ("qwen3", "tp 3, layer by layer"),
        ("olmo2", "tp 3, layer by layer"),
        ("phi3", "tp 6"),
        ("gemma2", "tp 2, layer by layer"),
        ("gemma3", "tp 1"),
        ("mistral-window", "tp 2, layer by layer"),
        ("mixtral", "tp 1"),
        ("qwen3-moe", "tp 2, layer by layer"),
    ],
)
def test_int8_logits_are_the_interpreters_bit_for_bit(name, plan):
    source, lowered, machine = on_chips(name, plan, "int8")
    case = cases_of(name)[0]
    reference = Reference(source, 64, lowered.plan.tp, exact=True)
    ids = (case["prompt_ids"], *([token] for token in case["output_ids"][:3]))
    logits = forced(lowered, machine, case["prompt_ids"], *case["output_ids"][:3])
    for ours, mine in zip(logits, ids, strict=True):
        assert np.array_equal(ours, reference.forward(mine))
