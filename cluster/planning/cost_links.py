"""What bringing x from a stage to the next takes, from the schedules that run, each made once."""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from chip.energy import Activity
from chip.kernels.transfer import Renumbering
from chip.schedule import Schedule, ScheduleTiming, merged
from chip.spec import ChipSpec
from cluster.compiler.contention import ContentionGroup, contention_groups
from cluster.compiler.hand_over import (
    least_cycles,
    quicker,
    row_cycles,
    send_activations,
    send_shares,
)
from cluster.compiler.stage import Stage
from cluster.compiler.timeline import in_parts
from cluster.compiler.wiring import Onward, Path, Paths, StageLink, as_paths
from cluster.planning.cost_activity import done_in
from cluster.planning.cost_store import CostStore
from cluster.planning.cost_values import timing_of


class LinkCosts:
    """Costs of links between stages, which are as wide as a `stage` that is given, and alike."""

    def __init__(self, spec: ChipSpec, store: CostStore) -> None:
        self.spec, self.store = spec, store
        self._found: dict[tuple[object, ...], Any] = {}

    def crossing(
        self, stage: Stage, rows: int, paths: Paths, onward: Onward, limit: int | None
    ) -> Sequence[ScheduleTiming]:
        """What brings x of so many rows to the next stage by the quicker way, within the limit."""
        key = ("crossing", stage.key, rows, limit, paths, onward)
        if key not in self._found:
            count = rows * stage.hidden_blocks
            least = 0 if onward or limit is None else row_cycles(paths)

            def part(first: int, last: int) -> ScheduleTiming:
                return self._crossed(stage, last - first, paths, onward)

            self._found[key] = in_parts(count, limit, part, least)
        found: Sequence[ScheduleTiming] = self._found[key]
        return found

    def _crossed(self, stage: Stage, size: int, paths: Paths, onward: Onward) -> ScheduleTiming:
        """What brings so many rows of x of each rank on, within whatever limit.

        The same between stages whose ports have numbers by the order in which they come.
        """
        key = ("crossed", stage.key, size, paths, onward)
        if key not in self._found:

            def make() -> ScheduleTiming:
                alike = self._alike(paths, onward)
                if alike != (paths, onward):
                    return self._crossed(stage, size, *alike)
                return self._quickest(stage, size, paths, onward)

            known = (stage.spec, stage.key, size, paths.digest, onward.digest)
            self._found[key] = self.store.kept("crossing", known, make, asdict, timing_of)
        found: ScheduleTiming = self._found[key]
        return found

    def _quickest(self, stage: Stage, size: int, paths: Paths, onward: Onward) -> ScheduleTiming:
        def whole() -> ScheduleTiming:
            groups = self._groups(paths)
            return merged((self._sent(stage, group, size), group.members, 0) for group in groups)

        plan = send_shares(stage, stage, paths, onward, (0, size))
        shared = merged([(plan.timings[0][0], None, 0)]) if plan else None
        return quicker(paths, size, whole, shared)

    def boundary(self, stage: Stage, rows: int, links: Sequence[StageLink]) -> int:
        """Cycles of a crossing, on an average of links: the first's, and what others take at least.

        Where they are like the first one they take as long.
        """
        total, count = 0, rows * stage.hidden_blocks
        for link in links:
            if link.paths == links[0].paths:
                crossing = self.crossing(stage, rows, link.paths, link.onward, None)
                total += sum(part.end_cycle for part in crossing)
            else:
                total += least_cycles(link.paths, link.onward, count)
        return total // max(1, len(links))

    def activity(self, stage: Stage, rows: int, paths: Paths, onward: Onward) -> Activity:
        """What brings x of a decode launch to the next stage does."""
        key = ("activity", stage.key, rows, paths, onward)
        if key not in self._found:
            size = stage.hidden_blocks * rows

            def make() -> Activity:
                alike = self._alike(paths, onward)
                if alike != (paths, onward):
                    return self.activity(stage, rows, *alike)
                shared = send_shares(stage, stage, paths, onward, (0, size))
                (taken,) = self.crossing(stage, rows, paths, onward, None)
                if shared is not None and shared.end_cycle == taken.end_cycle:
                    return done_in(shared)
                each = (self._along(stage, group, size) for group in self._groups(paths))
                return sum(each, Activity())

            self._found[key] = self.store.kept(
                "activity between",
                (stage.spec, stage.key, paths.digest, rows, onward.digest),
                make,
                asdict,
                lambda plain: Activity(**plain),
            )
        found: Activity = self._found[key]
        return found

    def _alike(self, paths: Paths, onward: Onward) -> tuple[Paths, Onward]:
        """The same between two stages whose ports have numbers by the order in which they come.

        Numbers of chips are so already.
        """
        if not onward:
            return paths, onward
        key = ("alike", paths, onward)
        if key not in self._found:
            anew = Renumbering()
            first = as_paths(map(anew.path, paths))
            every = tuple(tuple(map(anew.path, some)) for some in onward)
            digest = sha256(repr(every).encode()).hexdigest()
            self._found[key] = first, Onward(digest, lambda: every)
            assert all(old == new for old, new in anew.chips.items())
        found: tuple[Paths, Onward] = self._found[key]
        return found

    def _groups(self, paths: Paths) -> tuple[ContentionGroup, ...]:
        if ("groups", paths) not in self._found:
            self._found["groups", paths] = tuple(contention_groups(paths, self.spec))
        found: tuple[ContentionGroup, ...] = self._found["groups", paths]
        return found

    def _sent(self, stage: Stage, group: ContentionGroup, rows: int) -> ScheduleTiming:
        """Some rows of x along paths that meet."""
        key = ("sent", stage.key, rows, group.paths)
        if key not in self._found:
            ((self._found[key], _),) = _sent_alone(stage, group.paths, rows).timings
        found: ScheduleTiming = self._found[key]
        return found

    def _along(self, stage: Stage, group: ContentionGroup, rows: int) -> Activity:
        key = ("along", stage.key, group.paths, rows)
        if key not in self._found:
            self._found[key] = done_in(_sent_alone(stage, group.paths, rows))
        found: Activity = self._found[key]
        return found


def _sent_alone(stage: Stage, paths: Sequence[Path], rows: int) -> Schedule:
    return send_activations(Schedule(stage.spec), stage, stage, paths, (0, rows))
