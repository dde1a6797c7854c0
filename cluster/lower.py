"""From a placed plan to one program per chip and launch, on one time axis.

Stages of equal shape and equal wiring are scheduled once: a stage's schedule starts at its own
cycle 0, and only the offset at which its input arrives differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import networkx as nx

from chip.board import Cable
from chip.kernels.decoder import Stage
from chip.kernels.lanes import MAPS
from chip.kernels.shape import halves
from chip.kernels.transfer import Hop, transfer
from chip.program import Instruction, Program, Region, fill_queue
from chip.schedule import Rows, Schedule
from chip.wire import pack
from cluster.images import Array, stage_image
from cluster.model.spec import Weights
from cluster.partition import CONTEXT_BLOCK, Plan
from cluster.placement import Placement
from topology import ports, route

Queues = dict[str, list[tuple[int, Instruction]]]


@dataclass(frozen=True)
class Launch:
    """One kind of launch: `tokens` tokens at the end of `context` tokens; msgpack per chip.

    `end_cycles` are the scheduler's figures, against which the executed cycles are checked.
    """

    name: str
    tokens: int
    context: int
    programs: dict[int, bytes]
    end_cycles: dict[int, int]


@dataclass(frozen=True)
class Lowered:
    """Everything a machine needs: launches, cables, constants; and where inputs go."""

    plan: Plan
    placement: Placement
    launches: dict[str, Launch]
    cables: tuple[Cable, ...]
    stages: tuple[Stage, ...]
    weights: Weights = field(repr=False)

    @property
    def chips(self) -> tuple[int, ...]:
        return tuple(sorted(chip for group in self.placement for chip in group))

    @property
    def transit_chips(self) -> tuple[int, ...]:
        """Chips that only pass vectors on."""
        used = {chip for launch in self.launches.values() for chip in launch.programs}
        return tuple(sorted(used - set(self.chips)))

    def constants(self) -> Iterator[tuple[int, Region, Array]]:
        """(chip, region, values) of everything that rests in SRAM before the first launch."""
        for number, group in enumerate(self.placement):
            image = stage_image(self.plan, number, self.stages[number], self.weights)
            for rank, region, values in image:
                yield group[rank], region, values


def launch_name(kind: str, context: int) -> str:
    """Name of the launch of `kind` ("decode" or "prefill") for a context bucket."""
    return f"{kind}@{context}"


def lower(plan: Plan, placement: Placement, graph: nx.Graph, weights: Weights) -> Lowered:
    """Schedule and encode every launch of a plan."""
    stages = _stages(plan)
    wires = _Wires(graph)
    launches = {}
    for context in range(CONTEXT_BLOCK, plan.context + 1, CONTEXT_BLOCK):
        for kind, tokens in (("decode", 1), ("prefill", plan.chunk)):
            name = launch_name(kind, context)
            launches[name] = _launch(plan, placement, stages, wires, name, tokens, context)
    return Lowered(plan, placement, launches, wires.cables(), stages, weights)


def _stages(plan: Plan) -> tuple[Stage, ...]:
    """A memory map per stage; equal stages share one."""
    cache: dict[tuple[int, bool], Stage] = {}
    for number, part in enumerate(plan.stages):
        key = (part.layers, part.head)
        if key not in cache:
            cache[key] = plan.stage(number)
    return tuple(cache[part.layers, part.head] for part in plan.stages)


class _Wires:
    """Routes and ports of the graph, as hops between chips."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph, self.ports = graph, ports(graph)

    def hops(self, chips: tuple[int, ...]) -> list[tuple[int, int, int, int, int, int]]:
        """(chip, port, next chip, its port, latency, interval) along a path of chips."""
        found = []
        for a, b in zip(chips, chips[1:], strict=False):
            link = self.graph.edges[a, b]["link"]
            interval = ceil(link.cycles_per_vector)
            pair = (self.ports[a][b][0], self.ports[b][a][0])
            found.append((a, pair[0], b, pair[1], link.latency_cycles, interval))
        return found

    def path(self, source: int, target: int) -> tuple[int, ...]:
        return tuple(route(self.graph, source, target))

    def cables(self) -> tuple[Cable, ...]:
        """Every cable of the graph."""
        found = []
        for a, b, data in self.graph.edges(data=True):
            link = data["link"]
            for mine, theirs in zip(self.ports[a][b], self.ports[b][a], strict=True):
                rate = link.cycles_per_vector
                found.append(Cable(a, mine, b, theirs, link.latency_cycles, rate))
        return tuple(found)


@dataclass
class _Exchange:
    """All members' sums to all members, by direct transfers over the routes of one group."""

    members: list[int]  # chips: the group's ranks, then those that only pass vectors on
    routes: dict[tuple[int, int], tuple[Hop, ...]]
    parts: list[Rows]

    def __call__(self, plan: Schedule, tokens: int, sources: list[Rows], ranks: list[int]) -> None:
        for step in range(1, len(ranks)):  # each rank first to the next, then to the one after
            for rank in ranks:
                first = 0
                for source in sources:
                    count = source.buffer.region.vectors
                    part = self.parts[rank]
                    target = Rows(part.buffer, first)
                    hops = self.routes[rank, (rank + step) % len(ranks)]
                    transfer(plan, hops, source, target, count)
                    first += count


