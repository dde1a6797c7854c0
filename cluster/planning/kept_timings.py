"""The work of the stages of a placed pipeline, as timings that are known of their width."""

from collections.abc import Sequence

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

    def crossing(
        self, number: int, kind: LaunchKind, limit_cycles: int | None
    ) -> Sequence[ScheduleTiming]:
        """x of a stage to the next."""
        link = self.pipeline.links[number]
        size = self.costs.stage(self.width), kind.rows
        return self.costs.links.crossing(*size, link.paths, link.onward, limit_cycles)
