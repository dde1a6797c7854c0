"""The real model, on emulated chips, against tokens of an independent implementation.

The reference (PyTorch, float32) also recorded by how much its first choice led at each step: a
different token where that margin is below 0.05 is a near tie, after which texts may part.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.compiler.limits import ACTIVATION_TYPES
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.compiler.shard import shard
from cluster.compiler.stages import partition, smallest
from cluster.compiler.sums import MEASURED_INT8, MEASURED_LOGITS
from cluster.generation.sampling import Sampling, greedy
from cluster.machines.machine import LocalMachine
from cluster.model.graph.graph import Section
from cluster.model.graph.route import Route
from cluster.model.graph.source import Weights
from cluster.model.interpreter import Stage
from cluster.model.load import MIXTURE, find_model, load_model
from cluster.model.reference import Reference
from cluster.model.weights.copied import CopiedExperts
from cluster.planning.refusals import LOGIT_DISTANCES
from cluster.serving.engine import Logits, PipelineRunner
from cluster.serving.requests import Request
from tests.cluster.test_int8 import RoundedWeights
from topology import parse
from topology.collectives import SUM_FORMATS

NEAR_TIE = 0.05
# Largest difference of any of the 49,152 logits from float32: fp16 weights and activations. The
# aim is 0.05 everywhere; with tensor parallelism the rounding falls otherwise, 0.058 was measured.
LOGIT_TOLERANCE = {"smallest": 0.05, "node": 0.08}
# Cycles of a prefill beside as many decode launches. With tensor parallelism the partial sums of a
# chunk queue on the links: 0.28 was measured.
PREFILL_SHARE = {"smallest": 0.25, "node": 0.3}
PLANS = {"smallest": None, "node": (3, 2, "node"), "torus": (3, 30, "torus:9x10")}


@pytest.fixture(scope="module")
def model(smollm2_path):
    return load_model("smollm2")


@pytest.fixture(
    scope="module",
    params=["smallest", "node", pytest.param("torus", marks=pytest.mark.soak)],
)
def loaded(request, model) -> Iterator[tuple[str, Lowered, LocalMachine]]:
    """A machine with the model on one of the plans."""
    chosen = PLANS[request.param]
    if chosen is None:
        plan, spec = smallest(model.model, GROQCHIP1, 320), "node"
    else:
        tp, pp, spec = chosen
        plan = partition(model.model, GROQCHIP1, tp, pp)
    graph = parse(spec)
    lowered = lower(plan, place(plan, graph, spec), graph, model.weights)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    yield request.param, lowered, machine
    machine.close()


def sure_steps(case: dict) -> int:
    """Tokens that must be equal: up to the first near tie, which may itself go either way."""
    ties = [n for n, margin in enumerate(case["top1_margin"]) if margin < NEAR_TIE]
    return ties[0] if ties else len(case["output_ids"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_plan_gives_the_reference_tokens(loaded, greedy_cases, model):
    name, lowered, machine = loaded
    cases = greedy_cases if name != "torus" else greedy_cases[:1]  # `make bench` runs the rest
    for case in cases:
        wanted = case["output_ids"]
        stop = model.tokenizer.stop
        runner = PipelineRunner(lowered, machine)
        got = list(runner.generate(case["prompt_ids"], len(wanted), Sampling(), stop))
        assert got[: sure_steps(case)] == wanted[: sure_steps(case)], case["prompt"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_logits_are_close_to_float32_and_prefill_is_cheap(loaded, greedy_cases, model):
    name, lowered, machine = loaded
    if name == "torus":
        return  # the arithmetic of the node plan
    prompt = greedy_cases[0]["prompt_ids"]
    wanted, seen = Reference(model.weights, context=64).forward(prompt), []

    def pick(logits: Logits, step: int) -> int:
        seen.append(logits)
        return greedy(logits)

    runner = PipelineRunner(lowered, machine)
    for _ in runner.answer([Request(tuple(prompt), 2)], pick, frozenset()):
        pass
    assert np.abs(seen[0] - wanted).max() < LOGIT_TOLERANCE[name]
    *prefill, decode = runner.cycles
    assert sum(prefill) < PREFILL_SHARE[name] * len(prompt) * decode


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sums_between_nodes_in_fp16_move_logits_as_plans_and_documents_say(greedy_cases, model):
    """Of two nodes, of whose ranks seven have a head of zeros; in float32 but for these sums."""
    found = [logits(model.weights, greedy_cases, sums) for sums in SUM_FORMATS]
    moved, said = np.abs(found[1] - found[0]).max(), MEASURED_LOGITS["fp16"]
    assert 0.8 * said < moved < 1.1 * said, moved  # as BLAS adds otherwise elsewhere
    assert (found[0].argmax(1) == found[1].argmax(1)).all()
    page = Path(__file__).parents[1] / "docs/accuracy.md"
    assert f"| {said:.3f} |" in page.read_text(encoding="utf-8")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_int8_is_no_farther_from_float32_with_sums_in_fp16(greedy_cases, model):
    """One rounding that falls otherwise changes all that follows: logits move, but not away."""
    whole = logits(model.weights, greedy_cases, "fp32")
    wide, narrow = (
        np.abs(logits(model.weights, greedy_cases, sums, exact=True) - whole).mean()
        for sums in SUM_FORMATS
    )
    assert max(abs(wide - MEASURED_INT8), abs(narrow - MEASURED_INT8)) < 0.03


def logits(weights: Weights, cases: list[dict], sums: str, exact: bool = False) -> np.ndarray:
    """What the reference on 16 ranks says of prompts and the first tokens that follow them."""
    reference, rows = Reference(WithSums(weights, sums), 320, tp=16, exact=exact), []
    for case in cases:
        reference.reset()
        rows.append(reference.rows(case["prompt_ids"] + case["output_ids"][:8]))
    return np.concatenate(rows)


class WithSums:
    """Weights of a model whose sums travel between nodes in a format."""

    def __init__(self, weights: Weights, sums: str) -> None:
        self.model = weights.model.with_sums(sums)
        self.array, self.embedding_rows = weights.array, weights.embedding_rows


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("weights", ["int8", "w8a16"])
def test_int8_weights_give_the_logits_of_their_reference_as_far_from_float32_as_is_said(
    greedy_cases, model, weights
):
    """The prompt is that of docs/accuracy.md. In W8A16 the rounding of weights is what is off."""
    plan, graph = smallest(model.model, GROQCHIP1, 320, weights=weights), parse("node")
    lowered = lower(plan, place(plan, graph, "node"), graph, model.weights)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    prompt = greedy_cases[1]["prompt_ids"]
    reference = Reference(model.weights, 64, exact=True, integers=ACTIVATION_TYPES[weights])
    ids, seen = [list(prompt)], []

    def pick(logits: Logits, step: int) -> int:
        assert np.array_equal(logits, reference.forward(ids[-1]))
        ids.append([greedy(logits)])
        seen.append(logits)
        return ids[-1][0]

    request = Request(tuple(prompt), 5)
    assert len(list(PipelineRunner(lowered, machine).answer([request], pick, frozenset()))) == 5
    machine.close()
    off = np.abs(seen[0] - Reference(model.weights, 64).forward(prompt)).max()
    assert 0.7 < off / LOGIT_DISTANCES[weights] < 1
    if weights == "w8a16":
        rounded = Reference(RoundedWeights(model.weights), 64).forward(prompt)
        assert np.abs(seen[0] - rounded).max() < LOGIT_TOLERANCE["smallest"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "tp", "pp", "topology"),
    [("smollm2-moe8", 3, 5, "torus:3x5"), ("smollm2-moe8:7", 2, 8, "torus:4x4")],
)
def test_copied_experts_give_the_reference_tokens_by_any_router(
    smollm2_path, greedy_cases, name, tp, pp, topology
):
    """Gates add up to one, so that the experts of a mixture say what the dense model says."""
    mixture, graph = load_model(name), parse(topology)
    plan = partition(mixture.model, GROQCHIP1, tp, pp)
    lowered = lower(plan, place(plan, graph, topology), graph, mixture.weights)
    machine = LocalMachine()
    machine.load(lowered, lambda *_: None)
    for case in greedy_cases:
        sure = sure_steps(case)
        runner = PipelineRunner(lowered, machine)
        got = runner.generate(case["prompt_ids"], sure, Sampling(), mixture.tokenizer.stop)
        assert list(got) == case["output_ids"][:sure], case["prompt"]
        *_, one, other = runner.cycles
        assert one == other, "cycles depend on the experts that are chosen"
    machine.close()


def test_another_router_chooses_other_experts(model, greedy_cases):
    """In the first layer, for most tokens of a prompt."""
    ids, chosen = greedy_cases[0]["prompt_ids"], []
    for seed in (0, 7):
        weights = CopiedExperts(find_model(MIXTURE), model.weights, seed)
        layer = weights.model.layers[0]
        last = next(n for n, op in enumerate(layer.ops) if isinstance(op, Route))
        router = Section(layer.x, layer.ops[: last + 1])
        arrays = {weight: weights.array(0, weight) for weight in router.weights}
        x = weights.embedding_rows(ids)
        choice = Stage(shard(router, 1), arrays, context=64).run(x, np.arange(len(ids)))
        chosen.append(np.sort(choice.reshape(len(ids), 2, -1)[:, 0]))
    assert (chosen[0] != chosen[1]).any(axis=1).mean() > 0.5