def _exchange(wires: _Wires, group: tuple[int, ...], stage: Stage) -> _Exchange:
    members = list(group)
    routes = {}
    for a, source in enumerate(group):
        for b, target in enumerate(group):
            if a != b:
                path = wires.hops(wires.path(source, target))
                members += [hop[2] for hop in path if hop[2] not in members]
                routes[a, b] = tuple(
                    Hop(members.index(p), port, members.index(q), other, latency, interval)
                    for p, port, q, other, latency, interval in path
                )
    parts = [Rows(stage.memory[f"part{rank}"]) for rank in range(len(group))] if routes else []
    return _Exchange(members, routes, parts)


def _launch(
    plan: Plan,
    placement: Placement,
    stages: tuple[Stage, ...],
    wires: _Wires,
    name: str,
    tokens: int,
    context: int,
) -> Launch:
    queues: dict[int, Queues] = {}
    ends: dict[int, int] = {}
    cache: dict[tuple[int, str], tuple[Schedule, str]] = {}
    offset = 0
    for number, group in enumerate(placement):
        stage = stages[number]
        exchange = _exchange(wires, group, stage)
        key = (id(stage), repr(exchange.routes))
        if key not in cache:
            cache[key] = stage.schedule(tokens, context // CONTEXT_BLOCK, exchange)
        schedule, result = cache[key]
        _merge(schedule, exchange.members, offset, queues, ends)
        offset += schedule.end_cycle
        if number + 1 < len(placement):
            after = placement[number + 1]
            boundary = _boundary(stage, result, stages[number + 1], group, after, wires, tokens, offset)
            _merge(boundary, None, 0, queues, ends)
            offset = boundary.end_cycle
    programs = {
        chip: pack(_program(plan, placement, stages, chip, queues[chip], tokens, context))
        for chip in sorted(queues)
    }
    return Launch(name, tokens, context, programs, ends)


def _boundary(
    stage: Stage,
    result: str,
    following: Stage,
    group: tuple[int, ...],
    after: tuple[int, ...],
    wires: _Wires,
    tokens: int,
    offset: int,
) -> Schedule:
    """x of each rank to the same rank of the next stage; members are chips."""
    plan = Schedule(stage.spec)
    count = stage.shape.hidden.count * tokens
    for source, target in zip(group, after, strict=True):
        hops = tuple(Hop(*hop) for hop in wires.hops(wires.path(source, target)))
        rows = Rows(stage.memory[result]), Rows(following.memory["x0"])
        transfer(plan, hops, *rows, count, offset)
    return plan


def _merge(
    schedule: Schedule,
    members: list[int] | None,
    offset: int,
    queues: dict[int, Queues],
    ends: dict[int, int],
) -> None:
    """Add a schedule's instructions, `offset` cycles later, to its chips' queues."""
    for member, placed in schedule.placed.items():
        chip = member if members is None else members[member]
        mine = queues.setdefault(chip, {})
        for queue, instructions in placed.items():
            shifted = [(cycle + offset, instruction) for cycle, instruction in instructions]
            mine.setdefault(queue, []).extend(shifted)
        ends[chip] = max(ends.get(chip, 0), offset + schedule.member_end_cycles[member])


def _program(
    plan: Plan,
    placement: Placement,
    stages: tuple[Stage, ...],
    chip: int,
    queues: Queues,
    tokens: int,
    context: int,
) -> Program:
    start = min(cycle for placed in queues.values() for cycle, _ in placed)
    filled = {
        name: fill_queue([(cycle - start, i) for cycle, i in placed], name)
        for name, placed in sorted(queues.items())
    }
    number = next((n for n, group in enumerate(placement) if chip in group), None)
    if number is None:
        return Program(chip, plan.spec.name, start, filled, MAPS)
    stage = stages[number]
    return Program(
        chip,
        plan.spec.name,
        start,
        filled,
        MAPS,
        _inputs(stage, number, tokens, context // CONTEXT_BLOCK),
        _outputs(stage, tokens),
        _constants(stage),
    )


def _inputs(stage: Stage, number: int, tokens: int, blocks: int) -> dict[str, Region]:
    rows = {"cos": tokens, "sin": tokens, "mask": blocks * tokens, "maps": max(tokens, 8)}
    if number == 0:
        rows["x0"] = stage.shape.hidden.count * tokens
    return {name: stage.view(name, count).region for name, count in rows.items()}


def _outputs(stage: Stage, tokens: int) -> dict[str, Region]:
    if stage.shape.vocab is None or tokens > 1:
        return {}
    counts = [len(part) for part in halves(stage.shape.vocab.count)]
    return {
        f"logits{side}": stage.memory[f"logits{side}"].region
        for side, count in enumerate(counts)
        if count
    }


def _constants(stage: Stage) -> tuple[Region, ...]:
    tables = [stage.memory[name].region for name in ("gamma", "ones", "identity")]
    return (*(placed.buffer.region for placed in stage.matrices.values()), *tables)
