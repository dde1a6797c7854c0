"""Cycles, SRAM and host bytes of a placed plan, from the schedules that a run would execute.

Nothing is estimated: `Course` puts the same steps on the same time axis as for a run, only without
their instructions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import networkx as nx

from chip.errors import ProgramError
from chip.spec import ChipSpec
from cluster.compiler.stage import Stage
from cluster.compiler.stages import CONTEXT_BLOCK, Plan, Sizes
from cluster.lowering.beats import Beats
from cluster.lowering.clocking import clocking
from cluster.lowering.lower import check_programs, make_stages
from cluster.lowering.wires import Wires
from cluster.mapping.placement import Placement
from cluster.planning.beat_timing import BeatTimes
from cluster.planning.costs import Costs, StepCost, Width
from cluster.planning.course import Course, Run


@dataclass(frozen=True)
class Timing:
    """One kind of launch: when each chip works, and what a launch moves over its host link.

    What is known of each chip is put together when somebody asks.
    """

    cycles: int
    host_bytes: int
    course: Course = field(repr=False)
    tokens: int
    context: int

    @cached_property
    def run(self) -> Run:
        """The launch chip by chip."""
        return self.course.run(self.tokens, self.context)

    @cached_property
    def busy_cycles(self) -> Mapping[int, int]:
        """Of each chip, from its first instruction to its last."""
        return dict(zip(self.run.chips.tolist(), self.run.busy_cycles.tolist(), strict=True))

    @cached_property
    def instructions(self) -> Mapping[int, int]:
        """Of each chip."""
        return dict(zip(self.run.chips.tolist(), self.run.instructions.tolist(), strict=True))

    def seconds(self, spec: ChipSpec) -> float:
        """Its cycles, and a transfer to the host's chips and one back."""
        transfer_s = 2 * spec.host_latency_s + self.host_bytes / spec.host_bytes_per_s
        return self.cycles / spec.clock_hz + transfer_s


class Timed:
    """A plan on a graph; every launch of it is timed at most once."""

    def __init__(
        self,
        plan: Plan,
        placement: Placement,
        graph: nx.Graph,
        costs: Costs | None = None,
        wires: Wires | None = None,
    ) -> None:
        self.plan, self.placement, self.graph = plan, placement, graph
        self.wires = wires or Wires(graph)
        costs = costs or Costs(Sizes(plan.model, plan.spec, plan.context, plan.weights))
        layers = [stage.layers for stage in plan.stages]
        self.course = Course(costs, self.wires, Width(plan.tp, plan.chunk), layers, placement)
        self._found: dict[tuple[int, int], Timing] = {}

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Memory maps, equal stages sharing one."""
        return make_stages(self.plan)

    def launch(self, kind: str, context: int) -> Timing:
        """The timing of a "decode" or "prefill" launch at a context bucket."""
        tokens = 1 if kind == "decode" else self.plan.chunk
        key = (tokens, context)
        if key not in self._found:
            course = self.course
            moved = course.costs.host_bytes(course.width, tokens, context)
            cycles = course.cycles(tokens, context)
            self._found[key] = Timing(cycles, moved, course, tokens, context)
        return self._found[key]

    @cached_property
    def beats(self) -> BeatTimes:
        """The beats of its pipeline; there are some with several slots only."""
        wires, used = self.wires, self.course.used
        clocks = clocking(self.graph, used, wires.ports, self.plan.spec)
        return BeatTimes(Beats(self.plan, self.placement, self.stages, wires, clocks))

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
        clocks = self.course.clocks
        pace = clocks.pace(0) if clocks else None
        for kind in self.course.kinds:
            steps = self.course.costs.steps(kind, 1, context, pace)
            before = ""
            for at, step in enumerate(steps):
                end = step.sketch.end_cycle if at == len(steps) - 1 else step.cycles
                for what, cycles in _spent(step, end, before):
                    found[what] += cycles
                    before = what
        launch = self.launch("decode", context)
        found |= {"clocks": launch.run.startup_cycles + launch.run.stalled_cycles}
        return found | {"stage_transfers": launch.cycles - sum(found.values())}


def _spent(step: StepCost, cycles: int, before: str) -> Iterator[tuple[str, int]]:
    names = {"attention": "attention", "ffn": "ffn", "all-reduce": "all_reduce", "head": "lm_head"}
    names["residual"] = before
    if step.what in names:
        yield names[step.what], cycles
        return
    yield "attention", step.attention_cycles
    yield "ffn", cycles - step.attention_cycles
