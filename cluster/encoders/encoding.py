"""An encoder on a cluster: stages of whole layers, one program per chip and sequence length."""

from collections.abc import Sequence
from itertools import pairwise

import networkx as nx
import numpy as np

from chip.kernels.attention import Heads
from chip.kernels.attention_to_all import KEY_MASK, keys_in_lanes
from chip.kernels.layout import LANES
from chip.kernels.memory import SramFull
from chip.kernels.pool import EMBEDDING
from chip.spec import ChipSpec
from cluster.compiler.launch import LaunchKind
from cluster.compiler.limits import CONTEXT_BLOCK, check_heads, check_weights
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.stages import Plan, StagePlan
from cluster.compiler.weight_layout import Array
from cluster.errors import BadValue, DoesNotFit
from cluster.machines.machine import Machine, Result
from cluster.model.graph.graph import Model
from cluster.model.graph.op import F32
from cluster.model.graph.source import Weights

LENGTHS = (32, 64, 128, 256)  # tokens of the programs; a sequence uses the shortest that holds it
MASKED = np.float32(-30000)


def plan_encoder(
    model: Model, spec: ChipSpec, chips: int | None, tokens: int, weights: str = "fp16"
) -> Plan:
    """Cut the layers over `chips` chips, the fewest that hold them where None.

    Programs are for sequences of up to `tokens` tokens. Raises BadValue and DoesNotFit.
    """
    most, layers = min(max(LENGTHS), model.context_max), len(model.layers)
    if not 1 <= tokens <= most:
        raise BadValue("--tokens", tokens, f"must be 1 to {most}")
    if chips is not None and not 1 <= chips <= layers:
        raise BadValue("--chips", chips, f"must be 1 to {layers}, the layers of {model.name}")
    check_heads(model)
    check_weights(model, spec, weights)
    longest = next(n for n in LENGTHS if n >= tokens)
    for count in [chips] if chips else range(1, layers + 1):
        try:
            return cut_layers(model, spec, count, longest, weights)
        except DoesNotFit as error:
            failed = error
    raise failed


def cut_layers(
    model: Model, spec: ChipSpec, chips: int, tokens: int, weights: str = "fp16"
) -> Plan:
    """Layers over so many chips, for sequences of up to `tokens` tokens; raises DoesNotFit."""
    layers = len(model.layers)
    bounds = [layers * n // chips for n in range(chips + 1)]
    found: list[StagePlan] = []
    needs: dict[tuple[int, bool, bool], int] = {}
    for number, (first, end) in enumerate(pairwise(bounds)):
        last = number == chips - 1
        part = StagePlan(first, end - first, last, 0)
        key = (part.layers, number == 0, last)
        if key not in needs:
            plan = Plan(model, spec, 1, CONTEXT_BLOCK, tokens, (part,), weights)
            try:
                needs[key] = plan.stage(0).memory.used_bytes
            except SramFull as error:
                advice = f"{error}; use more chips"
                raise DoesNotFit(number, error.needs_bytes, error.has_bytes, advice) from error
        found.append(StagePlan(first, end - first, last, needs[key]))
    return Plan(model, spec, 1, CONTEXT_BLOCK, tokens, tuple(found), weights)


def lengths(plan: Plan) -> tuple[int, ...]:
    """Tokens of the programs of a plan."""
    return tuple(n for n in LENGTHS if n <= plan.chunk)


def lower_encoder(
    plan: Plan,
    chips: Sequence[int],
    graph: nx.Graph,
    weights: Weights,
    only: Sequence[int] | None = None,
) -> Lowered:
    """Schedule and encode every length, or `only` some; stage n is on chip `chips[n]`."""
    kinds = [launch_kind(tokens) for tokens in only or lengths(plan)]
    return lower(plan, tuple((chip,) for chip in chips), graph, weights, kinds=kinds)


def launch_kind(tokens: int) -> LaunchKind:
    """Launches for sequences of up to `tokens` tokens, of which one row is read."""
    return LaunchKind(tokens, CONTEXT_BLOCK, 1)


def encoder_inputs(lowered: Lowered, ids: Sequence[int]) -> tuple[str, dict[int, dict[str, Array]]]:
    """(launch, what the host writes before it, by chip) for one sequence; raises BadValue."""
    plan, lanes = lowered.plan, lowered.plan.spec.lanes
    fitting = [n for n in lengths(plan) if n >= len(ids)]
    if not ids or not fitting:
        rule = f"must be 1 to {plan.chunk} tokens; see --tokens"
        raise BadValue("--text", f"{len(ids)} tokens", rule)
    tokens, stage = fitting[0], lowered.stages[0]
    heads = stage.shape.ranks[0].heads
    assert heads is not None
    mask = key_mask(tokens, heads, len(ids))
    x = np.zeros((stage.hidden_blocks, tokens, lanes), np.float32)
    for number, row in enumerate(lowered.weights.embedding_rows(ids)):
        x[:, number] = stage.layout_x.rows(row)
    given = [name for name in KEY_MASK.values() if name in stage.memory.buffers]
    inputs: dict[int, dict[str, Array]] = {
        chip: dict.fromkeys(given, mask) for chip in lowered.chips
    }
    inputs[lowered.placement[0][0]][stage.entry] = stage.in_order(x)
    last = inputs[lowered.placement[-1][0]]
    last["poolmask"] = (np.arange(lanes) < len(ids)).astype(np.float16)[None]
    last["poolscale"] = np.full((1, lanes), 1 / len(ids), np.float32)
    return str(launch_kind(tokens)), inputs


def key_mask(tokens: int, heads: Heads, count: int) -> F32:
    """What is added to scores over so many tokens [1, lanes], of which `count` are there."""
    _, each = keys_in_lanes(tokens, heads)
    there = np.arange(LANES) % each < count
    return np.where(there, np.float32(0), MASKED)[None]


def embed(lowered: Lowered, machine: Machine, ids: Sequence[int]) -> tuple[F32, int, Result]:
    """(sentence embedding [hidden], executed cycles, the launch's result) of one sequence."""
    name, inputs = encoder_inputs(lowered, ids)
    result = machine.launch(name, inputs)
    rows = result.outputs[lowered.placement[-1][0]][EMBEDDING]
    vector = lowered.stages[-1].layout_x.elements(rows).astype(np.float32)
    return vector, result.end_cycle, result
