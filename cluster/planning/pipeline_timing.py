"""Cycles of pipeline steps, and what many users see of them, without running anything.

The same stage programs are put on the same time axis as for a run, only without their instructions,
and the same pipeline is filled with sequences by the same rules; so what comes out is what a run
does.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from functools import cache, partial
from itertools import repeat
from typing import Any

import numpy as np

from chip.program import Queues, fill_queue
from chip.text import ProgramText
from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import LaunchKind, StageProgram, decode_kind, stage_programs
from cluster.compiler.pipeline import PipelineSteps, StepSchedules
from cluster.compiler.stage_work import stage_key
from cluster.compiler.timeline import LaunchTimeline
from cluster.compiler.wiring import Group
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request, Step
from cluster.serving.scheduler import (
    PipelineScheduler,
    drive,
    steady_tokens_per_s,
)
from topology.fabric import Ints

NEW_TOKENS = 4  # of each sequence of a simulated run: enough for whole rounds


class StepTimes:
    """When the chips of each stage are done with each kind of stage program."""

    def __init__(self, steps: PipelineSteps) -> None:
        self.steps = steps
        self._timelines: dict[LaunchKind, LaunchTimeline] = {}
        self._ends: dict[LaunchKind, list[int]] = {}
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
        timeline = self._timeline(kind.idle)
        return timeline.end_cycle - timeline.startup_cycles

    def instructions(self) -> dict[int, int]:
        """Instructions that rest on each chip: those that its programs have in common once.

        What programs of a further slot add is counted on one chip of each kind of stage.
        """
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

    def instructions_of(self, kind: LaunchKind) -> Mapping[int, int]:
        """Instructions of each chip in stage programs of a kind."""
        return self._timeline(kind).instructions

    def stage_ends(self, kind: LaunchKind) -> list[int]:
        """The last cycle of each stage; those who only pass vectors on count with every stage."""
        if kind not in self._ends:
            timeline, groups = self._timeline(kind), self.steps.pipeline.groups
            if kind == kind.idle:
                self._ends[kind] = _group_ends(timeline, groups)
            else:  # all contexts share what is sent on, and when that is
                members = (group.members for group in groups)
                own = dict(zip(members, self.stage_ends(kind.idle), strict=True))
                for placed in timeline.placed:
                    if placed.chips is not None:
                        chips, end = tuple(placed.chips), placed.cycle + placed.work.end_cycle
                        own[chips] = max(own[chips], end)
                self._ends[kind] = list(own.values())
        return self._ends[kind]

    def cycles_of(self, kinds: Sequence[LaunchKind], works: Ints) -> list[int]:
        """Cycles of steps by numbers of the kinds that stages work on [steps, stages]; -1: none."""
        every = [*kinds, kinds[0].idle]
        ends = np.array([self.stage_ends(kind) for kind in every])
        found: list[int] = ends[works, np.arange(works.shape[1])].max(axis=1).tolist()
        return found

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


def simulated(
    times: StepTimes, sequences: int, prompt: int, chunked: bool = True, held: int = 0
) -> PipelineScheduler:
    """A run of so many equal prompts at once, NEW_TOKENS for each, by the clock alone.

    Prompts go token by token unless `chunked`; `held` tokens of each are in the caches already.
    """
    plan, parts = times.steps.plan, times.steps.parts
    assert isinstance(parts, StepSchedules)
    stages = parts.stages
    link = HostLink(plan.spec, cache(partial(host_bytes, stages)), beside=True)
    chunk = plan.chunk if chunked else 0
    scheduler = PipelineScheduler(plan.pp, sequences, chunk, link, plan.rows)
    count = min(NEW_TOKENS, plan.context + 1 - prompt)
    for _ in range(sequences):
        scheduler.submit(Request((0,) * prompt, count, position=held))
    for _ in drive(scheduler, lambda step: (times.cycles(step), repeat(None)), _zero, frozenset()):
        pass
    return scheduler


def _zero(_request: Request, _logits: None) -> int:
    return 0


def steady_rate(times: StepTimes, sequences: int) -> float:
    """Tokens per second of so many sequences, all of them decoding with full caches."""
    full = times.steps.plan.context + 1 - NEW_TOKENS
    warm = simulated(times, sequences, full, held=full - 1)
    return steady_tokens_per_s(warm.requests, sequences) or 0.0


def pipelined(
    times: StepTimes, sequences: int, prompt: int, chunked: bool = True
) -> dict[str, Any]:
    """What so many users see, for the report of a plan.

    Speeds are those of full caches; the steps are those of a run whose prompts come all at once.
    """
    plan, found = times.steps.plan, dict[str, float]()
    for count in sorted({1 << n for n in range(sequences.bit_length())} | {sequences}):
        found[str(count)] = steady_rate(times, count)
    cold = simulated(times, sequences, prompt, chunked)
    first = [one.first_token_s for one in cold.requests]
    prefill, decode = (
        [record.cycles for record in cold.records if bool(record.kind.logits_rows) == logits]
        for logits in (False, True)
    )
    return {
        "interval_cycles": times.full_cycles(decode_kind(plan.context, plan.rows)),
        "tokens_per_s_per_user": found[str(sequences)] / sequences,
        "tokens_per_s_total": found[str(sequences)],
        "prefill_cycles": sum(prefill),
        "time_to_first_token_s": sum(first) / len(first),
        "pipeline": {
            "time_to_first_token_max_s": max(first),
            "new_tokens": NEW_TOKENS,
            "prefill_step_cycles": prefill,
            "decode_step_cycles": decode,
            "tokens_per_s_total_by_concurrency": found,
        },
    }
