"""Golden models of a public library on emulated chips: equal tokens, and logits near float32.

tests/data/architectures holds tiny random models with prompts, greedy tokens, their margins and
logits, made with transformers in float32.
"""

import itertools
import json

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.compiler.limits import ACTIVATION_TYPES
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.machines.machine import LocalMachine
from cluster.model.mixture import spread_experts
from cluster.model.reference import Reference
from cluster.model.weights.safetensors import open_folder
from tests.cluster.model.test_golden import DATA, NAMES, cases_of, tokens_until_close
from tests.cluster.tiny import forced, no_progress
from topology import parse
from topology.clocks import ClockSpec

# tp, pp (0 is a layer a stage), topology; the widest has a head on each chip
PLANS = {"tp 1, layer by layer": (1, 0, "node"), "tp 6": (6, 1, "node")}
MORE = {"tp 1": (1, 1, "node"), "tp 2, layer by layer": (2, 0, "node")}
WIDE = {"gemma2": "tp 2, layer by layer", "qwen3-moe": "tp 6"}  # else int8 runs on one chip
# Experts over so many parts of tp ranks; of four parts each holds fewer than a token chooses.
SPREAD = {"ep 2": (1, 2), "tp 2, ep 2": (2, 2), "ep 4": (1, 4)}
UNEVEN = {"tp 3, layer by layer": (3, 0, "torus:3x3")}  # ranks whose heads share KV heads
LOGITS = 0.025  # largest distance of a logit from float32; 0.0098 was measured


def on_chips(
    name: str, plan: str, weights: str, drift_ppm: float = ClockSpec().drift_ppm, ep: int = 1
):
    """The weights, the lowered plan, and a machine that has loaded it."""
    source = open_folder(DATA / "architectures" / name, name)
    tp, pp, topology = (PLANS | MORE | UNEVEN)[plan]
    graph, model = parse(topology), spread_experts(source.model, ep)
    cut = partition(model, GROQCHIP1, tp, pp or len(model.layers), weights=weights)
    clock = ClockSpec(drift_ppm=drift_ppm)
    lowered = lower(cut, place(cut, graph, topology), graph, source, clock)
    machine = LocalMachine()
    machine.load(lowered, no_progress)
    return source, lowered, machine


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        *itertools.product(NAMES, PLANS),
        *(pytest.param(*case, marks=pytest.mark.soak) for case in itertools.product(NAMES, MORE)),
        *(pytest.param("qwen3", plan, marks=pytest.mark.soak) for plan in UNEVEN),
    ],
)
def test_chips_give_the_public_librarys_tokens_and_logits(name, plan):
    _, lowered, machine = on_chips(name, plan, "fp16")
    for case in cases_of(name):
        wanted = tokens_until_close(case)
        logits = forced(lowered, machine, case["prompt_ids"], *case["output_ids"][:-1])
        assert [int(row.argmax()) for row in logits][: len(wanted)] == wanted
        assert np.abs(logits[0] - case["first_logits"]).max() < LOGITS
        assert np.abs(logits[-1] - case["last_logits"]).max() < LOGITS


@pytest.mark.parametrize(("name", "spread"), [
    ("gpt-oss", "tp 2, ep 2"),
    ("mixtral", "ep 4"),
    pytest.param("mixtral", "ep 2", marks=pytest.mark.soak),
    pytest.param("deepseek-v3", "ep 2", marks=pytest.mark.soak),
    pytest.param("deepseek-v3", "tp 2, ep 2", marks=pytest.mark.soak),
    pytest.param("mixtral", "tp 2, ep 2", marks=pytest.mark.soak),
    pytest.param("gpt-oss", "ep 2", marks=pytest.mark.soak),
])  # fmt: skip
def test_experts_spread_over_chips_give_the_same_tokens(name, spread, capsys):
    tp, ep = SPREAD[spread]
    options = ["--tp", str(tp), "--ep", str(ep), "--max-new-tokens", "8", "--json"]
    case, folder = cases_of(name)[0], str(DATA / "architectures" / name)
    ids = ",".join(map(str, case["prompt_ids"]))
    assert main(["run", folder, "--prompt-ids", ids, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    wanted = tokens_until_close(case)[:8]
    assert report["output_ids"][: len(wanted)] == wanted
    assert report["plan"]["chips"] == tp * ep and report["host"]["interpreted_nodes"] == 0
    assert len(set(report["emulated"]["decode_cycles"])) == 1


@pytest.mark.parametrize(
    ("name", "plan", "weights"),
    [
        *((name, WIDE.get(name, "tp 1"), "int8") for name in NAMES),
        *itertools.product(("olmo2",), UNEVEN, ("int8",)),
        ("mixtral", "tp 1", "w8a16"),
        *(
            pytest.param(name, "tp 6", weights, marks=pytest.mark.soak)
            for name, weights in itertools.product(NAMES, ("int8", "w8a16"))
            if name not in WIDE
        ),
    ],
)
def test_logits_of_int8_weights_are_the_interpreters_bit_for_bit(name, plan, weights):
    source, lowered, machine = on_chips(name, plan, weights)
    case, integers = cases_of(name)[0], ACTIVATION_TYPES[weights]
    reference = Reference(source, 64, lowered.plan.tp, exact=True, integers=integers)
    ids = (case["prompt_ids"], *([token] for token in case["output_ids"][:3]))
    logits = forced(lowered, machine, case["prompt_ids"], *case["output_ids"][:3])
    for ours, mine in zip(logits, ids, strict=True):
        assert np.array_equal(ours, reference.forward(mine))


def test_a_mixture_stalls_between_its_ops_where_the_clocks_demand_it():
    """Tokens of a prompt go one by one through their experts: its FFN is longer than a stretch."""
    case = cases_of("mixtral")[0]
    _, lowered, machine = on_chips("mixtral", "tp 2, layer by layer", "fp16", drift_ppm=1300)
    (logits,) = forced(lowered, machine, case["prompt_ids"])
    assert np.abs(logits - case["first_logits"]).max() < LOGITS
    stage, routes = lowered.stages[0], lowered.pipeline.groups[0].routes
    limit = lowered.clocking.pace(0).limit_cycles
    whole, parts = (
        [step for step in stage.steps(lowered.plan.chunk, 1, routes, most) if step.what == "ffn"]
        for most in (None, limit)
    )
    assert max(step.cycles for step in whole) > limit >= max(step.cycles for step in parts)
