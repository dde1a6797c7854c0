"""From a placed plan to one program per chip and launch, on one time axis.

Stages of equal shape and equal wiring are scheduled once: a stage's schedule starts at its own
cycle 0, and only the offset at which its input arrives differs.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from chip.board import Cable
from chip.collection import uncollected
from chip.kernels.io_double_buffer import NEXT, OUT
from chip.kernels.transfer import Hop, transfer
from chip.own_spec import identity
from chip.program import Program, Region
from chip.schedule import Rows, Schedule
from chip.wire import pack, with_header
from cluster.compiler.stage import CONTEXT_BLOCK, Stage
from cluster.compiler.stages import Plan
from cluster.compiler.weight_layout import Array, stage_image
from cluster.errors import DoesNotFit
from cluster.lowering.beats import Beats, cell_name
from cluster.lowering.clocking import Clocking, clocking
from cluster.lowering.host_regions import input_regions, output_regions
from cluster.lowering.parts import Axis, Numbers, Parts, in_parts
from cluster.lowering.wires import Wires, group_of
from cluster.mapping.placement import Placement
from cluster.model.graph.source import Weights
from topology.clocks import ClockSpec


@dataclass(frozen=True)
class Launch:
    """One kind of launch: `tokens` tokens at the end of `context` tokens; msgpack per chip.

    `end_cycles` are the scheduler's figures, against which the executed cycles are checked;
    `instructions` counts those of each chip, which it keeps in SRAM. Of its cycles, the first
    `startup_cycles` start the chips, and `deskew_cycles` are stalls of Runtime deskews.
    """

    name: str
    tokens: int
    context: int
    startup_cycles: int
    deskew_cycles: int
    programs: dict[int, bytes]
    end_cycles: dict[int, int]
    instructions: dict[int, int]


@dataclass(frozen=True)
class Lowered:
    """Everything a machine needs: launches, cables, constants; and where inputs go.

    `teams` are the chips of each stage with those that only pass its vectors on.
    """

    plan: Plan
    placement: Placement
    launches: dict[str, Launch]
    cables: tuple[Cable, ...]
    stages: tuple[Stage, ...]
    weights: Weights = field(repr=False)
    clocking: Clocking | None = None
    teams: Placement = ()

    @property
    def chips(self) -> tuple[int, ...]:
        return tuple(sorted(chip for group in self.placement for chip in group))

    @property
    def transit_chips(self) -> tuple[int, ...]:
        """Chips that only pass vectors on."""
        used = {chip for launch in self.launches.values() for chip in launch.programs}
        return tuple(sorted(used - set(self.chips)))

    def sram_bytes(self, stage: int) -> int:
        """Bytes of SRAM that each chip of a stage uses."""
        return self.plan.stages[stage].sram_bytes

    def constants(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Region, Array]]:
        """(chip, region, values) of everything that rests in SRAM before the first launch.

        Stages without any of the `wanted` chips are left out, and cost nothing.
        """
        for number, group in enumerate(self.placement):
            if wanted is not None and not any(chip in wanted for chip in group):
                continue
            first = self.plan.stages[number].first
            image = stage_image(self.stages[number], first, self.weights)
            for rank, region, values in image:
                yield group[rank], region, values


def launch_name(kind: str, context: int) -> str:
    """Name of the launch of `kind` ("decode" or "prefill") for a context bucket."""
    return f"{kind}@{context}"


@uncollected()
def lower(
    plan: Plan,
    placement: Placement,
    graph: nx.Graph,
    weights: Weights,
    clock: ClockSpec | None = None,
) -> Lowered:
    """Schedule and encode every launch of a plan, for chips whose clocks are as `clock` says."""
    stages = make_stages(plan)
    wires = Wires(graph)
    clocks = clocking(graph, wires.used(placement), wires.ports, plan.spec, clock)
    make = _cells if plan.slots > 1 else _launches
    launches = {launch.name: launch for launch in make(plan, placement, stages, wires, clocks)}
    check_programs(plan, placement, [launch.instructions for launch in launches.values()])
    teams = tuple(group_of(wires, group).members for group in placement)
    cables = wires.cables(clocks)
    return Lowered(plan, placement, launches, cables, stages, weights, clocks, teams)


def _launches(
    plan: Plan,
    placement: Placement,
    stages: tuple[Stage, ...],
    wires: Wires,
    clocks: Clocking | None,
) -> Iterator[Launch]:
    """Every kind of launch that takes its tokens through all stages."""
    for context in range(CONTEXT_BLOCK, plan.context + 1, CONTEXT_BLOCK):
        for kind, tokens in (("decode", 1), ("prefill", plan.chunk)):
            axis = compose(placement, stages, wires, clocks, tokens, context)
            name = launch_name(kind, context)
            yield make_launch(plan, placement, stages, axis, name, tokens, context)


def _cells(
    plan: Plan,
    placement: Placement,
    stages: tuple[Stage, ...],
    wires: Wires,
    clocks: Clocking | None,
) -> Iterator[Launch]:
    """The cells of beats, as launches in which all stages work for the same slot."""
    beats = Beats(plan, placement, stages, wires, clocks)
    for kind, slot, context in beats.cells():
        axis, tokens = beats.compose(kind, slot, context), beats.tokens(kind)
        name, prefixes = cell_name(kind, slot, context), (NEXT, OUT)
        yield make_launch(plan, placement, stages, axis, name, tokens, context, prefixes)


def check_programs(
    plan: Plan, placement: Placement, instructions: Sequence[Mapping[int, int]]
) -> None:
    """Instructions, of each launch by chip, rest in SRAM beside the data; raises DoesNotFit."""
    for number, group in enumerate(placement):
        for chip in group:
            count = sum(launch.get(chip, 0) for launch in instructions)
            needs = plan.stages[number].sram_bytes + count * plan.spec.instruction_bytes
            if needs > plan.spec.sram_bytes:
                advice = f"{count} instructions among it; use more stages or a shorter --context"
                raise DoesNotFit(number, needs, plan.spec.sram_bytes, advice)


def make_stages(plan: Plan) -> tuple[Stage, ...]:
    """A memory map per stage; equal stages share one."""
    cache: dict[tuple[int, bool], Stage] = {}
    for number, part in enumerate(plan.stages):
        key = (part.layers, part.head)
        if key not in cache:
            cache[key] = plan.stage(number)
    return tuple(cache[part.layers, part.head] for part in plan.stages)


def make_launch(
    plan: Plan,
    placement: Placement,
    stages: tuple[Stage, ...],
    axis: Axis,
    name: str,
    tokens: int,
    context: int,
    prefixes: tuple[str, str] = ("", ""),
) -> Launch:
    """The programs of what is on a time axis; `prefixes` are those of `input_regions`."""
    holder = {chip: number for number, group in enumerate(placement) for chip in group}
    bodies: dict[tuple[object, ...], bytes] = {}
    numbers = Numbers()
    programs = {}
    for chip, part in sorted(axis.parts.items()):
        number = holder.get(chip)
        stage = None if number is None else stages[number]
        key = (id(stage), number == 0, *part.key(numbers))
        if key not in bodies:
            program = _program(plan, stage, number == 0, part, tokens, context, prefixes)
            bodies[key] = pack(program)
        programs[chip] = with_header(bodies[key], chip, part.start_cycle, part.startup(chip))
    ends = {chip: part.end_cycle for chip, part in axis.parts.items()}
    counts = {chip: part.instructions for chip, part in axis.parts.items()}
    clocked = axis.startup_cycles, axis.stalled_cycles
    return Launch(name, tokens, context, *clocked, programs, ends, counts)


def compose(
    placement: Placement,
    stages: tuple[Stage, ...],
    wires: Wires,
    clocks: Clocking | None,
    tokens: int,
    context: int,
) -> Axis:
    """Stages one after another, each from the cycle at which its input is there."""
    axis = Axis(clocks)
    cache: dict[tuple[object, ...], Schedule] = {}
    for number, group in enumerate(placement):
        stage, pace = stages[number], axis.pace
        team = group_of(wires, group)
        key = (id(stage), pace, *team.routes.items())
        if key not in cache:
            cache[key] = stage.schedule(tokens, context // CONTEXT_BLOCK, team.routes, pace)
        axis.stage(cache[key], team.members)
        if number + 1 < len(placement):
            pairs = list(zip(group, placement[number + 1], strict=True))
            hops = [wires.hops(path) for path in wires.all_paths(pairs)]
            limit = axis.pace.limit_cycles if axis.pace else None
            axis.boundary(boundary(stage, stages[number + 1], hops, tokens, limit))
    return axis


def boundary(
    stage: Stage,
    following: Stage,
    paths: Sequence[Sequence[Hop]],
    tokens: int,
    limit_cycles: int | None,
) -> list[Schedule]:
    """x of each rank to the same rank of the next stage, along a path each.

    In parts, none of them longer than the limit, if there is one.
    """
    rows = stage.hidden_blocks * tokens
    return in_parts(rows, limit_cycles, lambda *cut: hand_on(stage, following, paths, *cut))


def hand_on(
    stage: Stage, following: Stage, paths: Sequence[Sequence[Hop]], first: int, last: int
) -> Schedule:
    """Some rows of x of each rank."""
    plan = Schedule(stage.spec)
    for hops in paths:
        source, target = Rows(stage.memory["x0"], first), Rows(following.memory["x0"], first)
        transfer(plan, tuple(hops), source, target, last - first)
    return plan


def _program(
    plan: Plan,
    stage: Stage | None,
    first: bool,
    part: Parts,
    tokens: int,
    context: int,
    prefixes: tuple[str, str],
) -> Program:
    maps = stage.maps if stage else ()
    spec, interval = identity(plan.spec), part.interval_cycles
    bare = Program(0, spec, 0, part.queues(), maps, deskew_interval_cycles=interval)
    if stage is None or not context:
        return bare
    return replace(
        bare,
        inputs=input_regions(stage, first, tokens, context // CONTEXT_BLOCK, prefixes[0]),
        outputs=output_regions(stage, tokens, prefixes[1]),
        constants=tuple(stage.memory.constants()),
    )

