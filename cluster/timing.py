"""Cycles, SRAM and host bytes of a placed plan, from the schedules that a run would execute.

Nothing is estimated: `lower.compose` puts the same steps on the same time axis as for a run, only
without their instructions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from chip.errors import ProgramError
from chip.kernels.decoder import Stage
from chip.kernels.step import Step
from cluster.beat_timing import BeatTimes
from cluster.beats import Beats
from cluster.clocking import Clocking, clocking
from cluster.host_regions import host_bytes
from cluster.lower import (
    check_programs,
    compose,
    make_stages,
)
from cluster.partition import CONTEXT_BLOCK, Plan
from cluster.placement import Placement
from cluster.wires import Wires, group_of


@dataclass(frozen=True)
class Timing:
    """One kind of launch: when each chip works, and what a launch moves over its host link."""

    cycles: int
    startup_cycles: int
    stalled_cycles: int
    busy_cycles: Mapping[int, int]  # of each chip, from its first instruction to its last
    instructions: Mapping[int, int]
    host_bytes: int

    @property
    def interval_cycles(self) -> int:
        """Cycles after which the next launch may follow: those of the busiest chip."""
        return max(self.busy_cycles.values())


class Timed:
    """A plan on a graph; every launch of it is timed at most once."""

    def __init__(self, plan: Plan, placement: Placement, graph: nx.Graph) -> None:
        self.plan, self.placement, self.graph = plan, placement, graph
        self.wires = Wires(graph)
        self._found: dict[tuple[int, int], Timing] = {}

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Memory maps, equal stages sharing one."""
        return make_stages(self.plan)

    @cached_property
    def clocks(self) -> Clocking | None:
        """The clocks of its chips, as a run without options has them."""
        used, ports = self.wires.used(self.placement), self.wires.ports
        return clocking(self.graph, used, ports, self.plan.spec)

    def launch(self, kind: str, context: int) -> Timing:
        """The timing of a "decode" or "prefill" launch at a context bucket."""
        tokens = 1 if kind == "decode" else self.plan.chunk
        key = (tokens, context)
        if key not in self._found:
            args = (self.placement, self.stages, self.wires, self.clocks, tokens, context)
            axis = compose(*args, outline=True)
            parts = axis.parts
            self._found[key] = Timing(
                max(part.end_cycle for part in parts.values()),
                axis.startup_cycles,
                axis.stalled_cycles,
                {chip: part.end_cycle - part.start_cycle for chip, part in parts.items()},
                {chip: part.instructions for chip, part in parts.items()},
                sum(host_bytes(self.stages, tokens, context // CONTEXT_BLOCK)),
            )
        return self._found[key]

    @cached_property
    def beats(self) -> BeatTimes:
        """The beats of its pipeline; there are some with several slots only."""
        return BeatTimes(Beats(self.plan, self.placement, self.stages, self.wires, self.clocks))

    def contexts(self) -> range:
        """The context buckets of the plan."""
        return range(CONTEXT_BLOCK, self.plan.context + 1, CONTEXT_BLOCK)

    def prefill(self, prompt: int) -> list[Timing]:
        """The launches that take in a prompt: chunks, and a decode launch for its last token."""
        if self.no_prefill:
            return [self.launch("decode", self._bucket(end + 1)) for end in range(prompt)]
        found = []
        for start in range(0, prompt - 1, self.plan.chunk):
            end = min(start + self.plan.chunk, prompt - 1)
            found.append(self.launch("prefill", self._bucket(end)))
        return [*found, self.launch("decode", self._bucket(prompt))]

    @cached_property
    def no_prefill(self) -> str:
        """Why chunks of a prompt cannot be scheduled; "" if they can."""
        try:
            self.launch("prefill", CONTEXT_BLOCK)
        except ProgramError as error:
            return str(error)
        return ""

    @staticmethod
    def _bucket(tokens: int) -> int:
        return -(-tokens // CONTEXT_BLOCK) * CONTEXT_BLOCK

    def program_bytes(self) -> Mapping[int, int]:
        """Program bytes of each chip, for all launches; raises DoesNotFit where they do not fit."""
        if self.plan.slots > 1:
            return self.beats.program_bytes()
        last = self.plan.context
        kinds = ("decode",) if self.no_prefill else ("decode", "prefill")
        longest = [self.launch(kind, last).instructions for kind in kinds]
        counts = longest * len(self.contexts())  # no launch is longer than those of the last bucket
        check_programs(self.plan, self.placement, counts)
        size = self.plan.spec.instruction_bytes
        return {chip: size * sum(c.get(chip, 0) for c in counts) for chip in counts[0]}

    def breakdown(self, context: int) -> dict[str, int]:
        """Cycles of a decode launch by what they are spent on; they sum to its cycles."""
        found = {"attention": 0, "ffn": 0, "all_reduce": 0, "lm_head": 0}
        for number, group in enumerate(self.placement):
            routes = group_of(self.wires, group).routes
            pace = self.clocks.pace(0) if self.clocks else None
            limit = pace.limit_cycles if pace else None
            steps = list(self.stages[number].steps(1, context // CONTEXT_BLOCK, routes, limit))
            before = ""
            for at, step in enumerate(steps):
                end = step.end_cycle if at == len(steps) - 1 else step.cycles
                for what, cycles in _spent(step, end, before):
                    found[what] += cycles
                    before = what
        launch = self.launch("decode", context)
        found |= {"clocks": launch.startup_cycles + launch.stalled_cycles}
        return found | {"stage_transfers": launch.cycles - sum(found.values())}


def _spent(step: Step, cycles: int, before: str) -> Iterator[tuple[str, int]]:
    names = {"attention": "attention", "ffn": "ffn", "all-reduce": "all_reduce", "head": "lm_head"}
    names["residual"] = before
    if step.what in names:
        yield names[step.what], cycles
        return
    part = step.parts[0][0]  # a whole layer: attention is over with its residual
    half = min(end for label, _, end in part.events if label == "residual")
    yield "attention", half
    yield "ffn", cycles - half
