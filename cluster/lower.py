"""From a placed plan to one program per chip and launch, on one time axis.

Stages of equal shape and equal wiring are scheduled once: a stage's schedule starts at its own
cycle 0, and only the offset at which its input arrives differs.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace

import networkx as nx

from chip.board import Cable
from chip.kernels.decoder import Stage
from chip.kernels.lanes import MAPS
from chip.kernels.shape import halves
from chip.kernels.transfer import Hop, transfer
from chip.own_spec import identity
from chip.program import Instruction, Program, Region, fill_queue
from chip.schedule import Rows, Schedule
from chip.wire import pack, with_header
from cluster.errors import DoesNotFit
from cluster.images import Array, stage_image
from cluster.model.spec import Weights
from cluster.partition import CONTEXT_BLOCK, Plan
from cluster.placement import Placement
from cluster.wires import Wires, group_of


@dataclass(frozen=True)
class Launch:
    """One kind of launch: `tokens` tokens at the end of `context` tokens; msgpack per chip.

    `end_cycles` are the scheduler's figures, against which the executed cycles are checked;
    `instructions` counts those of each chip, which it keeps in SRAM.
    """

    name: str
    tokens: int
    context: int
    programs: dict[int, bytes]
    end_cycles: dict[int, int]
    instructions: dict[int, int]


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

    @property
    def sram_bytes_max(self) -> int:
        return self.plan.sram_bytes_max

    def constants(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Region, Array]]:
        """(chip, region, values) of everything that rests in SRAM before the first launch.

        Stages without any of the `wanted` chips are left out, and cost nothing.
        """
        for number, group in enumerate(self.placement):
            if wanted is not None and not any(chip in wanted for chip in group):
                continue
            image = stage_image(self.plan, number, self.stages[number], self.weights)
            for rank, region, values in image:
                yield group[rank], region, values


def launch_name(kind: str, context: int) -> str:
    """Name of the launch of `kind` ("decode" or "prefill") for a context bucket."""
    return f"{kind}@{context}"


def lower(plan: Plan, placement: Placement, graph: nx.Graph, weights: Weights) -> Lowered:
    """Schedule and encode every launch of a plan."""
    stages = _stages(plan)
    wires = Wires(graph)
    launches = {}
    for context in range(CONTEXT_BLOCK, plan.context + 1, CONTEXT_BLOCK):
        for kind, tokens in (("decode", 1), ("prefill", plan.chunk)):
            name = launch_name(kind, context)
            launches[name] = _launch(plan, placement, stages, wires, name, tokens, context)
    _check_programs(plan, placement, launches)
    return Lowered(plan, placement, launches, wires.cables(), stages, weights)


def _check_programs(plan: Plan, placement: Placement, launches: dict[str, Launch]) -> None:
    """Instructions rest in SRAM beside the data; raises DoesNotFit."""
    for number, group in enumerate(placement):
        for chip in group:
            count = sum(launch.instructions.get(chip, 0) for launch in launches.values())
            needs = plan.stages[number].sram_bytes + count * plan.spec.instruction_bytes
            if needs > plan.spec.sram_bytes:
                advice = f"{count} instructions among it; use more stages or a shorter --context"
                raise DoesNotFit(number, needs, plan.spec.sram_bytes, advice)


def _stages(plan: Plan) -> tuple[Stage, ...]:
    """A memory map per stage; equal stages share one."""
    cache: dict[tuple[int, bool], Stage] = {}
    for number, part in enumerate(plan.stages):
        key = (part.layers, part.head)
        if key not in cache:
            cache[key] = plan.stage(number)
    return tuple(cache[part.layers, part.head] for part in plan.stages)


@dataclass
class _Parts:
    """What a chip does in a launch: members of schedules, each from an offset on."""

    items: list[tuple[Schedule, int, int]] = field(default_factory=list)

    @property
    def start_cycle(self) -> int:
        return min(offset + plan.first_cycle(member) for plan, member, offset in self.items)

    @property
    def end_cycle(self) -> int:
        return max(offset + plan.member_end_cycles[member] for plan, member, offset in self.items)

    @property
    def instructions(self) -> int:
        return sum(len(q) for plan, member, _ in self.items for q in plan.placed[member].values())

    def key(self, numbers: "_Numbers") -> tuple[object, ...]:
        """Equal for chips that do the same from their own starts on."""
        start = self.start_cycle
        return tuple((numbers(plan, member), offset - start) for plan, member, offset in self.items)

    def queues(self) -> dict[str, tuple[Instruction, ...]]:
        start = self.start_cycle
        placed: dict[str, list[tuple[int, Instruction]]] = {}
        for plan, member, offset in self.items:
            for queue, instructions in plan.placed[member].items():
                shifted = [(cycle + offset - start, i) for cycle, i in instructions]
                placed.setdefault(queue, []).extend(shifted)
        return {name: fill_queue(mine, name) for name, mine in sorted(placed.items())}


class _Numbers:
    """Numbers what members of schedules do, equal things alike."""

    def __init__(self) -> None:
        self._contents: dict[tuple[object, ...], int] = {}
        self._members: dict[tuple[int, int], int] = {}

    def __call__(self, plan: Schedule, member: int) -> int:
        key = (id(plan), member)
        if key not in self._members:
            content = plan.content(member)
            self._members[key] = self._contents.setdefault(content, len(self._contents))
        return self._members[key]


def _launch(
    plan: Plan,
    placement: Placement,
    stages: tuple[Stage, ...],
    wires: Wires,
    name: str,
    tokens: int,
    context: int,
) -> Launch:
    parts = _compose(placement, stages, wires, tokens, context)
    holder = {chip: number for number, group in enumerate(placement) for chip in group}
    bodies: dict[tuple[object, ...], bytes] = {}
    numbers = _Numbers()
    programs = {}
    for chip, part in sorted(parts.items()):
        number = holder.get(chip)
        stage = None if number is None else stages[number]
        key = (id(stage), number == 0, *part.key(numbers))
        if key not in bodies:
            bodies[key] = pack(_program(plan, stage, number == 0, part, tokens, context))
        programs[chip] = with_header(bodies[key], chip, part.start_cycle)
    ends = {chip: part.end_cycle for chip, part in parts.items()}
    counts = {chip: part.instructions for chip, part in parts.items()}
    return Launch(name, tokens, context, programs, ends, counts)


def _compose(
    placement: Placement,
    stages: tuple[Stage, ...],
    wires: Wires,
    tokens: int,
    context: int,
) -> dict[int, _Parts]:
    """Stages one after another, each from the cycle at which its input is there."""
    parts: dict[int, _Parts] = {}
    cache: dict[tuple[int, str], Schedule] = {}
    offset = 0
    for number, group in enumerate(placement):
        stage = stages[number]
        team = group_of(wires, group)
        key = (id(stage), repr(team.routes))
        if key not in cache:
            cache[key] = stage.schedule(tokens, context // CONTEXT_BLOCK, team.routes)
        schedule = cache[key]
        for member in schedule.placed:
            mine = parts.setdefault(team.members[member], _Parts())
            mine.items.append((schedule, member, offset))
        offset += schedule.end_cycle
        if number + 1 < len(placement):
            route = group, placement[number + 1]
            boundary = _boundary(stage, stages[number + 1], *route, wires, tokens)
            for chip in boundary.placed:
                parts.setdefault(chip, _Parts()).items.append((boundary, chip, offset))
            offset += boundary.end_cycle
    return parts


def _boundary(
    stage: Stage,
    following: Stage,
    group: tuple[int, ...],
    after: tuple[int, ...],
    wires: Wires,
    tokens: int,
) -> Schedule:
    """x of each rank to the same rank of the next stage; members are chips."""
    plan = Schedule(stage.spec)
    count = stage.shape.hidden.count * tokens
    for source, target in zip(group, after, strict=True):
        hops = tuple(Hop(*hop) for hop in wires.hops(wires.path(source, target)))
        transfer(plan, hops, Rows(stage.memory["x0"]), Rows(following.memory["x0"]), count)
    return plan


def _program(
    plan: Plan, stage: Stage | None, first: bool, part: _Parts, tokens: int, context: int
) -> Program:
    bare = Program(0, identity(plan.spec), 0, part.queues(), MAPS)
    if stage is None:
        return bare
    return replace(
        bare,
        inputs=_inputs(stage, first, tokens, context // CONTEXT_BLOCK),
        outputs=_outputs(stage, tokens),
        constants=_constants(stage),
    )


def _inputs(stage: Stage, first: bool, tokens: int, blocks: int) -> dict[str, Region]:
    rows = {"cos": tokens, "sin": tokens, "mask": blocks * tokens, "maps": max(tokens, 8)}
    if first:
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
    names = ("gamma", "ones", "identity") + ("bias",) * stage.shape.biased
    tables = [stage.memory[name].region for name in names]
    return (*(placed.buffer.region for placed in stage.matrices.values()), *tables)
