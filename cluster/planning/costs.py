"""What the steps of a launch take, from the schedules that run, each lowered once.

A step's time depends on the width of the group, the routes inside it, the tokens and the context,
not on how many layers a stage has or where its weights rest. So one layer and one LM head of a
width say all there is to say of any pipeline of it, and can be kept on disk.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

from chip.energy import Activity, count
from chip.isa import WIDTHS
from chip.kernels.allreduce import Network, Routes
from chip.kernels.decoder import Stage
from chip.kernels.step import Step
from chip.kernels.transfer import Hop
from chip.program import Instruction
from chip.schedule import Extents, Pace, Schedule, Sketch, sketch
from chip.schedule import Sequence as InOrder
from cluster.lowering.host_regions import input_regions, output_regions
from cluster.lowering.lower import hand_on
from cluster.lowering.parts import part_sizes
from cluster.lowering.wires import Gap
from cluster.mapping.partition import CONTEXT_BLOCK, Sizes
from cluster.planning.cost_store import CostStore
from cluster.planning.crossing import Strand, strands, together


@dataclass(frozen=True)
class StepCost:
    """A step of all members; `attention_cycles` are those of a whole layer in one step."""

    what: str
    sketch: Sketch
    attention_cycles: int = 0

    @property
    def cycles(self) -> int:
        """Cycles after which the next step may begin."""
        return self.sketch.quiet_cycle


@dataclass(frozen=True)
class Width:
    """A tensor-parallel width, and the prefill chunk that its stages have room for."""

    tp: int
    chunk: int


@dataclass(frozen=True)
class Kind:
    """A kind of stage and launch: layers on a group with certain routes; `members` pass on too."""

    width: Width
    layers: int
    head: bool
    routes: Routes = field(repr=False)
    members: int

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal kinds; routes are shared by groups that are cabled alike."""
        return (self.width, self.layers, self.head, id(self.routes), self.members)


