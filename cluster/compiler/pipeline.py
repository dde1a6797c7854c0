"""Pipeline steps: launches in which every stage is at work, each on a sequence of its own.

With several sequences in flight a launch is not the way of a token through all stages but one step
of the pipeline: first every stage sends what it has to the next, on all links at once, then each
works on what it got, all from the same cycle on. As the sending takes the same cycles whatever the
stages work on, programs for different sequences go together as they are: a step is joined of *stage
programs*, what the chips of one stage do for one slot.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chip.kernels.io_double_buffer import HELD, NEXT, OUT, copy_rows
from chip.schedule import Pace, Schedule
from cluster.compiler.clocking import Pacing
from cluster.compiler.host_regions import input_regions, output_regions
from cluster.compiler.launch import LaunchKind, StageProgram
from cluster.compiler.place import Placement
from cluster.compiler.stage import Stage
from cluster.compiler.stage_work import StageWork, send_activations, stage_key
from cluster.compiler.stages import Plan
from cluster.compiler.timeline import LaunchTimeline, Work, in_parts
from cluster.compiler.wires import Group, Wires
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


class PipelineSteps:
    """What the steps of a plan are made of; `work` of equal stages is made once."""

    def __init__(
        self,
        plan: Plan,
        placement: Placement,
        stages: Sequence[Stage],
        wires: Wires,
        work: StageWork,
        clocks: Pacing | None,
    ) -> None:
        self.plan, self.placement, self.stages = plan, placement, stages
        self.wires, self.work, self.clocks = wires, work, clocks
        self.pipeline = wires.pipeline(placement)
        self._copies: dict[tuple[object, ...], Schedule] = {}
        self._sent: dict[int, list[Schedule]] = {}
        _check_apart(plan, self.pipeline.groups)

    def compose(self, program: StageProgram) -> LaunchTimeline:
        """All stages at work for one slot, or for none."""
        timeline = LaunchTimeline(self.clocks, self.pipeline.used)
        kind, slot, groups = program.kind, program.slot, self.pipeline.groups
        timeline.crossing(self._send(kind, timeline.pace), None)
        if slot is not None:
            pace = timeline.pace
            works = [self._work(n, kind, pace, slot) for n in range(len(groups))]
            timeline.beside(zip((group.members for group in groups), works, strict=True))
        return timeline

    # --- the parts of a step ----------------------------------------------------------------
    def _send(self, kind: LaunchKind, pace: Pace | None) -> list[Schedule]:
        """x from every stage to the next, in parts where the clocks demand it; members are chips.

        Equal for all slots and contexts, and in length, as they share a step.
        """
        if kind.rows not in self._sent:
            count = self.stages[0].hidden_blocks * kind.rows
            limit = pace.limit_cycles if pace else None
            source = HELD if kind.logits_rows else "x0"
            self._sent[kind.rows] = in_parts(count, limit, lambda *rows: self._rows(rows, source))
        return self._sent[kind.rows]

    def _rows(self, rows: tuple[int, ...], source: str) -> Schedule:
        """Some rows of x from every stage to the next.

        Last stages first: what a stage sends is read before the next x overwrites it.
        """
        plan = Schedule(self.plan.spec)
        for number in reversed(range(self.plan.pp - 1)):
            pairs = zip(self.placement[number], self.placement[number + 1], strict=True)
            paths = [tuple(self.wires.hops(path)) for path in self.wires.all_paths(list(pairs))]
            send_activations(
                plan, self.stages[number], self.stages[number + 1], paths, rows, source
            )
        return plan

    def _work(
        self, number: int, kind: LaunchKind, pace: Pace | None, slot: int
    ) -> tuple[Work, Work, Work]:
        """Inputs in, a stage's layers, its result to where the next step or the host finds it."""
        opening, closing = self._take_in(number, kind), self._put_out(number, kind)
        if pace:
            limit, since = pace.limit_cycles - closing.end_cycle, pace.since_cycles
            pace = Pace(pace.stall_cycles, limit, since + opening.end_cycle)
        return opening, self.work.stage(number, kind, pace, slot), closing

    def _take_in(self, number: int, kind: LaunchKind) -> Schedule:
        """The host's inputs to where the stage wants them."""
        stage, first = self.stages[number], number == 0
        key = ("in", stage_key(self.plan, number), first, kind)
        if key not in self._copies:
            plan = self._copies[key] = Schedule(self.plan.spec)
            for name, region in input_regions(stage, first, kind).items():
                source, target = (stage.view(n, region.vectors) for n in (NEXT + name, name))
                for member in range(stage.members):
                    copy_rows(plan, member, source, target, f"take in {name}")
        return self._copies[key]

    def _put_out(self, number: int, kind: LaunchKind) -> Schedule:
        """x, or logits, to where a step leaves them; x of a prefill rests where it is."""
        stage, last = self.stages[number], number == self.plan.pp - 1
        key = ("out", stage_key(self.plan, number), last, kind.rows, kind.logits_rows)
        if key not in self._copies:
            plan = self._copies[key] = Schedule(self.plan.spec)
            names = {name: OUT + name for name in output_regions(stage, kind)}
            if kind.logits_rows and not last:
                names = {"x0": HELD}
            for name, target in names.items():
                for member in range(stage.members):
                    copy_rows(plan, member, stage.memory[name], stage.memory[target], "put out")
        return self._copies[key]


def _check_apart(plan: Plan, groups: Sequence[Group]) -> None:
    """Stages that work side by side must not need each other's chips for their all-reduces."""
    holder: dict[int, int] = {}
    for number, group in enumerate(groups):
        for chip in group.members:
            if holder.setdefault(chip, number) != number:
                shared = f"all-reduces of stages {holder[chip]} and {number} both cross chip {chip}"
                advice = "name a --topology that keeps tensor groups together, or another --tp"
                raise BadValue("sequences in flight", plan.slots, f"{shared}; {advice}")
