"""The tiny model on any plan: lowered once per plan, and what a machine makes of it."""

from dataclasses import dataclass
from functools import cache

from chip.spec import GROQCHIP1
from cluster.generation.sampling import Sampling
from cluster.generation.session import Session
from cluster.compiler.lower import Lowered, lower
from cluster.machines.machine import LocalMachine, Machine
from cluster.mapping.partition import partition
from cluster.compiler.place import Placement, place
from cluster.model.reference import Reference
from cluster.model.synthetic import tiny_weights
from topology import parse

PROMPT = (1, 5, 9, 20, 3)
NEW_TOKENS = 6


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind; equal on all machines."""

    tokens: tuple[int, ...]
    prefill_cycles: int
    decode_cycles: tuple[int, ...]
    digest: str


@cache
def lowered(tp: int, pp: int, topology: str, placement: Placement | None = None) -> Lowered:
    """The tiny model on a plan; placed by hand if a placement is given."""
    weights, graph = tiny_weights(), parse(topology)
    plan = partition(weights.spec, GROQCHIP1, tp, pp)
    return lower(plan, placement or place(plan, graph, topology), graph, weights)


def outcome(plan: Lowered, machine: Machine) -> Outcome:
    """Generate on a loaded machine."""
    session = Session(plan, machine)
    tokens = tuple(session.generate(PROMPT, NEW_TOKENS, Sampling(), frozenset()))
    cycles = tuple(session.decode_cycles)
    return Outcome(tokens, session.prefill_cycles, cycles, session.digest.hexdigest())


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
