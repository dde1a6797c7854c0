"""What the steps of a launch take, from the schedules that run, each made once.

A step's time depends on the width of the group, the routes inside it, the rows and the context,
not on how many layers a stage has or where its weights rest. So one layer of each kind and one LM
head of a width say all there is to say of any pipeline of it, and can be kept on disk.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from chip.energy import Activity
from chip.hashed import hashed_once
from chip.kernels.allreduce import Network
from chip.schedule import Pace, Schedule, ScheduleTiming, TimingSequence
from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import LaunchKind, decode_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.pipeline import take_in_x
from cluster.compiler.sizes import Sizes
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape
from cluster.compiler.stage_work import StepsInOrder, StepTiming, step_timing
from cluster.compiler.wires import NO_NETWORK
from cluster.planning.cost_activity import Counts
from cluster.planning.cost_links import LinkCosts
from cluster.planning.cost_store import CostStore
from cluster.planning.cost_values import timing_of
from cluster.planning.prompts import PromptSteps, prompt_steps


@dataclass(frozen=True)
class Width:
    """A tensor-parallel width, and the prefill chunk that its stages have room for."""

    tp: int
    chunk: int


@hashed_once
@dataclass(frozen=True)
class StageKind:
    """A kind of stage: layers on a group with certain routes, each by its kind in the model.

    Of one whose matrices rest anywhere, `shape` is what it holds: no other stage says its cycles.
    """

    width: Width
    layers: tuple[int, ...]
    head: bool
    routes: Network = field(repr=False)
    shape: StageShape | None = field(default=None, repr=False)


@dataclass
class Costs:
    """Costs of one model on one chip, by width; what is found is kept, in the `store` as well."""

    sizes: Sizes  # of one sequence: further caches take room, but no time
    store: CostStore = field(default_factory=CostStore)
    _stages: dict[tuple[Width, int | None], Stage] = field(default_factory=dict)
    _found: dict[tuple[object, ...], Any] = field(default_factory=dict)
    _counts: Counts = field(default_factory=Counts)

    def stage(self, width: Width, kind: int | None = 0) -> Stage:
        """A stage of one layer of a kind, or (None) of the LM head alone."""
        if (width, kind) not in self._stages:
            size = (width.tp, width.chunk, int(kind is not None), kind is None)
            wide = not self.sizes.fits(*size)
            self._stages[width, kind] = self.sizes.stage(*size, wide=wide, kind=kind)
        return self._stages[width, kind]

    # --- steps ------------------------------------------------------------------------------
    def layer(
        self, width: Width, kind: int, launch: LaunchKind, routes: Network, limit: int | None = None
    ) -> tuple[StepTiming, ...]:
        """The steps of a layer of a kind, none over `limit` cycles where that can be."""
        key = ("layer", width, kind, launch, routes, limit)
        if key not in self._found:
            limit = self._bearing(width, kind, launch, routes, limit)
            free = self._found.get((*key[:-1], limit))
            self._found[key] = free or self._steps(self.stage(width, kind), launch, routes, limit)
        found: tuple[StepTiming, ...] = self._found[key]
        return found

    def _bearing(
        self, width: Width, kind: int, launch: LaunchKind, routes: Network, limit: int | None
    ) -> int | None:
        """The limit; None if a layer is known whose steps are within it in any case."""
        free = self._found.get(("layer", width, kind, launch, routes, None))
        return limit if free is None or not _within(free, limit) else None

    def computed(self, width: Width, kind: int, launch: LaunchKind, limit: int) -> StepsInOrder:
        """What members do alone in a layer of a kind, up to a step that must take over `limit`."""
        key = ("computed", width, kind, launch, limit)
        if key not in self._found:
            self._found[key] = StepsInOrder(
                self._steps(self.stage(width, kind), launch, None, limit)
            )
        found: StepsInOrder = self._found[key]
        return found

    def head(self, width: Width, rows: int) -> tuple[StepTiming, ...]:
        """The step of the LM head for so many sequences."""
        key = ("head", width, rows)
        if key not in self._found:
            launch = decode_kind(CONTEXT_BLOCK, rows)
            self._found[key] = self._steps(self.stage(width, None), launch, NO_NETWORK, None)
        found: tuple[StepTiming, ...] = self._found[key]
        return found

    def alone(self, width: Width, kind: int, launch: LaunchKind) -> int:
        """Cycles of a layer without its all-reduces, if members wait for each other there."""
        stage, rows, blocks = self.stage(width, kind), launch.rows, launch.blocks
        return self.store.kept(
            "alone",
            (stage.spec, stage.key, rows, blocks),
            lambda: sum(step.cycles for step in stage.alone(rows, blocks, lambda _, a: a)),
            int,
            int,
        )

    def steps(self, kind: StageKind, launch: LaunchKind, limit: int | None) -> list[StepTiming]:
        """The steps of a stage in a launch, in order."""
        if kind.shape is not None:
            key = ("own steps", kind.shape, launch, kind.routes, limit)
            if key not in self._found:
                own = self._own(kind.shape)
                self._found[key] = list(self._steps(own, launch, kind.routes, limit))
            known: list[StepTiming] = self._found[key]
            return known
        found: list[StepTiming] = []
        for layer in kind.layers:
            found += self.layer(kind.width, layer, launch, kind.routes, limit)
        last = kind.head and launch.logits_rows
        return [*found, *self.head(kind.width, launch.rows)] if last else found

    def _own(self, shape: StageShape) -> Stage:
        if ("own", shape) not in self._found:
            self._found["own", shape] = Stage(self.sizes.spec, shape)
        found: Stage = self._found["own", shape]
        return found

    def _steps(
        self, stage: Stage, launch: LaunchKind, routes: Network | None, limit: int | None
    ) -> tuple[StepTiming, ...]:
        joined = routes.digest if routes is not None else "not at all"
        rows, blocks, slots = launch.rows, launch.blocks, range(launch.slots)

        def make() -> tuple[StepTiming, ...]:
            """Timings, the last that of a step for which the limit leaves no place, if there is."""
            found, done = list[StepTiming](), Activity()
            for step in stage.steps(rows, blocks, routes, limit, slots):
                found.append(step_timing(step))
                if launch.logits_rows and routes is not None:
                    done += self._counts.of(step)
                if limit is not None and found[-1].cycles > limit:
                    return tuple(found)
            if launch.logits_rows and routes is not None:  # counted while the schedule is there
                self._activity_of(stage, routes, launch, limit, done)
            return tuple(found)

        return self.store.kept(
            "steps",
            (stage.spec, stage.key, rows, len(slots), blocks, joined, limit),
            make,
            lambda found: [asdict(one) for one in found],
            lambda plain: tuple(_step_of(one) for one in plain),
        )

    # --- in a launch ------------------------------------------------------------------------
    def stage_timing(
        self, kind: StageKind, launch: LaunchKind, pace: Pace | None
    ) -> TimingSequence:
        """The steps of a stage as its schedule puts them; raises ProgramError as that does."""
        limit = pace.limit_cycles if pace else None
        key = ("stage", kind, launch, limit)
        if key not in self._found:
            self._found[key] = StepsInOrder(self.steps(kind, launch, limit))
        found: StepsInOrder = self._found[key]
        return found.at(pace)

    @cached_property
    def links(self) -> LinkCosts:
        """Costs between stages."""
        return LinkCosts(self.sizes.spec, self.store)

    def take_in(self, width: Width, rows: int) -> ScheduleTiming:
        """What brings x from where the host leaves it to its place, in a pipeline step."""
        key = ("take in", width, rows)
        if key not in self._found:
            stage = self.stage(width)

            def make() -> ScheduleTiming:
                ((timing, _),) = take_in_x(Schedule(stage.spec), stage, rows).timings
                return timing

            alike = (stage.spec, stage.key, rows)
            self._found[key] = self.store.kept("take in", alike, make, asdict, timing_of)
        found: ScheduleTiming = self._found[key]
        return found

    def host_bytes(self, width: Width, kind: LaunchKind, with_x: bool = True) -> int:
        """Bytes of a launch in and out of the chip with the most, as a run counts them.

        In steps in which the first stage has no work nobody takes x.
        """
        key = ("host", width, kind, with_x)
        if key not in self._found:
            layers = [self.stage(width, one) for one in dict.fromkeys(self.sizes.model.kinds)]
            stages = (*layers, self.stage(width, None))
            size = (stages[0].spec, *(stage.key for stage in stages), kind, with_x)
            self._found[key] = self.store.kept(
                "host", size, lambda: sum(host_bytes(stages, kind, with_x)), int, int
            )
        found: int = self._found[key]
        return found

    def prompt(self, chunk: int, tokens: int) -> PromptSteps:
        """The launches that take in a prompt."""
        key = ("prompt", chunk, tokens)
        if key not in self._found:
            self._found[key] = prompt_steps(self.sizes.spec, chunk, tokens)
        found: PromptSteps = self._found[key]
        return found

    # --- energy -----------------------------------------------------------------------------
    def activity(self, kind: StageKind, launch: LaunchKind, limit: int | None) -> Activity:
        """What a launch does in a stage, on all members."""
        if kind.shape is not None:
            return self._activity_of(self._own(kind.shape), kind.routes, launch, limit)
        total = Activity()
        for layer, times in Counter(kind.layers).items():
            stage = self.stage(kind.width, layer)
            bears = self._bearing(kind.width, layer, launch, kind.routes, limit)
            total += self._activity_of(stage, kind.routes, launch, bears).times(times)
        if kind.head and launch.logits_rows:
            last = decode_kind(CONTEXT_BLOCK, launch.rows)
            total += self._activity_of(self.stage(kind.width, None), NO_NETWORK, last, None)
        return total

    def _activity_of(
        self, stage: Stage, routes: Network, launch: LaunchKind, limit: int | None,
        known: Activity | None = None,
    ) -> Activity:  # fmt: skip
        key = ("activity", stage.spec, stage.key, routes, launch, limit)
        if key not in self._found:

            def make() -> Activity:
                size = launch.rows, launch.blocks, routes, limit, range(launch.slots)
                return known or sum(map(self._counts.of, stage.steps(*size)), Activity())

            self._found[key] = self.store.kept(
                "activity",
                (stage.spec, stage.key, str(launch), routes.digest, limit),
                make,
                asdict,
                lambda plain: Activity(**plain),
            )
        found: Activity = self._found[key]
        return found


def _within(steps: Sequence[StepTiming], limit: int | None) -> bool:
    """Whether no step, with the one that it begins beside, takes more than the limit."""
    before = (0, *(step.cycles for step in steps))
    each = (step.cycles + (last if step.early_cycles else 0)
            for last, step in zip(before, steps, strict=False))  # fmt: skip
    return limit is None or max(each, default=0) <= limit


def _step_of(plain: dict[str, Any]) -> StepTiming:
    return StepTiming(**plain | {"timing": timing_of(plain["timing"])})
