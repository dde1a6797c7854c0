"""Cycles, SRAM and host bytes of a placed plan, from the schedules that a run would execute.

Nothing is estimated: timings of steps are put on the time axis on which lowering puts schedules.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import networkx as nx

from chip.energy import Activity, EnergyTable, energy_table
from chip.errors import ProgramError
from chip.spec import ChipSpec
from cluster.compiler.bound import Bound, launch_bound
from cluster.compiler.clocking import Pacing, paced
from cluster.compiler.launch import (
    LaunchKind,
    decode_kind,
    in_steps,
    launch_kinds,
    prefill_kind,
)
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.lower import check_programs
from cluster.compiler.pipeline import PipelineSteps, StepSchedules
from cluster.compiler.place import Placement
from cluster.compiler.sizes import Sizes
from cluster.compiler.stage import Stage
from cluster.compiler.stage_work import (
    StageTimings,
    StepTiming,
    in_order,
    make_stages,
    through_all_stages,
)
from cluster.compiler.stages import Plan
from cluster.compiler.timeline import LaunchTimeline
from cluster.compiler.wires import Wires
from cluster.energy import token_energy
from cluster.planning.cost_step_times import StepTimes
from cluster.planning.cost_steps import KeptParts
from cluster.planning.costs import Costs, Width
from cluster.planning.kept_timings import KeptTimings
from cluster.planning.prompts import PromptStep, in_time
from cluster.serving.host_link import HostLink
from cluster.utilisation import busy_shares, cable_vectors_per_cycle


@dataclass(frozen=True)
class LaunchTiming:
    """A launch through all stages: when each chip works, and what it moves over its host link."""

    cycles: int  # until the last chip is done
    host_bytes: int
    timeline: LaunchTimeline = field(repr=False)

    def seconds(self, spec: ChipSpec) -> float:
        """Its cycles, and a transfer to the host's chips and one back."""
        transfer_s = 2 * spec.host_latency_s + self.host_bytes / spec.host_bytes_per_s
        return self.cycles / spec.clock_hz + transfer_s

    @property
    def instructions(self) -> Mapping[int, int]:
        """Of each chip that has any."""
        return self.timeline.instructions


