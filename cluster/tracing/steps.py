"""Steps of a launch on its time axis: the composition of lowering and planning, kept apart.

A stage is composed of the same steps, at the same cycles, as its schedule; what is on the axis here
still knows its layer, and its chains their labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chip.schedule import Pace, Schedule, ScheduleTiming, TimingSequence
from chip.schedule import Sequence as InOrder
from cluster.compiler.launch import LaunchKind
from cluster.compiler.stage import Stage
from cluster.compiler.stage_work import StageSchedules, step_timing
from cluster.compiler.stages import Plan
from cluster.compiler.timeline import LaunchTimeline, PlacedWork
from cluster.compiler.wiring import Pipeline
from cluster.planning.kept_timings import KeptTimings

Members = Mapping[int, int] | None
Parts = tuple[tuple[Schedule, tuple[Members, ...]], ...]
TRANSFER = "transfer"


@dataclass(frozen=True)
class TimedStep:
    """A step in its stage: what it is, of which layer of the model, and when; see `Step`.

    `cycle` is that of its stage. Without `parts`, only its timing is known.
    """

    what: str
    layer: int | None
    cycle: int
    timing: ScheduleTiming
    parts: Parts = ()
    early_cycles: int = 0
    tail_cycles: int = 0


@dataclass
class StageSteps(TimingSequence):
    """The timing of a stage, and the steps that it is of."""

    steps: list[TimedStep] = field(default_factory=list)

    def fill(self, found: Iterator[TimedStep], pace: Pace | None) -> "StageSteps":
        """Put steps one after another; raises ProgramError as their schedule does."""
        order = InOrder(self, pace)
        for one in found:
            cycles = one.timing.quiet_cycle - one.early_cycles
            cycle = order.start(cycles, one.early_cycles, one.tail_cycles)
            self.add(one.timing, cycle)
            self.steps.append(replace(one, cycle=cycle))
        return self


class ScheduledSteps:
    """The work of stages from their schedules, which have instructions."""

    def __init__(self, plan: Plan, pipeline: Pipeline, stages: Sequence[Stage]) -> None:
        self.plan, self.pipeline, self.stages = plan, pipeline, stages
        self._between = StageSchedules(plan, pipeline, stages)

    def stage(self, number: int, kind: LaunchKind, pace: Pace | None, slot: int = 0) -> StageSteps:
        """The steps of a stage for a sequence slot."""
        first, limit = self.plan.stages[number].first, pace.limit_cycles if pace else None
        routes = self.pipeline.groups_of(kind)[number].routes
        slots = range(slot, slot + kind.slots)
        found = (
            TimedStep(
                step.what,
                None if step.layer is None else first + step.layer,
                0,
                step_timing(step).timing,
                step.parts,
                step.early_cycles,
                step.tail_cycles,
            )
            for step in self.stages[number].steps(kind.rows, kind.blocks, routes, limit, slots)
        )
        return StageSteps().fill(found, pace)

    def crossing(self, number: int, kind: LaunchKind, limit_cycles: int | None) -> list[Schedule]:
        """What brings x from a stage to the next."""
        return self._between.crossing(number, kind, limit_cycles)


class KnownSteps:
    """The work of stages from the timings of a plan, which schedule nothing again."""

    def __init__(self, plan: Plan, timings: KeptTimings) -> None:
        self.plan, self.timings = plan, timings

    def stage(self, number: int, kind: LaunchKind, pace: Pace | None, slot: int = 0) -> StageSteps:
        """The steps of a stage."""
        stage, costs = self.timings.kinds(kind)[number], self.timings.costs
        first, limit = self.plan.stages[number].first, pace.limit_cycles if pace else None

        def steps() -> Iterator[TimedStep]:
            for layer, one in enumerate(stage.layers, first):
                for step in costs.layer(stage.width, one, kind, stage.routes, limit):
                    overlap = step.early_cycles, step.tail_cycles
                    yield TimedStep(step.what, layer, 0, step.timing, (), *overlap)
            if stage.head and kind.logits_rows:
                for step in costs.head(stage.width, kind.rows):
                    yield TimedStep(step.what, None, 0, step.timing)

        return StageSteps().fill(steps(), pace)

    def crossing(
        self, number: int, kind: LaunchKind, limit_cycles: int | None
    ) -> Sequence[ScheduleTiming]:
        """What brings x from a stage to the next."""
        return self.timings.crossing(number, kind, limit_cycles)


@dataclass(frozen=True)
class PlacedStep:
    """A step on the axis of the launch, from `cycle` on; members are those of `chips`, or chips.

    A crossing has the number of the stage that it leaves; the sends of a pipeline step have none.
    """

    what: str
    stage: int | None
    layer: int | None
    cycle: int
    timing: ScheduleTiming
    chips: Sequence[int] | None
    parts: Parts = ()
    early_cycles: int = 0

    @property
    def name(self) -> str:
        """What a slice of it is called."""
        return self.what if self.layer is None else f"layer {self.layer} {self.what}"

    def chip(self, member: int) -> int:
        """The chip of a member."""
        return member if self.chips is None else self.chips[member]


def placed_steps(
    timeline: LaunchTimeline, groups: Sequence[tuple[int, ...]]
) -> Iterator[PlacedStep]:
    """All that is on an axis, in order; stages, on these groups of chips, as their steps."""
    numbers = {chips: number for number, chips in enumerate(groups)}
    stage = None
    for placed in timeline.placed:
        work, chips, cycle = placed
        stage = stage if chips is None else numbers.get(tuple(chips), stage)
        if isinstance(work, StageSteps):
            for step in work.steps:
                at = cycle + step.cycle
                what = step.what, stage, step.layer, at, step.timing, chips, step.parts
                yield PlacedStep(*what, step.early_cycles)
        else:
            yield _whole(placed, stage)


def _whole(placed: PlacedWork, stage: int | None) -> PlacedStep:
    """A schedule, or its timing, that is one step: a crossing, or a copy before or after."""
    work, chips, cycle = placed
    ((timing, _),) = work.timings
    if not isinstance(work, Schedule):
        return PlacedStep(TRANSFER, stage, None, cycle, timing, chips)
    what = next((label for label, *_ in work.events), TRANSFER)
    return PlacedStep(what, stage, None, cycle, timing, chips, ((work, (None,)),))


def stalls(timeline: LaunchTimeline) -> Iterator[tuple[Sequence[int], int, int]]:
    """(chips, first cycle, cycles) of the Runtime deskews of stages."""
    for work, chips, cycle in timeline.placed:
        if isinstance(work, StageSteps) and chips is not None:
            yield from ((chips, cycle + at, stall) for at, stall in work.stalls)
