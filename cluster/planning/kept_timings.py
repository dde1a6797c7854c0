"""The work of the stages of a placed pipeline, as timings that are known of their width."""

from collections.abc import Sequence

from chip.kernels.allreduce import Network, algorithms
from chip.schedule import Pace, ScheduleTiming, TimingSequence
from cluster.compiler.launch import LaunchKind
from cluster.compiler.stage_shape import StageShape
from cluster.compiler.wiring import Group, Pipeline
from cluster.planning.costs import Costs, StageKind, Width


class KeptTimings:
    """The work of a pipeline's stages as timings, from what is known of their width."""

    def __init__(
        self, costs: Costs, width: Width, layers: Sequence[tuple[int, ...]], pipeline: Pipeline,
        shapes: Sequence[StageShape | None],
    ) -> None:  # fmt: skip
        self.costs, self.width, self.pipeline = costs, width, pipeline
        last = len(layers) - 1
        # equal stages are one object, and so are their paths: they are asked for by the thousand
        known: dict[StageKind, StageKind] = {}

        def kinds(groups: Sequence[Group]) -> tuple[StageKind, ...]:
            found = (
                StageKind(width, kinds, number == last, group.routes, shape)
                for number, (kinds, group, shape) in enumerate(
                    zip(layers, groups, shapes, strict=True)
                )
            )
            return tuple(known.setdefault(kind, kind) for kind in found)

        self.beside, self._alone = kinds(pipeline.groups), kinds(pipeline.alone)

    def kinds(self, launch: LaunchKind) -> tuple[StageKind, ...]:
        """The stages as launches of a kind have them."""
        beside = self.pipeline.groups_of(launch) is self.pipeline.groups
        return self.beside if beside else self._alone

    def stage(
        self, number: int, kind: LaunchKind, pace: Pace | None, slot: int = 0
    ) -> TimingSequence:
        """The timing of a stage, which is that of any slot."""
        return self.costs.stage_timing(self.kinds(kind)[number], kind, pace)

    def longest(self, launch: LaunchKind, limit: int | None) -> StageKind:
        """The stage that takes longest with all at work, as the timetables of all-reduces say.

        They tell what all-reduces on a stage's own chips take beyond those of a launch, which may
        go by way of idle ones.
        """
        each = dict.fromkeys(zip(self.kinds(launch), self.beside, strict=True))

        def cycles(alone: StageKind, own: StageKind) -> int:
            steps = self.costs.steps(alone, launch, limit)
            more = self._listed(own.routes, launch.rows) - self._listed(alone.routes, launch.rows)
            exchanges = sum(step.what == "all-reduce" for step in steps)
            return sum(step.cycles for step in steps) + exchanges * more

        return max(each, key=lambda pair: cycles(*pair))[1]

    def _listed(self, routes: Network, rows: int) -> int:
        """The cycle of its timetable at which the last message of an all-reduce leaves."""
        blocks, members = self.costs.stage(self.width).hidden_blocks, self.width.tp
        if members == 1:
            return 0
        name, sums = algorithms(blocks, members)[-1], self.costs.sizes.model.sums
        return routes.all_reduce(name, blocks * rows, True, sums).last_cycle

    def crossing(
        self, number: int, kind: LaunchKind, limit_cycles: int | None
    ) -> Sequence[ScheduleTiming]:
        """x of a stage to the next."""
        link = self.pipeline.links[number]
        size = self.costs.stage(self.width), kind.rows
        return self.costs.links.crossing(*size, link.paths, link.onward, limit_cycles)