@dataclass
class Costs:
    """Costs of one model on one chip, by width; what is found is kept, in the `store` as well."""

    sizes: Sizes  # of one sequence: further caches take room, but no time
    store: CostStore = field(default_factory=CostStore)
    _stages: dict[tuple[Width, bool], Stage] = field(default_factory=dict)
    _found: dict[tuple[object, ...], Any] = field(default_factory=dict)
    _kept: list[object] = field(default_factory=list)  # whose ids stay their own

    def stage(self, width: Width, head: bool = False) -> Stage:
        """A stage of one layer, or of the LM head alone."""
        if (width, head) not in self._stages:
            size = (width.tp, width.chunk, 0 if head else 1, head)
            wide = not self.sizes.fits(*size)
            self._stages[width, head] = self.sizes.stage(*size, wide=wide)
        return self._stages[width, head]

    # --- steps ------------------------------------------------------------------------------
    def layer(
        self, width: Width, tokens: int, context: int, routes: Routes, limit: int | None = None
    ) -> tuple[StepCost, ...]:
        """The steps of a layer, none over `limit` cycles where that can be."""
        key = ("layer", width, tokens, context, id(routes), limit)
        if key not in self._found:
            self._kept.append(routes)
            blocks = context // CONTEXT_BLOCK
            self._found[key] = self._steps(self.stage(width), tokens, blocks, routes, limit)
        found: tuple[StepCost, ...] = self._found[key]
        return found

    def head(self, width: Width) -> tuple[StepCost, ...]:
        """The step of the LM head."""
        if ("head", width) not in self._found:
            self._found["head", width] = self._steps(self.stage(width, head=True), 1, 1, {}, None)
        found: tuple[StepCost, ...] = self._found["head", width]
        return found

    def alone(self, width: Width, tokens: int, context: int) -> int:
        """Cycles of a layer without its all-reduces, if members wait for each other there."""
        stage, blocks = self.stage(width), context // CONTEXT_BLOCK
        return self.store.kept(
            "alone",
            (stage.spec, stage.shapes, tokens, blocks),
            lambda: sum(step.cycles for step in stage.alone(tokens, blocks, lambda _, a: a)),
            int,
            int,
        )

    def _steps(
        self, stage: Stage, tokens: int, blocks: int, routes: Routes, limit: int | None
    ) -> tuple[StepCost, ...]:
        return self.store.kept(
            "steps",
            (stage.spec, stage.shapes, tokens, blocks, self._named(routes), limit),
            lambda: tuple(map(step_cost, stage.steps(tokens, blocks, routes, limit))),
            lambda found: [asdict(one) for one in found],
            lambda plain: tuple(_step_of(one) for one in plain),
        )

    def _named(self, routes: Routes) -> str:
        """The routes of a group in few characters; thousands of them are one key of the store."""
        key = ("named", id(routes))
        if key not in self._found:
            self._kept.append(routes)
            cables = sorted(routes.cables) if isinstance(routes, Network) else []
            text = repr((sorted(routes.items()), cables))
            self._found[key] = sha256(text.encode()).hexdigest()
        name: str = self._found[key]
        return name

    def steps(
        self, kind: Kind, tokens: int, context: int, pace: Pace | None
    ) -> tuple[StepCost, ...]:
        """The steps of a stage, in order."""
        limit = pace.limit_cycles if pace else None
        found: tuple[StepCost, ...] = ()
        if kind.layers:
            layer = self.layer(kind.width, tokens, context, kind.routes, limit)
            found = layer * kind.layers
        return found + self.head(kind.width) if kind.head and tokens == 1 else found

    def outline(self, kind: Kind, tokens: int, context: int, pace: Pace | None) -> Extents:
        """A stage as its schedule runs, with its stalls; raises ProgramError as that does."""
        key = ("stage", kind.key, tokens, context, pace)
        if key not in self._found:
            plan = Extents(kind.members)
            found = InOrder(plan, pace)
            for step in self.steps(kind, tokens, context, pace):
                plan.add(step.sketch, found.start(step.cycles))
            self._found[key] = plan
        outline: Extents = self._found[key]
        return outline

    def through(self, kind: Kind, tokens: int, context: int, pace: Pace | None) -> tuple[int, int]:
        """Cycles of `outline`, and those since its last stall, without its extents."""
        key = ("through", kind.key, tokens, context, pace)
        if key not in self._found:
            plan = Extents(0)
            found = InOrder(plan, pace)
            for step in self.steps(kind, tokens, context, pace):
                end = found.start(step.cycles) + step.sketch.end_cycle
                plan.end_cycle = max(plan.end_cycle, end)
            self._found[key] = plan.end_cycle, plan.since_cycles
        ends: tuple[int, int] = self._found[key]
        return ends

    def crossing_cycles(self, width: Width, gap: Gap, tokens: int, limit: int | None) -> list[int]:
        """Cycles of each part of `between`."""
        key = ("crossing", width, tokens, limit, id(gap))
        if key not in self._found:
            self._kept.append(gap)
            apart = self._strands(gap.paths)

            def cycles(rows: int) -> int:
                return max(self._strand(width, one.paths, rows).end_cycle for one in apart)

            part, rows = cache(cycles), self.stage(width).shape.hidden.count * tokens
            self._found[key] = [part(size) for size in part_sizes(rows, limit, part)]
        found: list[int] = self._found[key]
        return found

    def between(
        self, width: Width, paths: tuple[tuple[Hop, ...], ...], tokens: int, limit: int | None
    ) -> tuple[Sketch, ...]:
        """What brings x of each rank to the next stage; hops are between numbers of chips.

        In parts of at most `limit` cycles.
        """
        key = ("between", width, tokens, limit, paths)
        if key not in self._found:
            apart = self._strands(paths)

            def of_rows(rows: int) -> Sketch:
                return together((one, self._strand(width, one.paths, rows)) for one in apart)

            part, rows = cache(of_rows), self.stage(width).shape.hidden.count * tokens
            sizes = part_sizes(rows, limit, lambda count: part(count).end_cycle)
            self._found[key] = tuple(map(part, sizes))
        found: tuple[Sketch, ...] = self._found[key]
        return found

    def _strands(self, paths: tuple[tuple[Hop, ...], ...]) -> tuple[Strand, ...]:
        if ("strands", paths) not in self._found:
            self._found["strands", paths] = tuple(strands(paths, self.sizes.spec))
        found: tuple[Strand, ...] = self._found["strands", paths]
        return found

    def _strand(self, width: Width, paths: tuple[tuple[Hop, ...], ...], rows: int) -> Sketch:
        """Some rows of x along paths that meet."""
        key = ("strand", width, rows, paths)
        if key not in self._found:
            stage = self.stage(width)
            self._found[key] = self.store.kept(
                "strand",
                (stage.spec, stage.memory["x0"], rows, paths),
                lambda: sketch(hand_on(stage, stage, paths, 0, rows)),
                asdict,
                _sketch_of,
            )
        found: Sketch = self._found[key]
        return found

    def host_bytes(self, width: Width, tokens: int, context: int) -> int:
        """Bytes of a launch in and out of the chip with the most, as a run counts them."""
        key = ("host", width, tokens, context)
        if key not in self._found:
            blocks, lanes = context // CONTEXT_BLOCK, self.sizes.spec.lanes
            ins = input_regions(self.stage(width), True, tokens, blocks).values()
            outs = output_regions(self.stage(width, head=True), tokens).values()
            regions = (*ins, *outs)
            self._found[key] = sum(r.vectors * WIDTHS[r.dtype] * lanes for r in regions)
        found: int = self._found[key]
        return found

    # --- energy -----------------------------------------------------------------------------
    def activity(self, kind: Kind, context: int, limit: int | None) -> Activity:
        """What a decode launch does in a stage, on all members."""
        layer, blocks = self.stage(kind.width), context // CONTEXT_BLOCK
        total = Activity()
        if kind.layers:
            total = self._activity(layer, kind.routes, blocks, limit).times(kind.layers)
        if kind.head:
            total += self._activity(self.stage(kind.width, head=True), {}, 1, None)
        return total

    def _activity(self, stage: Stage, routes: Routes, blocks: int, limit: int | None) -> Activity:
        key = ("activity", id(stage), id(routes), blocks, limit)
        if key not in self._found:
            self._found[key] = self.store.kept(
                "activity",
                (stage.spec, stage.shapes, blocks, self._named(routes), limit),
                lambda: _activity_of(stage, routes, blocks, limit),
                asdict,
                lambda plain: Activity(**plain),
            )
        found: Activity = self._found[key]
        return found

    def activity_between(self, width: Width, paths: tuple[tuple[Hop, ...], ...]) -> Activity:
        """What brings x of each rank of a decode launch to the next stage does."""
        total = Activity()
        for strand in self._strands(paths):
            total += self._activity_along(width, strand.paths)
        return total

    def _activity_along(self, width: Width, paths: tuple[tuple[Hop, ...], ...]) -> Activity:
        key = ("activity between", width, paths)
        if key not in self._found:
            stage = self.stage(width)
            rows = stage.shape.hidden.count
            self._found[key] = self.store.kept(
                "activity between",
                (stage.spec, stage.memory["x0"], rows, paths),
                lambda: _done_in(hand_on(stage, stage, paths, 0, rows)),
                asdict,
                lambda plain: Activity(**plain),
            )
        found: Activity = self._found[key]
        return found


