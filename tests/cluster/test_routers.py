"""Routers that do their worst: the programs, cycles and bits of a mixture are what they were."""

from dataclasses import dataclass, replace

import numpy as np

from chip.spec import GROQCHIP1
from cluster.compiler.launch import decode_kind
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stages import partition
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


def test_cycles_and_programs_do_not_depend_on_which_experts_are_chosen(monkeypatch):
    """Two of eight: every adversary's logits are the interpreter's to the bit, at equal cycles."""
    told, exact = [], Route.exact

    def watched(op, run, scores):
        choice = exact(op, run, scores)
        told.append(choice[:, 0].astype(int))
        return choice

    monkeypatch.setattr(Route, "exact", watched)
    source = open_folder(DATA / "architectures" / "gpt-oss", "gpt-oss")
    model, graph = replace(source.model, layers=source.model.layers[:1]), parse("node")
    plan = partition(model, GROQCHIP1, tp=1, pp=1, weights="int8")
    lowered = lower(plan, place(plan, graph, "node"), graph, source, kinds=[decode_kind(320)])
    machine, cycles, chosen, ids = LocalMachine(), set(), [], [[5], [77], [11]]
    machine.load(lowered, no_progress)
    for biases in BIASES.values():
        weights = Adversary(source, model, biases)
        machine._group.write(replace(lowered, weights=weights).constants())  # nothing else changes
        runner, seen = PipelineRunner(lowered, machine), []
        request = Request(tuple(ids[0]), len(ids))
        list(runner.answer([request], taking(ids, seen), frozenset()))
        reference = Reference(weights, 64, exact=True)
        for logits, given in zip(seen, ids, strict=True):
            assert np.array_equal(logits, reference.forward(given))
        cycles.add(tuple(runner.cycles))
        chosen.append({tuple(row) for choice in told for row in choice.tolist()})
        told.clear()
    assert chosen == [{(7, 6)}, {(0, 1)}, {(0, 1)}, {(4, 5)}, {(5, 0)}]
    assert len(cycles) == 1


def taking(ids, seen):
    """Go on with these tokens whatever the logits, which are noted."""

    def pick(logits, step):
        seen.append(logits)
        return ids[step + 1][0] if step + 1 < len(ids) else 0

    return pick
