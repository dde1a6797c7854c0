"""Launches to be shown: of a model that runs, of a plan, or of programs by hand."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from chip.board import Cable
from chip.isa import lookup
from chip.own_spec import chip_of
from chip.program import Instruction, Program
from chip.wire import unpack
from cluster.compiler.launch import (
    LaunchKind,
    StageProgram,
    decode_kind,
    launch_kinds,
    stage_programs,
)
from cluster.compiler.lower import Lowered
from cluster.compiler.pipeline import PipelineSteps, StepSchedules
from cluster.compiler.place import Placement
from cluster.compiler.stage_work import LaunchWork, through_all_stages
from cluster.compiler.timeline import LaunchTimeline
from cluster.planning.timing import PlanTiming
from cluster.tracing.events import INSTRUCTIONS, SEGMENTS, Timeline
from cluster.tracing.levels import Launch, timeline
from cluster.tracing.steps import (
    KnownSteps,
    PlacedStep,
    ScheduledSteps,
    placed_steps,
    stalls,
)

Programs = list[tuple[int, str, int, Instruction]]


def run_timeline(
    lowered: Lowered,
    joined: Mapping[int, str],
    name: str,
    level: str,
    chips: Collection[int] | None = None,
) -> Timeline:
    """The timeline of launch `name` of a model; `joined` says whose program each chip runs in it.

    Instructions are those of the programs, steps those that the schedules were made of.
    """
    programs: Programs = []
    if level == INSTRUCTIONS:
        wanted = joined if chips is None else [chip for chip in sorted(joined) if chip in chips]
        found = {chip: unpack(lowered.launches[joined[chip]].programs[chip]) for chip in wanted}
        programs = list(_instructions(found))
    launch = run_launch(lowered, joined, name, programs)
    return timeline(launch, level, chips)


def run_launch(
    lowered: Lowered, joined: Mapping[int, str], name: str, programs: Programs
) -> Launch:
    """A launch of a model with its steps; see `run_timeline`."""
    plan, pipeline, spec = lowered.plan, lowered.pipeline, lowered.plan.spec
    work = ScheduledSteps(plan, pipeline, lowered.stages)
    parts, some = set(joined.values()), next(iter(joined.values()))
    programs_of = {str(one): one for one in stage_programs(plan, pipeline.apart)}
    in_steps = parts <= programs_of.keys()
    if in_steps:
        composed = _composed(lowered, work, {name: programs_of[name] for name in parts})
        groups = pipeline.groups
    else:
        kinds = {str(kind): kind for kind in launch_kinds(plan)}
        clocks = lowered.clocking
        composed = {n: through_all_stages(pipeline, work, kinds[n], clocks) for n in parts}
        groups = pipeline.groups_of(kinds[some])
    members = [group.members for group in groups]
    first = composed[some]
    steps: list[PlacedStep] = []
    stalled: list[tuple[Collection[int], int, int]] = []
    if not in_steps:
        steps += placed_steps(first, members)
        stalled += stalls(first)
    else:
        # All send alike; then each stage does what its own program says.
        steps += (one for one in placed_steps(first, members) if one.chips is None)
        for group in members:
            mine = composed[joined[group[0]]]
            steps += (one for one in placed_steps(mine, members) if one.chips == group)
            stalled += (one for one in stalls(mine) if one[0] == group)
    ends = {chip: composed[of].end_cycles[chip] for chip, of in joined.items()}
    return Launch(
        name,
        spec.clock_hz,
        spec.lanes,
        first.startup_cycles,
        ends,
        titles_of(lowered.placement, joined),
        steps,
        stalled,
        lowered.cables,
        programs,
    )


def _composed(
    lowered: Lowered, work: ScheduledSteps, programs: Mapping[str, StageProgram]
) -> dict[str, LaunchTimeline]:
    """The time axes of the stage programs that a pipeline step is joined of."""
    assert lowered.wires is not None, "a model is lowered with its wires"
    size = (lowered.plan, lowered.placement, lowered.stages, lowered.wires, work)
    steps = PipelineSteps(lowered.plan, lowered.pipeline, StepSchedules(*size), lowered.clocking)
    return {name: steps.compose(program) for name, program in programs.items()}


def titles_of(placement: Placement, chips: Collection[int]) -> dict[int, str]:
    """What each chip is called: its number, its stage and its rank."""
    labels = {
        chip: f"stage {stage} rank {rank}"
        for stage, group in enumerate(placement)
        for rank, chip in enumerate(group)
    }
    return {chip: f"chip-{chip:03d} {labels.get(chip, 'transit')}" for chip in sorted(chips)}


# --- plans ----------------------------------------------------------------------------------------
def plan_timeline(timed: PlanTiming, level: str, chips: Collection[int] | None = None) -> Timeline:
    """The timeline of a token at the plan's context; segments are those of its timings."""
    return timeline(plan_launch(timed, decode_kind(timed.plan.context), level), level, chips)


def plan_launch(timed: PlanTiming, kind: LaunchKind, level: str) -> Launch:
    """A launch through all stages of a plan; below segments, its stages are scheduled for it."""
    plan, spec = timed.plan, timed.plan.spec
    work: LaunchWork = KnownSteps(plan, timed.work)
    if level != SEGMENTS:
        work = ScheduledSteps(plan, timed.pipeline, timed.stages)
    axis = through_all_stages(timed.pipeline, work, kind, timed.clocks)
    members = [group.members for group in timed.pipeline.groups_of(kind)]
    steps = list(placed_steps(axis, members))
    used = sorted(axis.end_cycles)
    return Launch(
        str(kind),
        spec.clock_hz,
        spec.lanes,
        axis.startup_cycles,
        axis.end_cycles,
        titles_of(timed.placement, used),
        steps,
        list(stalls(axis)),
        timed.wires.cables(),
        [],
    )


# --- programs -------------------------------------------------------------------------------------
def programs_timeline(
    programs: Mapping[int, Program],
    title: str,
    cables: Sequence[Cable],
    name: str,
    chips: Collection[int] | None = None,
) -> Timeline:
    """The instructions of programs, by chip, from the programs alone."""
    spec = chip_of(next(iter(programs.values())).spec)
    ends = {chip: end_cycle(program) for chip, program in programs.items()}
    titles = {chip: f"chip-{chip:03d} {title}" for chip in sorted(programs)}
    found = list(_instructions(programs))
    launch = Launch(name, spec.clock_hz, spec.lanes, 0, ends, titles, (), (), cables, found)
    return timeline(launch, INSTRUCTIONS, chips)


def _instructions(
    programs: Mapping[int, Program],
) -> Iterator[tuple[int, str, int, Instruction]]:
    for chip, program in sorted(programs.items()):
        for queue, cycle, instruction in program.instructions():
            yield chip, queue, program.start_cycle + cycle, instruction


def end_cycle(program: Program) -> int:
    """Cycle at which the last result has left the last tile, from the instructions alone."""
    spec, ends = chip_of(program.spec), [0]
    for _, cycle, instruction in program.instructions():
        timing = lookup(instruction.op).timing
        delay = spec.d_func(timing) if timing else 0
        ends.append(cycle + instruction.span_cycles + delay + spec.superlanes)
    return program.start_cycle + max(ends)
