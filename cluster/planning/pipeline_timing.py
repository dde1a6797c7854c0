"""Cycles of pipeline steps, and what many users see of them, without running anything.

The same stage programs are put on the same time axis as for a run, only without their instructions,
and the same pipeline is filled with sequences by the same rules; so what comes out is what a run
does.
"""

from collections.abc import Mapping
from typing import Any

from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import LaunchKind, StageProgram, decode_kind, kind_of, stage_programs
from cluster.compiler.pipeline import PipelineSteps
from cluster.compiler.timeline import LaunchTimeline
from cluster.generation.flight import Flight, HostLink, Works, steady_tokens_per_s

NEW_TOKENS = 4  # of each sequence of a simulated run: enough for whole rounds


class StepTimes:
    """When the chips of each stage are done with each kind of stage program."""

    def __init__(self, steps: PipelineSteps) -> None:
        self.steps = steps
        self._timelines: dict[LaunchKind, LaunchTimeline] = {}
        self._ends: dict[LaunchKind, list[int]] = {}

    def cycles(self, kind: LaunchKind, works: Works) -> int:
        """Cycles of a step: of the stage that takes longest over its work, or over none."""
        found = (
            self._stage_ends(
                LaunchKind(kind.rows, work.context, kind.logits_rows) if work else kind.idle
            )[stage]
            for stage, work in enumerate(works)
        )
        return max(found)

    def full_cycles(self, kind: LaunchKind) -> int:
        """Cycles of a step in which all stages are at work."""
        return max(self._stage_ends(kind))

    def instructions(self) -> list[Mapping[int, int]]:
        """Instructions of each chip in each of its stage programs."""
        programs = stage_programs(self.steps.plan)
        return [self._timeline(program.kind).instructions for program in programs]

    def _stage_ends(self, kind: LaunchKind) -> list[int]:
        """The last cycle of each stage; those who only pass vectors on count with every stage."""
        if kind not in self._ends:
            ends, groups = self._timeline(kind).end_cycles, self.steps.pipeline.groups
            members = {chip for group in groups for chip in group.members}
            others = [end for chip, end in ends.items() if chip not in members]
            self._ends[kind] = [
                max([*others, *(ends[chip] for chip in group.members)]) for group in groups
            ]
        return self._ends[kind]

    def _timeline(self, kind: LaunchKind) -> LaunchTimeline:
        if kind not in self._timelines:
            program = StageProgram(kind, 0 if kind.context else None)
            self._timelines[kind] = self.steps.compose(program)
        return self._timelines[kind]


def fly(
    times: StepTimes, sequences: int, prompt: int, chunked: bool = True, held: int = 0
) -> Flight:
    """A run of so many equal prompts at once, NEW_TOKENS for each, by the clock alone.

    Prompts go token by token unless `chunked`; `held` tokens of each are in the caches already.
    """
    plan, stages = times.steps.plan, times.steps.stages

    def moved(kind: str, context: int) -> tuple[int, int]:
        return host_bytes(stages, kind_of(plan, kind, context))

    def run(kind: str, works: Works) -> tuple[int, None]:
        return times.cycles(kind_of(plan, kind, 320), works), None

    link = HostLink(plan.spec, moved, beside=True)
    flight = Flight(plan.pp, sequences, plan.chunk if chunked else 0, link, run)
    prompts = [(0,) * prompt] * sequences
    counts = [min(NEW_TOKENS, plan.context + 1 - prompt)] * sequences
    for _ in flight.go(prompts, counts, lambda _logits, _step: 0, frozenset(), held):
        pass
    return flight


def pipelined(
    times: StepTimes, sequences: int, prompt: int, chunked: bool = True
) -> dict[str, Any]:
    """What so many users see, for the report of a plan.

    Speeds are those of full caches; the beats are those of a run whose prompts come all at once.
    """
    plan, found = times.steps.plan, dict[str, float]()
    full = plan.context + 1 - NEW_TOKENS
    for count in sorted({1 << n for n in range(sequences.bit_length())} | {sequences}):
        warm = fly(times, count, full, held=full - 1)
        found[str(count)] = steady_tokens_per_s(warm.generations, count) or 0.0
    cold = fly(times, sequences, prompt, chunked)
    first = [one.first_token_s for one in cold.generations]
    beats = {k: [b.cycles for b in cold.beats if b.kind == k] for k in ("prefill", "decode")}
    return {
        "interval_cycles": times.full_cycles(decode_kind(plan.context)),
        "tokens_per_s_per_user": found[str(sequences)] / sequences,
        "tokens_per_s_total": found[str(sequences)],
        "prefill_cycles": sum(beats["prefill"]),
        "time_to_first_token_s": sum(first) / len(first),
        "pipeline": {
            "time_to_first_token_max_s": max(first),
            "new_tokens": NEW_TOKENS,
            "prefill_beat_cycles": beats["prefill"],
            "decode_beat_cycles": beats["decode"],
            "tokens_per_s_total_by_concurrency": found,
        },
    }