class PlanTiming:
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
        routed = wires or Wires(graph, apart=plan.slots > 1)
        self.wires = routed.side_by_side(placement)
        self.costs = costs or Costs(Sizes(plan.model, plan.spec, plan.context, plan.weights))
        self.pipeline = self.wires.pipeline(placement)
        self.width = Width(plan.tp, plan.chunk)
        self._found: dict[LaunchKind, LaunchTiming] = {}

    @cached_property
    def work(self) -> KeptTimings:
        """What its stages do, from what is known of their width."""
        plan = self.plan
        layers = [plan.kinds(number) for number in range(plan.pp)]
        shapes = [plan.stage(n).shape if part.anywhere else None
                  for n, part in enumerate(plan.stages)]  # fmt: skip
        return KeptTimings(self.costs, self.width, layers, self.pipeline, shapes)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Memory maps, equal stages sharing one."""
        return make_stages(self.plan)

    @cached_property
    def clocks(self) -> Pacing | None:
        """What the clocks of its chips cost, as a run without options has them."""
        known, used = self.wires.pacings, self.pipeline.used
        if used not in known:
            several = len(used) > 1
            known[used] = paced(self.wires.tree(used), self.plan.spec) if several else None
        return known[used]

    @property
    def limit_cycles(self) -> int | None:
        """Most cycles of a step, between two of which clocks may be aligned."""
        return self.clocks.pace(0).limit_cycles if self.clocks else None

    def launch(self, kind: LaunchKind) -> LaunchTiming:
        """The timing of a launch through all stages; raises ProgramError."""
        if kind not in self._found:
            timeline = through_all_stages(self.pipeline, self.work, kind, self.clocks)
            moved = self.costs.host_bytes(self.width, kind)
            self._found[kind] = LaunchTiming(timeline.end_cycle, moved, timeline)
        return self._found[kind]

    def decode(self, context: int) -> LaunchTiming:
        """The timing of a token at a context bucket."""
        return self.launch(decode_kind(context))

    @cached_property
    def steps(self) -> StepTimes:
        """The steps of its pipeline, if it has any: see `in_steps`."""
        plan = self.plan
        if plan.slots == 1:
            kept = KeptParts(self.work, self.wires, self.placement)
            return StepTimes(PipelineSteps(plan, self.pipeline, kept, self.clocks))
        work = StageTimings(plan, self.pipeline, self.stages)
        parts = StepSchedules(plan, self.placement, self.stages, self.wires, work)
        steps = PipelineSteps(plan, self.pipeline, parts, self.clocks)
        return StepTimes(steps, self.costs.store, self._digest)

    @property
    def _digest(self) -> str:
        """SHA-256 of all that its steps follow from."""
        plan, pipeline = self.plan, self.pipeline
        groups = [(g.members, g.routes.digest) for g in (*pipeline.groups, *pipeline.alone)]
        links = [link.digest for link in pipeline.links]
        shapes = [stage.key for stage in self.stages]
        rows = plan.chunk, plan.slots, plan.rows, plan.context
        parts = plan.spec, rows, shapes, groups, links, self.clocks
        return sha256(repr(parts).encode()).hexdigest()

    def interval_cycles(self, context: int) -> int:
        """Cycles between two tokens with all stages at work: of the longest one and crossing."""
        kind = decode_kind(context)
        if len(self.work.beside) == 1:
            return self.launch(kind).cycles
        limit = self.limit_cycles
        steps = self.costs.steps(self.work.longest(kind, limit), kind, limit)
        links = [self.work.crossing(n, kind, None) for n in range(len(self.pipeline.links))]
        longest = max(sum(part.end_cycle for part in link) for link in links)
        return in_order(steps, None).end_cycle + longest

    def in_steps(self, kind: LaunchKind) -> bool:
        """Whether launches of a kind are pipeline steps."""
        return in_steps(self.plan, kind, self.pipeline.apart)

    def own_layers(self, launch: LaunchKind) -> list[tuple[Sequence[StepTiming], int]]:
        """Steps of its layers, and how often there are such, if they are its own.

        Matrices that rest anywhere are those of this plan alone; [] if there are none. Of stages
        that hold the same those on the first group count for all.
        """
        if not any(part.anywhere for part in self.plan.stages):
            return []
        kinds = self.work.kinds(launch)
        counts = Counter((kind.shape, kind.layers) for kind in kinds)
        first = {(kind.shape, kind.layers): kind for kind in reversed(kinds)}
        what = launch, self.limit_cycles
        every = [(self.costs.steps(first[one], *what), counts[one]) for one in counts]
        return [([step for step in steps if step.what != "head"], n) for steps, n in every]

    def contexts(self) -> range:
        """The context buckets of the plan."""
        return range(CONTEXT_BLOCK, self.plan.context + 1, CONTEXT_BLOCK)

    def prefill(self, prompt: int) -> Sequence[PromptStep]:
        """The launches that take in the prompt of one user, and give its first token."""
        chunk, bucket = (0 if self.no_prefill else self.plan.chunk), CONTEXT_BLOCK
        apart = chunk and self.in_steps(prefill_kind(chunk, bucket))
        steps = self.costs.prompt(chunk, prompt)
        works = steps.works(self.plan.pp if apart else 1)
        if apart and steps.chunks:
            cycles = self.steps.cycles_of(steps.chunks, works)
        else:
            cycles = [self.launch(kind).cycles for kind in steps.chunks]
        cycles += [self.launch(kind).cycles for kind in steps.tokens]
        link = HostLink(self.plan.spec, self._moved_bytes, beside=False)
        return in_time(cycles, steps.waits_s(works, link), self.plan.spec.clock_hz)

    def _moved_bytes(self, kind: LaunchKind, with_x: bool) -> tuple[int, int]:
        """Bytes over the host link of the chip with the most; all of them in one number."""
        return self.costs.host_bytes(self.width, kind, with_x), 0

    @cached_property
    def no_prefill(self) -> str:
        """Why chunks of a prompt cannot be scheduled; "" if they can."""
        kind = prefill_kind(self.plan.chunk, CONTEXT_BLOCK)
        try:
            self._check_chunk(kind)
            _ = self.steps.full_cycles(kind) if self.in_steps(kind) else self.launch(kind)
        except ProgramError as error:
            return str(error)
        return ""

    def _check_chunk(self, kind: LaunchKind) -> None:
        """Raise ProgramError if the clocks leave some step of a layer no place.

        That is known before what crosses links is scheduled, which takes longer.
        """
        plan = self.plan
        if self.clocks is None or plan.slots > 1 or any(part.anywhere for part in plan.stages):
            return
        pace = self.clocks.pace(0)
        for layer in dict.fromkeys(plan.model.kinds):
            self.costs.computed(self.width, layer, kind, pace.limit_cycles).at(pace)

    def program_bytes(self) -> Mapping[int, int]:
        """Program bytes of each chip, for all launches; raises DoesNotFit where they do not fit."""
        return self._program_bytes

    @cached_property
    def _program_bytes(self) -> Mapping[int, int]:
        if self.plan.slots > 1:
            total = self.steps.instructions()
        else:
            last = (kind for kind in launch_kinds(self.plan) if kind.context == self.plan.context)
            usable = [kind for kind in last if kind.logits_rows or not self.no_prefill]
            longest = [self._instructions(kind) for kind in usable]
            counts = longest * len(self.contexts())  # no launch is longer than the last bucket's
            counts += [self._instructions(kind.idle) for kind in usable if self.in_steps(kind)]
            total = {chip: sum(one.get(chip, 0) for one in counts) for chip in counts[0]}
        check_programs(self.plan, self.placement, total)
        size = self.plan.spec.instruction_bytes
        return {chip: size * count for chip, count in total.items()}

    def _instructions(self, kind: LaunchKind) -> Mapping[int, int]:
        """Instructions of each chip in launches of a kind."""
        if self.in_steps(kind):
            return self.steps.instructions_of(kind)
        return self.launch(kind).instructions

    def activity(self, kind: LaunchKind) -> Activity:
        """What a launch does on all its chips."""
        limit = self.limit_cycles
        total = Activity()
        for stage in self.work.kinds(kind):
            total += self.costs.activity(stage, kind, limit)
        size = self.costs.stage(self.width), kind.rows
        for link in self.pipeline.links:
            total += self.costs.links.activity(*size, link.paths, link.onward)
        return total

    def energy(self, seconds: float, interval_s: float) -> dict[str, Any]:
        """Joules of a token that takes `seconds` alone, and one every `interval_s`; or null.

        The latter are those of launches that as many sequences share as the plan says.
        """
        table = energy_table(self.plan.spec)
        if table is None:
            return {"joules_per_token": None, "energy": None}
        chips = len(self.decode(self.plan.context).instructions)
        dynamic_j = self.dynamic_j(table, 1), self.dynamic_j(table, self.plan.rows)
        return token_energy(table, chips, dynamic_j, seconds, interval_s)

    def dynamic_j(self, table: EnergyTable, rows: int) -> float:
        """Joules of what chips do for a token, in launches of so many rows; the last is not full.

        With one row it is that of a user alone.
        """
        launch = table.dynamic_j(self.activity(decode_kind(self.plan.context, rows)))
        return launch * -(-self.plan.slots // rows) / self.plan.slots

    def bound(self, context: int) -> Bound:
        """What no schedule of a decode launch goes below."""
        start = self.clocks.start_cycle if self.clocks else 0
        return launch_bound(self.plan, self.pipeline, decode_kind(context), start)

    def distance(self, context: int) -> dict[str, Any]:
        """The bound of a decode launch, and how busy it keeps the units of the chips."""
        decode, bound = self.decode(context), self.bound(context)
        chips, rate = self.pipeline.used, 0.0
        if len(chips) > 1:
            rate = cable_vectors_per_cycle(self.wires.unclocked_cables, chips)
        size = (self.plan.spec, len(chips), decode.cycles, rate)
        return bound.report(decode.cycles) | {
            "utilisation": busy_shares(self.activity(decode_kind(context)), *size)
        }

    def breakdown(self, context: int) -> dict[str, int]:
        """Cycles of a decode launch by what they are spent on; they sum to its cycles."""
        found = {"attention": 0, "ffn": 0, "all_reduce": 0, "lm_head": 0}
        kind = decode_kind(context)
        limit = self.limit_cycles
        for stage in self.work.kinds(kind):
            steps = self.costs.steps(stage, kind, limit)
            before = ""
            for at, step in enumerate(steps):
                last, timing = at == len(steps) - 1, step.timing
                end = step.cycles + (timing.end_cycle - timing.quiet_cycle if last else 0)
                for what, cycles in _spent(step, end, before):
                    found[what] += cycles
                    before = what
        timeline = self.launch(kind).timeline
        found |= {"clocks": timeline.startup_cycles + timeline.stalled_cycles}
        return found | {"stage_transfers": timeline.end_cycle - sum(found.values())}


def _spent(step: StepTiming, cycles: int, before: str) -> Iterator[tuple[str, int]]:
    names = {"attention": "attention", "ffn": "ffn", "all-reduce": "all_reduce", "head": "lm_head"}
    names["residual"] = before
    if step.what in names:
        yield names[step.what], cycles
        return
    yield "attention", step.attention_cycles
    yield "ffn", cycles - step.attention_cycles
