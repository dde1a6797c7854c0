"""Pipeline steps: launches in which every stage is at work, each on rows of its own.

With several sequences in flight, and for the chunks of a prompt, a launch is not the way of rows
through all stages but one step of the pipeline: first every stage sends what it has to the next, on
all links at once, then each works on what it got, all from the same cycle on. As the sending takes
the same cycles whatever the stages work on, programs for different sequences go together as they
are: a step is joined of *stage programs*, what the chips of one stage do for one slot.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

from chip.kernels.io_double_buffer import HELD, NEXT, OUT, copy_rows
from chip.schedule import Pace, Schedule
from cluster.compiler.assign import RESIDUAL
from cluster.compiler.clocking import Pacing
from cluster.compiler.hand_over import Sender, hand_round, quickest_parts, send, step_senders
from cluster.compiler.host_regions import input_regions, output_regions
from cluster.compiler.launch import LaunchKind, StageProgram
from cluster.compiler.place import Placement
from cluster.compiler.stage import Stage
from cluster.compiler.stage_work import StageWork, stage_key
from cluster.compiler.stages import Plan
from cluster.compiler.timeline import LaunchTimeline, Part, Work
from cluster.compiler.wires import Wires
from cluster.compiler.wiring import Group, Pipeline
from cluster.errors import BadValue


class HasPrograms(Protocol):
    """A launch, as far as a pipeline step is concerned."""

    @property
    def programs(self) -> Mapping[int, bytes]:
        """Return the program of every chip."""


def joined(
    groups: Sequence[Group], programs: Sequence[StageProgram], launches: Mapping[str, HasPrograms]
) -> dict[int, str]:
    """The launch whose program each chip runs in a step of these stage programs.

    Chips that only pass vectors on between stages do the same in all of a kind.
    """
    parts = dict.fromkeys(launches[str(programs[0])].programs, str(programs[0]))
    for group, program in zip(groups, programs, strict=True):
        parts |= dict.fromkeys(group.members, str(program))
    return parts


class StepParts(StageWork, Protocol):
    """What steps are made of: schedules, or their timings."""

    def alike(self, number: int) -> Hashable:
        """Return what is equal for stages that do the same."""

    def sent(self, kind: LaunchKind, limit_cycles: int | None) -> Sequence[Part]:
        """Return what brings x from every stage to the next; members are chips.

        In parts within the limit if possible. Equal for all slots and contexts, and in length, as
        they share a step.
        """

    def take_in(self, number: int, kind: LaunchKind) -> Work | None:
        """Return what brings the host's inputs to where the stage wants them, if that is needed."""

    def put_out(self, number: int, kind: LaunchKind) -> Work | None:
        """Return what brings results to where the host or the next step finds them, if needed."""


class PipelineSteps:
    """The steps of a plan on a placed pipeline, composed of `parts`."""

    def __init__(
        self, plan: Plan, pipeline: Pipeline, parts: StepParts, clocks: Pacing | None
    ) -> None:
        self.plan, self.pipeline, self.parts, self.clocks = plan, pipeline, parts, clocks
        _check_apart(plan, pipeline.groups)

    def compose(self, program: StageProgram) -> LaunchTimeline:
        """All stages at work for one slot, or for none."""
        timeline = LaunchTimeline(self.clocks, self.pipeline.used)
        kind, slot, groups = program.kind, program.slot, self.pipeline.groups
        pace = timeline.pace
        timeline.crossing(self.parts.sent(kind, pace.limit_cycles if pace else None), None)
        if slot is not None:
            pace = timeline.pace
            made: dict[Hashable, list[Work]] = {}
            for number in range(len(groups)):
                key = self.parts.alike(number)
                if key not in made:
                    made[key] = self._work(number, kind, pace, slot)
            works = [made[self.parts.alike(number)] for number in range(len(groups))]
            timeline.beside(zip((group.members for group in groups), works, strict=True))
        return timeline

    def _work(self, number: int, kind: LaunchKind, pace: Pace | None, slot: int) -> list[Work]:
        """Inputs in, a stage's layers, its result to where the next step or the host finds it."""
        opening, closing = self.parts.take_in(number, kind), self.parts.put_out(number, kind)
        layers = self.parts.stage(number, kind, self.layers_pace(number, kind, pace), slot)
        return [work for work in (opening, layers, closing) if work]

    def layers_pace(self, number: int, kind: LaunchKind, pace: Pace | None) -> Pace | None:
        """When the layers of a stage must stall, given when the whole stage must."""
        if pace is None:
            return None
        copies = self.parts.take_in(number, kind), self.parts.put_out(number, kind)
        before, after = (one.end_cycle if one else 0 for one in copies)
        return Pace(pace.stall_cycles, pace.limit_cycles - after, pace.since_cycles + before)


