"""From a placed plan to one program per chip and launch, on one time axis.

Stages of equal shape and equal wiring are scheduled once: a stage's schedule starts at its own
cycle 0, and only the offset at which its input arrives differs.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import networkx as nx

from chip.board import Cable
from chip.collection import uncollected
from chip.kernels.io_double_buffer import NEXT, OUT
from chip.own_spec import identity
from chip.program import Program, Region
from chip.text import ProgramText
from chip.wire import pack, unpack, with_header
from cluster.compiler.assign import RESIDUAL
from cluster.compiler.clocking import Clocking, clocking
from cluster.compiler.host_regions import input_regions, output_regions
from cluster.compiler.launch import (
    Launch,
    Launches,
    LaunchKind,
    in_steps,
    launch_kinds,
    stage_programs,
)
from cluster.compiler.pipeline import PipelineSteps, StepSchedules
from cluster.compiler.place import Placement
from cluster.compiler.stage import Stage
from cluster.compiler.stage_work import (
    StageSchedules,
    make_stages,
    stage_key,
    through_all_stages,
)
from cluster.compiler.stages import Plan
from cluster.compiler.timeline import ChipTimeline, Contents, LaunchTimeline
from cluster.compiler.weight_layout import Array, stage_image
from cluster.compiler.wires import Wires
from cluster.compiler.wiring import Pipeline
from cluster.errors import DoesNotFit
from cluster.model.graph.source import Weights
from topology.clocks import ClockSpec

Kept = Callable[[object, Callable[[], Launches]], Launches]  # by a key, or as they are made


@dataclass(frozen=True)
class Lowered:
    """Everything a machine needs: launches, cables, constants; and where inputs go."""

    plan: Plan
    placement: Placement
    pipeline: Pipeline
    launches: dict[str, Launch]
    cables: tuple[Cable, ...]
    stages: tuple[Stage, ...]
    weights: Weights = field(repr=False)
    clocking: Clocking | None = None
    wires: Wires | None = field(default=None, repr=False)

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


@uncollected()
def lower(
    plan: Plan,
    placement: Placement,
    graph: nx.Graph,
    weights: Weights,
    clock: ClockSpec | None = None,
    kinds: Iterable[LaunchKind] | None = None,
    kept: Kept | None = None,
) -> Lowered:
    """Schedule and encode every launch of a plan, for chips whose clocks are as `clock` says.

    `kinds` are those of the launches, where they are not a decoder's. `kept` returns launches that
    are known by a key, else those that it is given the means to make.

    A launch takes its rows through all stages, or it is a pipeline step (see `in_steps`), joined of
    stage programs: here each of them is a launch in which all stages do the same.
    """
    wires = Wires(graph, apart=plan.slots > 1).side_by_side(placement)
    stages = make_stages(plan)
    pipeline = wires.pipeline(placement)
    clocks = clocking(graph, pipeline.used, wires.ports, plan.spec, clock)
    if kinds is None:
        every = launch_kinds(plan)
        kinds = [kind for kind in every if not in_steps(plan, kind, pipeline.apart)]
        programs = tuple(stage_programs(plan, pipeline.apart))
    else:
        kinds, programs = tuple(kinds), ()

    def make() -> Launches:
        work, launches = StageSchedules(plan, pipeline, stages), Launches()
        for kind in kinds:
            timeline = through_all_stages(pipeline, work, kind, clocks)
            launches[str(kind)] = _launch(work, placement, timeline, str(kind), kind)
        if programs:
            parts = StepSchedules(plan, placement, stages, wires, work)
            steps, places = PipelineSteps(plan, pipeline, parts, clocks), Places.of(plan)
            for program in programs:
                timeline, name = steps.compose(program), str(program)
                launches[name] = _launch(work, placement, timeline, name, program.kind, places)
        return launches

    made_of = plan, plan.model.sections, placement, _described(graph), clock, kinds, programs
    launches = kept(made_of, make) if kept else make()
    check_programs(plan, placement, _text_instructions(plan, placement, launches))
    cables = wires.cables(clocks)
    compiled = (plan, placement, pipeline, launches, cables, stages, weights, clocks)
    return Lowered(*compiled, wires)


def _described(graph: nx.Graph) -> tuple[object, ...]:
    """All of a graph: its chips, then its cables, in order."""
    chips = sorted(graph.nodes(data=True), key=lambda node: node[0])
    cables = ((min(a, b), max(a, b), said) for a, b, said in graph.edges(data=True))
    return chips, sorted(cables, key=lambda cable: cable[:2])


@dataclass(frozen=True)
class Places:
    """Where the host writes and reads: what stands before the names of buffers, and x itself."""

    inputs: str = ""
    outputs: str = ""
    entry: str | None = None

    @classmethod
    def of(cls, plan: Plan) -> "Places":
        """Those of the pipeline steps of a plan."""
        return cls(NEXT, OUT) if plan.slots > 1 else cls(entry=RESIDUAL[1])


def check_programs(plan: Plan, placement: Placement, instructions: Mapping[int, int]) -> None:
    """Instructions of each chip rest in SRAM beside the data; raises DoesNotFit."""
    for number, group in enumerate(placement):
        for chip in group:
            count = instructions.get(chip, 0)
            needs = plan.stages[number].sram_bytes + count * plan.spec.instruction_bytes
            if needs > plan.spec.sram_bytes:
                advice = f"{count:,} instructions among it; use more stages or a shorter --context"
                raise DoesNotFit(number, needs, plan.spec.sram_bytes, advice)


def _text_instructions(
    plan: Plan, placement: Placement, launches: Mapping[str, Launch]
) -> dict[int, int]:
    """At most so many instructions rest on each chip, or just so many where room is short."""
    found: dict[int, int] = {}
    for number, group in enumerate(placement):
        room = plan.spec.sram_bytes - plan.stages[number].sram_bytes
        for chip in group:
            held = [launch for launch in launches.values() if chip in launch.programs]
            found[chip] = sum(launch.instructions.get(chip, 0) for launch in held)
            if found[chip] * plan.spec.instruction_bytes > room:
                text = ProgramText()
                found[chip] = sum(text.add(unpack(launch.programs[chip])) for launch in held)
    return found


def _launch(
    work: StageSchedules,
    placement: Placement,
    timeline: LaunchTimeline,
    name: str,
    kind: LaunchKind,
    places: "Places | None" = None,
) -> Launch:
    """The programs of what is on a time axis."""
    holder = {chip: number for number, group in enumerate(placement) for chip in group}
    bodies: dict[tuple[object, ...], bytes] = {}
    contents = Contents()
    programs = {}
    for chip, part in timeline.chips():
        number = holder.get(chip)
        does = None if number is None else stage_key(work.plan, number)
        key = (does, number == 0, *part.key(contents))
        if key not in bodies:
            bodies[key] = pack(_program(work, number, part, kind, places or Places()))
        programs[chip] = with_header(bodies[key], chip, part.start_cycle, part.startup(chip))
    clocked = timeline.startup_cycles, timeline.stalled_cycles
    return Launch(name, *clocked, programs, timeline.end_cycles, timeline.instructions)


def _program(
    work: StageSchedules,
    number: int | None,
    part: ChipTimeline,
    kind: LaunchKind,
    places: "Places",
) -> Program:
    """The program of a chip of a stage, or of one that only passes vectors on (None)."""
    spec, interval = identity(work.plan.spec), part.interval_cycles
    maps = () if number is None else work.stages[number].maps
    bare = Program(0, spec, 0, part.queues(), maps, deskew_interval_cycles=interval)
    if number is None or not kind.context:
        return bare
    stage = work.stages[number]
    return replace(
        bare,
        inputs=input_regions(stage, number == 0, kind, places.inputs, places.entry),
        outputs=output_regions(stage, kind, places.outputs),
        constants=tuple(stage.memory.constants()),
    )
