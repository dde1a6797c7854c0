"""Cycles of beats, and what many users see of them, without running anything.

The same cells are put on the same time axis as for a run, only without their instructions, and the
same pipeline is filled with sequences by the same rules; so what comes out is what a run does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.compiler.stage import CONTEXT_BLOCK
from cluster.generation.flight import Flight, HostLink, Works, steady_tokens_per_s
from cluster.lowering.beats import Beats
from cluster.lowering.host_regions import host_bytes
from cluster.lowering.lower import check_programs
from cluster.lowering.parts import Parts

NEW_TOKENS = 4  # of each sequence of a simulated run: enough for whole rounds


@dataclass
class BeatTimes:
    """When the chips of each stage are done with each kind of cell."""

    beats: Beats
    _parts: dict[tuple[str, int], dict[int, Parts]] = field(default_factory=dict)
    _ends: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def cycles(self, kind: str, works: Works) -> int:
        """Cycles of a beat: of the stage that takes longest over its work, or over none."""
        found = (
            self._stage_ends(kind, work.context if work else 0)[stage]
            for stage, work in enumerate(works)
        )
        return max(found)

    def full_cycles(self, kind: str, context: int) -> int:
        """Cycles of a beat in which all stages are at work."""
        return max(self._stage_ends(kind, context))

    def program_bytes(self) -> Mapping[int, int]:
        """Bytes of all cells of each chip; raises DoesNotFit where they do not fit."""
        plan = self.beats.plan
        counts = []
        for kind, _, context in self.beats.cells():
            parts = self._cell(kind, context)
            counts.append({chip: part.instructions for chip, part in parts.items()})
        check_programs(plan, self.beats.placement, counts)
        size = plan.spec.instruction_bytes
        return {chip: size * sum(count[chip] for count in counts) for chip in counts[0]}

    def _stage_ends(self, kind: str, context: int) -> list[int]:
        """The last cycle of each stage; those who only pass vectors on count with every stage."""
        key = (kind, context)
        if key not in self._ends:
            parts, teams = self._cell(kind, context), self.beats.teams
            members = {chip for team in teams for chip in team.members}
            others = [part.end_cycle for chip, part in parts.items() if chip not in members]
            self._ends[key] = [
                max([*others, *(parts[chip].end_cycle for chip in team.members)]) for team in teams
            ]
        return self._ends[key]

    def _cell(self, kind: str, context: int) -> dict[int, Parts]:
        key = (kind, context)
        if key not in self._parts:
            slot = 0 if context else None
            self._parts[key] = self.beats.compose(kind, slot, context, outline=True).parts
        return self._parts[key]


def fly(
    times: BeatTimes, sequences: int, prompt: int, chunked: bool = True, held: int = 0
) -> Flight:
    """A run of so many equal prompts at once, NEW_TOKENS for each, by the clock alone.

    Prompts go token by token unless `chunked`; `held` tokens of each are in the caches already.
    """
    plan, stages = times.beats.plan, times.beats.stages

    def moved(kind: str, context: int) -> tuple[int, int]:
        return host_bytes(stages, times.beats.tokens(kind), context // CONTEXT_BLOCK)

    def run(kind: str, works: Works) -> tuple[int, None]:
        return times.cycles(kind, works), None

    link = HostLink(plan.spec, moved, beside=True)
    flight = Flight(plan.pp, sequences, plan.chunk if chunked else 0, link, run)
    prompts = [(0,) * prompt] * sequences
    counts = [min(NEW_TOKENS, plan.context + 1 - prompt)] * sequences
    for _ in flight.go(prompts, counts, lambda _logits, _step: 0, frozenset(), held):
        pass
    return flight


def pipelined(
    times: BeatTimes, sequences: int, prompt: int, chunked: bool = True
) -> dict[str, Any]:
    """What so many users see, for the report of a plan.

    Speeds are those of full caches; the beats are those of a run whose prompts come all at once.
    """
    plan, found = times.beats.plan, dict[str, float]()
    full = plan.context + 1 - NEW_TOKENS
    for count in sorted({1 << n for n in range(sequences.bit_length())} | {sequences}):
        warm = fly(times, count, full, held=full - 1)
        found[str(count)] = steady_tokens_per_s(warm.generations, count) or 0.0
    cold = fly(times, sequences, prompt, chunked)
    first = [one.first_token_s for one in cold.generations]
    beats = {k: [b.cycles for b in cold.beats if b.kind == k] for k in ("prefill", "decode")}
    return {
        "interval_cycles": times.full_cycles("decode", plan.context),
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