class StepSchedules:
    """Parts of steps as schedules; `work` of equal stages is made once.

    With several slots the host works beside the chips, so that inputs and results are kept twice.
    With one it waits for them. x of a chunk comes beside what is sent on meanwhile: reading and
    writing in one bank, a chip would have to do them one after the other.
    """

    def __init__(
        self,
        plan: Plan,
        placement: Placement,
        stages: Sequence[Stage],
        wires: Wires,
        work: StageWork,
    ) -> None:
        self.plan, self.placement, self.stages = plan, placement, stages
        self.wires, self.stage = wires, work.stage
        self._copies: dict[tuple[object, ...], Schedule] = {}
        self._sent: dict[tuple[int, bool, int | None], list[Schedule]] = {}

    def alike(self, number: int) -> Hashable:
        """See StepParts."""
        return number

    def sent(self, kind: LaunchKind, limit_cycles: int | None) -> list[Schedule]:
        """See StepParts."""
        key = kind.rows, bool(kind.logits_rows), limit_cycles
        if key not in self._sent:
            count = self.stages[0].hidden_blocks * kind.rows
            source, target = (HELD, RESIDUAL[0]) if kind.logits_rows else RESIDUAL

            def sent(some: Sequence[Sender], first: int, last: int) -> Schedule:
                plan = Schedule(self.plan.spec)
                for one in some:
                    x, to = self.stages[one.stage].memory, self.stages[one.stage + 1].memory
                    send(plan, one.path, (x[source], to[target]), one.some(count, first, last))
                return plan

            def handed_round(some: Sequence[Sender], first: int, last: int) -> Schedule:
                plan = Schedule(self.plan.spec)
                for one in some:
                    x = self.stages[one.stage + 1].memory[target]
                    hand_round(plan, one.onward, x, one.some(count, first, last))
                return plan

            every = list(step_senders(self.wires, self.placement))
            self._sent[key] = quickest_parts(every, count, limit_cycles, sent, handed_round)
        return self._sent[key]

    def take_in(self, number: int, kind: LaunchKind) -> Schedule | None:
        """See StepParts."""
        stage, first = self.stages[number], number == 0
        several = self.plan.slots > 1
        key = ("in", stage_key(self.plan, number), first, kind)
        if key not in self._copies:
            plan = self._copies[key] = Schedule(self.plan.spec)
            if several:
                for name, region in input_regions(stage, first, kind).items():
                    source, target = (stage.view(n, region.vectors) for n in (NEXT + name, name))
                    for member in range(stage.members):
                        copy_rows(plan, member, source, target, f"take in {name}")
            if comes_beside(kind, first, several):
                take_in_x(plan, stage, kind.rows)
        return self._copies[key]

    def put_out(self, number: int, kind: LaunchKind) -> Schedule | None:
        """x, or logits, to where a step leaves them; x of a prefill rests where it is."""
        if self.plan.slots == 1:
            return None
        stage, last = self.stages[number], number == self.plan.pp - 1
        key = ("out", stage_key(self.plan, number), last, kind.rows, kind.logits_rows)
        if key not in self._copies:
            plan = self._copies[key] = Schedule(self.plan.spec)
            names = {name: OUT + name for name in output_regions(stage, kind)}
            if kind.logits_rows and not last:
                names = {RESIDUAL[0]: HELD}
            for name, target in names.items():
                for member in range(stage.members):
                    copy_rows(plan, member, stage.memory[name], stage.memory[target], "put out")
        return self._copies[key]


def take_in_x(plan: Schedule, stage: Stage, rows: int) -> Schedule:
    """Add what brings x of so many rows to its place, from that of the residual stream's turn."""
    target, source = (stage.view(name, stage.hidden_blocks * rows) for name in RESIDUAL)
    for member in range(stage.members):
        copy_rows(plan, member, source, target, "take in x")
    return plan


def comes_beside(kind: LaunchKind, first: bool, several: bool) -> bool:
    """Whether x comes to the place of the residual stream's turn: its own is sent on meanwhile.

    With several slots the host leaves x of the `first` stage among its inputs.
    """
    return not kind.logits_rows and not (first and several)


def _check_apart(plan: Plan, groups: Sequence[Group]) -> None:
    """Stages that work side by side must not need each other's chips for their all-reduces."""
    holder: dict[int, int] = {}
    for number, group in enumerate(groups):
        for chip in group.members:
            if holder.setdefault(chip, number) != number:
                shared = f"all-reduces of stages {holder[chip]} and {number} both cross chip {chip}"
                advice = "name a --topology that keeps tensor groups together, or another --tp"
                raise BadValue("sequences in flight", plan.slots, f"{shared}; {advice}")
