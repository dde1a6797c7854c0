"""What stages do in a launch: as schedules to be lowered, or as their timings to be planned."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from chip.kernels.step import Step
from chip.schedule import Pace, Schedule, ScheduleTiming, TimingSequence, merged
from chip.schedule import Sequence as InOrder
from cluster.compiler.clocking import Pacing
from cluster.compiler.hand_over import quicker, row_cycles, send_activations, send_shares
from cluster.compiler.launch import LaunchKind
from cluster.compiler.stage import Stage
from cluster.compiler.stages import Plan
from cluster.compiler.timeline import LaunchTimeline, Part, Work, in_parts
from cluster.compiler.wiring import Pipeline


class StageWork(Protocol):
    """Where what a stage does in a launch is made."""

    def stage(self, number: int, kind: LaunchKind, pace: Pace | None, slot: int = 0) -> Work:
        """Return the work of a stage for sequence slots from one on; raises ProgramError."""


class LaunchWork(StageWork, Protocol):
    """The same, with what lies between two stages."""

    def crossing(self, number: int, kind: LaunchKind, limit_cycles: int | None) -> Sequence[Part]:
        """Return what brings x from a stage to the next, in parts within the limit if possible.

        Members are numbers in the chips of the link.
        """


def through_all_stages(
    pipeline: Pipeline, work: LaunchWork, kind: LaunchKind, clocks: Pacing | None
) -> LaunchTimeline:
    """A launch: stages one after another, each from the cycle at which its input is there.

    Chips that pass on what only longer rows bring hear of its start, as others hear it from them.
    """
    timeline = LaunchTimeline(clocks, pipeline.used)
    for number, group in enumerate(pipeline.groups_of(kind)):
        timeline.stage(work.stage(number, kind, timeline.pace), group.members)
        if number < len(pipeline.links):
            pace = timeline.pace
            parts = work.crossing(number, kind, pace.limit_cycles if pace else None)
            timeline.crossing(parts, pipeline.links[number].chips)
    return timeline


class StageSchedules:
    """Schedules of the stages of a plan; equal stages, and equal links, are scheduled once."""

    def __init__(self, plan: Plan, pipeline: Pipeline, stages: Sequence[Stage]) -> None:
        self.plan, self.pipeline, self.stages = plan, pipeline, stages
        self._made: dict[tuple[object, ...], Schedule] = {}
        self._crossings: dict[tuple[object, ...], list[Schedule]] = {}

    def stage(self, number: int, kind: LaunchKind, pace: Pace | None, slot: int = 0) -> Schedule:
        """The schedule of a stage."""
        routes = self.pipeline.groups_of(kind)[number].routes
        key = (stage_key(self.plan, number), kind, pace, slot, routes)
        if key not in self._made:
            stage = self.stages[number]
            slots = range(slot, slot + kind.slots)
            self._made[key] = stage.schedule(kind.rows, kind.blocks, routes, pace, slots)
        return self._made[key]

    def crossing(self, number: int, kind: LaunchKind, limit_cycles: int | None) -> list[Schedule]:
        """x of a stage to the next, by the quicker way."""
        link = self.pipeline.links[number]
        kinds = (stage_key(self.plan, n) for n in (number, number + 1))
        key = (*kinds, kind, limit_cycles, link.paths, link.onward)
        if key not in self._crossings:
            stage, following = self.stages[number], self.stages[number + 1]

            def make(first: int, last: int) -> Schedule:
                rows = first, last

                def whole() -> Schedule:
                    plan = Schedule(stage.spec)
                    return send_activations(plan, stage, following, link.paths, rows)

                shared = send_shares(stage, following, link.paths, link.onward, rows)
                return quicker(link.paths, last - first, whole, shared)

            count = stage.hidden_blocks * kind.rows
            least = 0 if link.onward else row_cycles(link.paths)
            self._crossings[key] = in_parts(count, limit_cycles, make, least)
        return self._crossings[key]


class StageTimings:
    """Timings of the stages of a plan as their memory maps are; equal stages are timed once.

    For pipeline steps, between whose stages nothing crosses but what is scheduled for all at once.
    """

    def __init__(self, plan: Plan, pipeline: Pipeline, stages: Sequence[Stage]) -> None:
        self.plan, self.pipeline, self.stages = plan, pipeline, stages
        self._made: dict[tuple[object, ...], TimingSequence] = {}

    def stage(
        self, number: int, kind: LaunchKind, pace: Pace | None, slot: int = 0
    ) -> TimingSequence:
        """The timing of a stage, which is that of any slot."""
        routes = self.pipeline.groups_of(kind)[number].routes
        key = (stage_key(self.plan, number), kind, pace, routes)
        if key not in self._made:
            limit = pace.limit_cycles if pace else None
            size = kind.rows, kind.blocks, routes, limit, range(kind.slots)
            steps = self.stages[number].steps(*size)
            self._made[key] = in_order(map(step_timing, steps), pace)
        return self._made[key]


@dataclass(frozen=True)
class StepTiming:
    """A step of all members; `attention_cycles` are those of a whole layer in one step."""

    what: str
    timing: ScheduleTiming
    attention_cycles: int = 0
    early_cycles: int = 0
    tail_cycles: int = 0

    @property
    def cycles(self) -> int:
        """Cycles after the step before, after which the next one may begin; see `Step`."""
        return self.timing.quiet_cycle - self.early_cycles


def in_order(steps: Iterable[StepTiming], pace: Pace | None) -> TimingSequence:
    """Steps as the schedule of a stage puts them one after another; raises ProgramError."""
    whole = TimingSequence()
    order = InOrder(whole, pace)
    for step in steps:
        begin = order.start(step.cycles, step.early_cycles, step.tail_cycles)
        whole.add(step.timing, begin)
    return whole


class StepsInOrder:
    """Steps of a stage one after another at any pace, made once for those with the same stalls."""

    def __init__(self, steps: Sequence[StepTiming]) -> None:
        self.steps = steps
        ends = (0, *accumulate(step.cycles for step in steps))
        self.cycles = ends[-1]
        # Cycles since the last stall that each step must fit in, of it and all steps before.
        each = (0 if step.early_cycles else begin + step.cycles + step.tail_cycles
                for begin, step in zip(ends, steps, strict=False))  # fmt: skip
        self._needs = list(accumulate(each, max))
        self._found: dict[tuple[int, int, int], TimingSequence] = {}

    def at(self, pace: Pace | None) -> TimingSequence:
        """See `in_order`: where the first stall is, nothing that comes after knows of the pace."""
        if pace is None:
            return in_order(self.steps, None)
        first = bisect_right(self._needs, pace.limit_cycles - pace.since_cycles)
        key = first, pace.stall_cycles, pace.limit_cycles
        if key not in self._found:
            self._found[key] = in_order(self.steps, pace)
        found = self._found[key]
        if found.stalls:
            return found
        return found.since(pace.since_cycles + self.cycles)


def step_timing(step: Step) -> StepTiming:
    """The timing of all parts of a step, by member."""
    attention = 0
    if step.what == "layer":  # attention is over with its residual
        events = step.parts[0][0].events
        attention = min(end for label, _, end in events if label == "residual")
    overlap = step.early_cycles, step.tail_cycles
    return StepTiming(step.what, merged(_members(step)), attention, *overlap)


def _members(step: Step) -> Iterator[tuple[ScheduleTiming, Sequence[int] | None, int]]:
    for part, everyone in step.parts:
        ((timing, _),) = part.timings
        for members in everyone:
            if members is None:
                yield timing, None, 0
                continue
            numbers = [members.get(n, n) for n in range(max(timing.members) + 1)]
            yield timing, numbers, 0


def stage_key(plan: Plan, number: int) -> tuple[tuple[int, ...], bool, bool]:
    """Equal for stages of a plan that have the same memory map and do the same."""
    part = plan.stages[number]
    opening = part.first == 0 and plan.model.opening is not None
    return plan.kinds(number), part.head, opening


def make_stages(plan: Plan) -> tuple[Stage, ...]:
    """A memory map per stage; equal stages share one."""
    made: dict[tuple[object, ...], Stage] = {}
    for number in range(plan.pp):
        key = stage_key(plan, number)
        if key not in made:
            made[key] = plan.stage(number)
    return tuple(made[stage_key(plan, number)] for number in range(plan.pp))
