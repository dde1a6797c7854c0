"""When stages are done with each kind of pipeline step, and what the programs of steps hold."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from chip.program import Queues, fill_queue
from chip.text import ProgramText
from cluster.compiler.launch import LaunchKind, StageProgram, stage_programs
from cluster.compiler.pipeline import PipelineSteps, StepSchedules
from cluster.compiler.stage_work import stage_key
from cluster.compiler.timeline import LaunchTimeline
from cluster.compiler.wiring import Group
from cluster.planning.cost_store import CostStore
from cluster.serving.requests import Step
from topology.fabric import Ints

T = TypeVar("T")


@dataclass(frozen=True)
class StepFigures:
    """Of a step in which all stages are at work for a kind: the last cycle of each, with those who
    only pass vectors on; cycles in which the links are at work; instructions of each chip.
    """

    end_cycles: tuple[int, ...]
    sending_cycles: int
    instructions: Mapping[int, int]


class StepTimes:
    """When the chips of each stage are done with each kind of stage program.

    Kept in a store, if there is a `key` to all that they follow from.
    """

    def __init__(
        self, steps: PipelineSteps, store: CostStore | None = None, key: object = None
    ) -> None:
        self.steps, self._store, self._key = steps, store or CostStore(), key
        self._timelines: dict[LaunchKind, LaunchTimeline] = {}
        self._figures: dict[LaunchKind, StepFigures] = {}
        self._cycles: dict[tuple[LaunchKind, tuple[int, ...]], int] = {}

    def cycles(self, step: Step) -> int:
        """Cycles of a step: of the stage that takes longest over its work, or over none."""
        # Of works of one kind, which differ by their contexts: prompts of a plan share most steps.
        key = step.kind, tuple([work.kind.context if work else 0 for work in step.works])
        if key not in self._cycles:
            works = zip(key[1], step.works, strict=True)
            kinds = {at: work.kind if work else step.kind for at, work in works}
            ends = {at: self.stage_ends(kind) for at, kind in kinds.items()}
            self._cycles[key] = max(ends[at][stage] for stage, at in enumerate(key[1]))
        return self._cycles[key]

    def full_cycles(self, kind: LaunchKind) -> int:
        """Cycles of a step in which all stages are at work."""
        return max(self.stage_ends(kind))

    def sending_cycles(self, kind: LaunchKind) -> int:
        """Cycles of a step in which the links between stages are at work."""
        return self.figures(kind.idle).sending_cycles

    def stage_ends(self, kind: LaunchKind) -> Sequence[int]:
        """The last cycle of each stage; those who only pass vectors on count with every stage."""
        return self.figures(kind).end_cycles

    def instructions_of(self, kind: LaunchKind) -> Mapping[int, int]:
        """Instructions of each chip in stage programs of a kind."""
        return self.figures(kind).instructions

    def cycles_of(self, kinds: Sequence[LaunchKind], works: Ints) -> list[int]:
        """Cycles of steps by numbers of the kinds that stages work on [steps, stages]; -1: none."""
        every = [*kinds, kinds[0].idle]
        ends = np.array([self.stage_ends(kind) for kind in every])
        found: list[int] = ends[works, np.arange(works.shape[1])].max(axis=1).tolist()
        return found

    def instructions(self) -> dict[int, int]:
        """Instructions that rest on each chip: those that its programs have in common once.

        What programs of a further slot add is counted on one chip of each kind of stage.
        """
        return self._kept("instructions", "all", self._instructions, _plain_counts, _counts)

    def _instructions(self) -> dict[int, int]:
        plan, total, programs = self.steps.plan, Counter[int](), defaultdict[LaunchKind, int](int)
        for program in stage_programs(plan, self.steps.pipeline.apart):
            if program.slot in (None, 0):
                total.update(self.instructions_of(program.kind))
            else:
                programs[program.kind] += 1
        more: dict[Hashable, int] = {}
        for number, group in enumerate(self.steps.pipeline.groups):
            key = stage_key(plan, number)
            if key not in more:
                most = max(group.members, key=lambda member: total[member])
                member = group.members.index(most)
                more[key] = sum(n * self._more(number, member, k) for k, n in programs.items())
            for chip in group.members:
                total[chip] += more[key]
        return dict(total)

    def _more(self, number: int, member: int, kind: LaunchKind) -> int:
        """Instructions that a stage has for the second slots of a kind, and not for the first.

        None of them is of an all-reduce.
        """
        assert isinstance(self.steps.parts, StepSchedules)
        stage, text = self.steps.parts.stages[number], ProgramText()
        pace = self.steps.layers_pace(number, kind, self._timeline(kind).pace)
        for slot in (0, kind.slots):
            slots = range(slot, slot + kind.slots)
            alone = stage.schedule(kind.rows, kind.blocks, None, pace, slots, member)
            queues = alone.placed.get(member, {})
            filled = {name: fill_queue(placed, name) for name, placed in queues.items()}
            more = text.add(Queues.of(filled))
        return more

    def figures(self, kind: LaunchKind) -> StepFigures:
        """What a step of a kind takes."""
        if kind not in self._figures:
            made = self._kept("step", kind, lambda: self._made(kind), _plain, _read)
            self._figures[kind] = made
        return self._figures[kind]

    def _made(self, kind: LaunchKind) -> StepFigures:
        timeline, groups = self._timeline(kind), self.steps.pipeline.groups
        if kind == kind.idle:
            ends = _group_ends(timeline, groups)
        else:  # all contexts share what is sent on, and when that is
            members = (group.members for group in groups)
            own = dict(zip(members, self.stage_ends(kind.idle), strict=True))
            for placed in timeline.placed:
                if placed.chips is not None:
                    chips, end = tuple(placed.chips), placed.cycle + placed.work.end_cycle
                    own[chips] = max(own[chips], end)
            ends = list(own.values())
        sending = timeline.end_cycle - timeline.startup_cycles
        return StepFigures(tuple(ends), sending, timeline.instructions)

    def _kept(
        self, what: str, kind: object, make: Callable[[], T], plain: Callable[[T], Any],
        read: Callable[[Any], T],
    ) -> T:  # fmt: skip
        if self._key is None:
            return make()
        return self._store.kept(f"{what} of many", (self._key, str(kind)), make, plain, read)

    def _timeline(self, kind: LaunchKind) -> LaunchTimeline:
        if kind not in self._timelines:
            program = StageProgram(kind, 0 if kind.context else None)
            self._timelines[kind] = self.steps.compose(program)
        return self._timelines[kind]


def _group_ends(timeline: LaunchTimeline, groups: Sequence[Group]) -> list[int]:
    """The last cycle of the chips of each group, and of those of none."""
    timing, sizes = timeline.timing, [len(group.members) for group in groups]
    holders = np.array([chip for group in groups for chip in group.members])
    of = np.full(max(holders.max(), *timing.members, 0) + 1, len(groups))
    of[holders] = np.repeat(np.arange(len(groups)), sizes)
    ends = np.full(len(groups) + 1, timeline.startup_cycles)
    np.maximum.at(ends, of[list(timing.members)], timing.end_cycles)
    found: list[int] = np.maximum(ends[:-1], ends[-1]).tolist()
    return found


def _plain_counts(counts: Mapping[int, int]) -> list[list[int]]:
    return [list(counts), list(counts.values())]


def _counts(plain: Any) -> dict[int, int]:
    chips, counts = plain
    return dict(zip(chips, counts, strict=True))


def _plain(found: StepFigures) -> Any:
    return [found.end_cycles, found.sending_cycles, _plain_counts(found.instructions)]


def _read(plain: Any) -> StepFigures:
    ends, sending, counts = plain
    return StepFigures(tuple(ends), sending, _counts(counts))
