"""The tiny model on any plan: lowered once per plan, and what a machine makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from chip.spec import GROQCHIP1
from cluster.compiler.choose import PlanRequest, choose
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import Placement, place
from cluster.compiler.stages import partition
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine, Machine
from cluster.model.known import changed_model
from cluster.model.reference import Reference
from cluster.model.weights.synthetic import SyntheticWeights
from cluster.serving.engine import Logits, PipelineRunner
from cluster.serving.requests import Request
from topology import parse

PROMPT = (1, 5, 9, 20, 3)
NEW_TOKENS = 6


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind; equal on all machines."""

    tokens: tuple[int, ...]
    cycles: tuple[int, ...]  # of each launch
    digest: str


def tiny_weights(**keys: object) -> SyntheticWeights:
    """Random weights of the model `tiny`, with some keys of its config changed."""
    return SyntheticWeights(changed_model("tiny", **keys))


@cache
def lowered(tp: int, pp: int, topology: str, placement: Placement | None = None) -> Lowered:
    """The tiny model on a plan; placed by hand if a placement is given."""
    weights, graph = tiny_weights(), parse(topology)
    plan = partition(weights.model, GROQCHIP1, tp, pp)
    return lower(plan, placement or place(plan, graph, topology), graph, weights)


@cache
def rounded_between_nodes() -> Lowered:
    """A layer of sixteen heads on as many chips, whose two nodes exchange sums in fp16."""
    sizes = {"num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 640}
    weights = tiny_weights(num_hidden_layers=1, hidden_size=640, **sizes)
    size = {"tp": 16, "pp": 1, "topology": "dragonfly:16", "weights": "int8"}
    choice = choose(weights.model, PlanRequest(**size, sums_between_nodes="fp16"))
    placement = place(choice.plan, choice.graph, choice.topology)
    return lower(choice.plan, placement, choice.graph, weights)


def outcome(plan: Lowered, machine: Machine) -> Outcome:
    """Generate on a loaded machine."""
    runner = PipelineRunner(plan, machine)
    tokens = tuple(runner.generate(PROMPT, NEW_TOKENS, Sampling(), frozenset()))
    return outcome_of(runner, tokens)


def outcome_of(runner: PipelineRunner, tokens: tuple[int, ...]) -> Outcome:
    """What a finished run leaves behind."""
    return Outcome(tokens, tuple(runner.cycles), runner.digest.hexdigest())


def forced(plan: Lowered, machine: Machine, prompt: Sequence[int], *tokens: int) -> list[Logits]:
    """Logits after a prompt, and after each of the tokens that are said to follow it."""
    seen: list[Logits] = []

    def pick(logits: Logits, step: int) -> int:
        seen.append(logits)
        return (*tokens, 0)[step]

    request = Request(tuple(prompt), len(tokens) + 1)
    for _ in PipelineRunner(plan, machine).answer([request], pick, frozenset()):
        pass
    return seen


@cache
def local_outcome(*plan) -> Outcome:
    """What the local machine makes of a plan."""
    machine = LocalMachine()
    machine.load(lowered(*plan), no_progress)
    return outcome(lowered(*plan), machine)


@cache
def reference_tokens() -> tuple[int, ...]:
    """What the float32 reference says."""
    return tuple(Reference(tiny_weights(), context=320).generate(PROMPT, NEW_TOKENS))


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""
