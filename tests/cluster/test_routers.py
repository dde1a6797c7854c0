"""A layer on chips, token by token: routers that do their worst, and more ranks than heads.

Whatever experts are chosen, the programs and cycles of a mixture are what they were.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from chip.spec import GROQCHIP1
from cluster.compiler.launch import decode_kind
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
from cluster.errors import BadValue
from cluster.machines.machine import LocalMachine
from cluster.model.graph.graph import Model
from cluster.model.graph.route import Route
from cluster.model.graph.source import Weights
from cluster.model.reference import Reference
from cluster.model.weights.safetensors import open_folder
from cluster.serving.engine import PipelineRunner
from cluster.serving.requests import Request
from tests.cluster.model.test_golden import DATA
from tests.cluster.tiny import no_progress
from topology import parse

EXPERTS = 8
BIASES = {
    "all tokens to the last two": np.arange(EXPERTS) * 1000.0,
    "all tokens to the first two": np.arange(EXPERTS) * -1000.0,
    "ties everywhere": np.zeros(EXPERTS),
    "ties of the last four": np.repeat([0.0, 1.0], 4),
    "one drowns all others": np.eye(EXPERTS)[5] * 60000.0,
}


@dataclass(frozen=True)
class Adversary:
    """Weights of a model, but for routers, which know nothing but their biases."""

    weights: Weights
    model: Model
    biases: np.ndarray

    def array(self, place, weight, rows=slice(None)):
        if weight.name == "router.bias":
            return self.biases.astype(np.float32)[rows]
        found = self.weights.array(place, weight, rows)
        return 0 * found if weight.name == "router" else found

    def embedding_rows(self, ids):
        return self.weights.embedding_rows(ids)


@dataclass(frozen=True)
class OneLayer:
    """A layer of a model from files, alone."""

    weights: Weights
    number: int

    @property
    def model(self):
        model = self.weights.model
        return replace(model, layers=model.layers[self.number : self.number + 1])

    def array(self, place, weight, rows=slice(None)):
        return self.weights.array(self.number if place == 0 else place, weight, rows)

    def embedding_rows(self, ids):
        return self.weights.embedding_rows(ids)


def one_layer(name: str, number: int, tp: int):
    """Its int8 weights, programs of a token at a time, and a machine that has loaded them."""
    source, graph = (
        OneLayer(open_folder(DATA / "architectures" / name, name), number),
        parse("node"),
    )
    plan, machine = partition(source.model, GROQCHIP1, tp, 1, weights="int8"), LocalMachine()
    lowered = lower(plan, place(plan, graph, "node"), graph, source, kinds=[decode_kind(320)])
    machine.load(lowered, no_progress)
    return source, lowered, machine


def answered(lowered, machine, weights) -> tuple[int, ...]:
    """Cycles of three tokens, the logits after which are the interpreter's to the bit."""
    ids, seen = [[5], [77], [11]], []

    def pick(logits, step):
        seen.append(logits)
        return [*ids, [0]][step + 1][0]

    runner = PipelineRunner(lowered, machine)
    assert len(list(runner.answer([Request((5,), 3)], pick, frozenset()))) == 3
    reference = Reference(weights, 64, lowered.plan.tp, exact=True)
    for logits, given in zip(seen, ids, strict=True):
        assert np.array_equal(logits, reference.forward(given))
    return tuple(runner.cycles)


def test_cycles_and_programs_do_not_depend_on_which_experts_are_chosen(monkeypatch):
    """Two of eight: every adversary's logits are the interpreter's to the bit, at equal cycles."""
    told, exact = [], Route.exact

    def watched(op, run, scores):
        choice = exact(op, run, scores)
        told.append(choice[:, 0].astype(int))
        return choice

    monkeypatch.setattr(Route, "exact", watched)
    source, lowered, machine = one_layer("gpt-oss", 0, tp=1)
    cycles, chosen = set(), []
    for biases in BIASES.values():
        weights = Adversary(source, source.model, biases)
        machine._group.write(replace(lowered, weights=weights).constants())  # nothing else changes
        cycles.add(answered(lowered, machine, weights))
        chosen.append({tuple(row) for choice in told for row in choice.tolist()})
        told.clear()
    assert chosen == [{(7, 6)}, {(0, 1)}, {(0, 1)}, {(4, 5)}, {(5, 0)}]
    assert len(cycles) == 1 and len(set(*cycles)) == 1


def test_ranks_beyond_the_heads_of_latent_attention_hold_a_head_of_zeros():
    """Eight ranks for six heads, beside experts that all of them cut."""
    source, lowered, machine = one_layer("deepseek-v3", 1, tp=8)
    assert len(set(answered(lowered, machine, source))) == 1
    with pytest.raises(BadValue, match="must be 1 to 12, twice the heads of deepseek-v3"):
        partition(source.model, GROQCHIP1, 13, 1)