def step_cost(step: Step) -> StepCost:
    """The cost of a step: the extents of all its parts, by member."""
    extents: dict[int, tuple[int, int, int]] = {}
    for part, everyone in step.parts:
        for members in everyone:
            for number in part.members:
                member = members[number] if members else number
                first, end = part.first_cycle(number), part.member_end_cycles[number]
                extents[member] = (first, end, part.instructions(number))
    firsts, ends, counts = zip(*extents.values(), strict=True)
    attention = 0
    if step.what == "layer":  # attention is over with its residual
        events = step.parts[0][0].events
        attention = min(end for label, _, end in events if label == "residual")
    sizes = Sketch(step.cycles, step.end_cycle, tuple(extents), firsts, ends, counts)
    return StepCost(step.what, sizes, attention)


def _activity_of(stage: Stage, routes: Routes, blocks: int, limit: int | None) -> Activity:
    total = Activity()
    for step in stage.steps(1, blocks, routes, limit):
        for part, everyone in step.parts:
            total += _done_in(part).times(len(everyone))
    return total


def _done_in(schedule: Schedule) -> Activity:
    total = Activity()
    for member in schedule.members:
        total += count(_items(schedule, member), schedule.spec)
    return total


def _items(schedule: Schedule, member: int) -> Iterator[tuple[str, int, Instruction]]:
    for queue, placed in schedule.placed[member].items():
        for cycle, instruction in placed:
            yield queue, cycle, instruction


def _sketch_of(plain: dict[str, Any]) -> Sketch:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return Sketch(**fields)


def _step_of(plain: dict[str, Any]) -> StepCost:
    return StepCost(plain["what"], _sketch_of(plain["sketch"]), plain["attention_cycles"])
