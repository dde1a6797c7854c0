"""What a plan says of every launch, as tables: cycles of its stages, its host link, its joules."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from chip.energy import energy_table
from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import LaunchKind, decode_kind, prefill_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.stage import Stage
from cluster.model.graph.attention import Attention
from cluster.planning.timing import PlanTiming
from cluster.serving.build import Shape
from cluster.serving.core.columns import DECODE, PREFILL, WAYS
from cluster.serving.host_link import HostLink


@dataclass(frozen=True, eq=False)
class Clockwork:
    """A timed plan, for requests that need at most `tokens` of a cache; all by context blocks."""

    timed: PlanTiming
    tokens: int
    progress: Callable[[int, int], None] = lambda _done, _total: None

    @property
    def several(self) -> bool:
        """Whether stages work side by side; one sequence has all of them to itself."""
        return self.timed.plan.slots > 1

    @cached_property
    def shape(self) -> Shape:
        """What the scheduler must know."""
        plan, spec = self.timed.plan, self.timed.plan.spec
        chunk = 0 if self.timed.no_prefill else plan.chunk
        stages = plan.pp if self.several or self._in_steps(PREFILL) else 1
        return Shape(
            stages, plan.slots, chunk, plan.rows, self.several, spec.host_latency_s, spec.clock_hz,
            whole=not self.several,
        )  # fmt: skip

    def _in_steps(self, line: int) -> bool:
        return self.timed.in_steps(self.kind(line, 1))

    @property
    def blocks(self) -> int:
        """Context blocks of the longest launch."""
        return -(-min(self.tokens, self.timed.plan.context) // CONTEXT_BLOCK)

    def kind(self, line: int, blocks: int) -> LaunchKind:
        """The launch of a line at so many context blocks."""
        context = blocks * CONTEXT_BLOCK
        if line == DECODE:
            return decode_kind(context, self.timed.plan.rows)
        return prefill_kind(self.timed.plan.chunk, context)

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Cycles until each stage is done [line, blocks, stage]; those of 0 blocks hand over."""
        found = np.zeros((2, self.blocks + 1, self.shape.stages), np.int64)
        lines = (PREFILL, DECODE) if self.shape.chunk else (DECODE,)
        total = len(lines) * self.blocks
        for line in lines:
            for blocks in range(self.blocks + 1):
                self.progress(line * self.blocks + blocks, total)
                kind = self.kind(line, blocks)
                if self._in_steps(line):
                    found[line, blocks] = self.timed.steps.stage_ends(kind)
                elif blocks:
                    found[line, blocks] = self.timed.launch(kind).cycles
        return found

    @cached_property
    def busy_cycles(self) -> npt.NDArray[np.int64]:
        """Cycles in which each stage is at work on a launch [line, blocks, stage]."""
        found = self.ends - self.ends[:, :1]  # a step takes as long where there is no work
        if self._in_steps(DECODE) or self.shape.stages == 1:
            return found
        for blocks in range(1, self.blocks + 1):  # stages follow each other
            kind = self.kind(DECODE, blocks)
            timeline = self.timed.launch(kind).timeline
            stages = [group.members for group in self.timed.pipeline.groups_of(kind)]
            works = (one for one in timeline.placed if one.chips in stages)
            ends = [one.cycle + one.work.end_cycle for one in works]
            found[DECODE, blocks] = np.diff(ends, prepend=timeline.startup_cycles)
        return found

    @cached_property
    def link(self) -> HostLink:
        """The host link of the chip with the most to move."""
        stages: tuple[Stage, ...] = self.timed.stages
        return HostLink(self.timed.plan.spec, partial(host_bytes, stages), beside=self.several)

    @cached_property
    def moves(self) -> npt.NDArray[np.float64]:
        """Seconds over the host link [line, way, blocks]."""
        found = np.zeros((2, WAYS, self.blocks + 1))
        for line in (PREFILL, DECODE):
            for blocks in range(1, self.blocks + 1):
                found[line, :, blocks] = self.link.ways_s(self.kind(line, blocks))
        return found

    @cached_property
    def sending_cycles(self) -> npt.NDArray[np.int64]:
        """Cycles in which links carry x from stage to stage [line]."""
        found = np.zeros(2, np.int64)
        for line in (PREFILL, DECODE) if self.shape.chunk else (DECODE,):
            if self._in_steps(line):
                found[line] = self.timed.steps.sending_cycles(self.kind(line, 1))
            elif line == DECODE:
                found[line] = self.timed.breakdown(CONTEXT_BLOCK)["stage_transfers"]
        return found

    @property
    def cache_bytes(self) -> int:
        """Bytes of a token in the caches of the chip with the most layers."""
        plan, each = self.timed.plan, 2
        per_layer = [
            sum(op.cached_elements for op in layer.ops if isinstance(op, Attention))
            for layer in plan.model.layers
        ]
        most = max(
            sum(per_layer[stage.first : stage.first + stage.layers]) for stage in plan.stages
        )
        return -(-most * each // plan.tp)

    @property
    def move_s(self) -> float:
        """Seconds in which a token of a cache crosses the host link of the busiest chip."""
        return self.cache_bytes / self.timed.plan.spec.host_bytes_per_s

    @property
    def refill_s(self) -> tuple[float, ...]:
        """Seconds of launches that take in so many context blocks of tokens."""
        line, tokens = (PREFILL, self.shape.chunk) if self.shape.chunk else (DECODE, 1)
        cycles = self.ends[line].max(axis=1) * -(-CONTEXT_BLOCK // tokens)
        cycles[0] = 0
        return tuple(map(float, np.cumsum(cycles) / self.shape.clock_hz))

    @cached_property
    def chips(self) -> int:
        """Chips that take part, those that pass vectors on among them."""
        return len(self.timed.decode(CONTEXT_BLOCK).instructions)

    def joules(self, works: npt.NDArray[np.int64], seconds: float) -> float | None:
        """Joules of so many works [line, blocks] in so many seconds; None where unknown."""
        table = energy_table(self.timed.plan.spec)
        if table is None:
            return None
        dynamic_j = 0.0
        for line, blocks in zip(*np.nonzero(works), strict=True):
            activity = self.timed.activity(self.kind(int(line), int(blocks)))
            dynamic_j += table.dynamic_j(activity) * int(works[line, blocks])
        return dynamic_j + table.idle_w * self.chips * seconds
