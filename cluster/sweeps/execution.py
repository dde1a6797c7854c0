"""Points that are runs: a model on emulated chips, timed by its cycles and by this host's clock.

`tiny`, whose weights are random, can have as many layers as a point says, so that the work grows
with the chips.
"""

import time
from dataclasses import replace
from statistics import median
from typing import Any

from cluster.compiler.choose import PlanRequest, choose
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.errors import BadValue
from cluster.generation.sampling import Sampling
from cluster.machines.checkpoint import Checkpointed
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.launch_log import LaunchLog
from cluster.machines.machine import LocalMachine
from cluster.model.known import changed_model
from cluster.model.load import load_model
from cluster.model.weights.synthetic import SyntheticWeights
from cluster.process import peak_rss_bytes
from cluster.program_store import own_store
from cluster.runs.report import launch_s
from cluster.serving.engine import PipelineRunner
from cluster.serving.requests import Request
from cluster.serving.scheduler import steady_tokens_per_s
from cluster.sweeps.grid import Point

PROMPT_IDS = (1, 5, 9, 20, 3)
NEW_TOKENS = 6
CHECKPOINT_LAUNCHES = 16
GROWS = "tiny"
COSTS = ("hosts", "actor_bytes", "segments", "batches", "messages", "packets")


def run_point(point: Point, request: PlanRequest, address: str | None) -> dict[str, Any]:
    """What a run gives: tokens/s of the chips and of this host, start and load, memory, digest."""
    weights = _weights(point)
    choice = choose(weights.model, replace(request, objective="latency"))
    placement = place(choice.plan, choice.graph, choice.topology)
    size = choice.plan, placement, choice.graph, weights
    lowered = lower(*size, kept=own_store().launches)
    machine = _machine(point, address)
    try:
        timed = _timed_together if choice.plan.slots > 1 else _timed
        found = timed(lowered, machine, point.get("new_tokens", NEW_TOKENS))
        memory = peak_rss_bytes() + machine.worker_bytes()
        found |= {"actors": machine.actors, "memory_bytes": memory}
        found |= {name: value for name, value in machine.costs().items() if name in COSTS}
    finally:
        machine.close()
    plan = choice.plan
    return {
        "chips_used": plan.chips, "tp_used": plan.tp, "pp_used": plan.pp,
        "topology_used": choice.topology, "weights_used": plan.weights, **found,
    }  # fmt: skip


def _weights(point: Point) -> Any:
    layers = point.get("layers")
    if layers is None:
        return load_model(point.model).weights
    if point.model != GROWS:
        raise BadValue("layers", layers, f"only {GROWS}, whose weights are random, can have others")
    return SyntheticWeights(changed_model(GROWS, num_hidden_layers=layers))


def _machine(point: Point, address: str | None) -> LaunchLog:
    if point.get("machine", "local") == "local":
        return LaunchLog(LocalMachine(own_store()))
    from cluster.machines.ray.ray_machine import RayMachine  # takes a second to import

    machine = RayMachine(point.get("chips_per_actor", 1), address)
    return LaunchLog(Checkpointed(machine, CheckpointStore(None), CHECKPOINT_LAUNCHES))


def _timed(lowered: Lowered, machine: LaunchLog, count: int) -> dict[str, Any]:
    """One sequence: median of its decode launches."""
    begun, parts = time.perf_counter(), dict[str, float]()

    def progress(what: str, _done: int, _total: int) -> None:
        parts[what] = time.perf_counter() - begun

    machine.load(lowered, progress)
    loaded_s = time.perf_counter() - begun
    runner, at = PipelineRunner(lowered, machine), list[float]()
    for _ in runner.generate(PROMPT_IDS, count, Sampling(), frozenset()):
        at.append(time.perf_counter() - begun)
    decode = machine.entries[-(count - 1) :]
    speed = 1 / median(launch_s(lowered.plan.spec, entry) for entry in decode)
    return {
        "tokens_per_s_per_user": speed,
        "tokens_per_s_total": speed,
        "host_tokens_per_s": 1 / median(entry.wall_s for entry in decode),
        "start_s": parts.get("start", 0.0),
        "load_s": loaded_s,
        "first_token_s": at[0],
        "digest": runner.digest.hexdigest(),
    }


def _timed_together(lowered: Lowered, machine: LaunchLog, count: int) -> dict[str, Any]:
    """A sequence in each slot, all at once: tokens/s of all while every slot decodes."""
    begun = time.perf_counter()
    machine.load(lowered, lambda *_: None)
    loaded_s = time.perf_counter() - begun
    slots, runner, at = lowered.plan.slots, PipelineRunner(lowered, machine), list[float]()
    requests = [Request(PROMPT_IDS, count) for _ in range(slots)]
    for _ in runner.answer(requests, Sampling().pick, frozenset()):
        at.append(time.perf_counter() - begun)
    speed = steady_tokens_per_s(requests, slots) or 0.0
    return {
        "tokens_per_s_per_user": speed / slots,
        "tokens_per_s_total": speed,
        "host_tokens_per_s": (len(at) - 1) / (at[-1] - at[0]),
        "start_s": 0.0,
        "load_s": loaded_s,
        "first_token_s": at[0],
        "digest": runner.digest.hexdigest(),
    }
