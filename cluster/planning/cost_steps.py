"""Parts of pipeline steps as timings, from what is known of their width."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import groupby

from chip.schedule import Schedule, ScheduleTiming, TimingSequence, merged
from cluster.compiler.assign import RESIDUAL
from cluster.compiler.contention import ContentionGroup, contention_groups
from cluster.compiler.hand_over import Sender, hand_round, quickest_parts, send, step_senders
from cluster.compiler.launch import LaunchKind
from cluster.compiler.place import Placement
from cluster.compiler.wires import Wires
from cluster.compiler.wiring import Path
from cluster.planning.cost_values import timing_of
from cluster.planning.costs import StageKind
from cluster.planning.kept_timings import KeptTimings

Add = Callable[[Schedule, Sequence[Path], tuple[int, int]], None]  # some rows from a chip


class KeptParts:
    """What the steps of one sequence's prompt are made of; see `StepParts`."""

    def __init__(self, work: KeptTimings, wires: Wires, placement: Placement) -> None:
        self.costs, self.width, self.stage = work.costs, work.width, work.stage
        self.kinds = work.beside
        self.links, self.wires, self.placement = work.pipeline.links, wires, placement
        self._sent: dict[tuple[int, int | None], list[ScheduleTiming]] = {}
        self._groups: dict[tuple[Path, ...], tuple[ContentionGroup, ...]] = {}
        self._alike: dict[tuple[object, ...], ScheduleTiming] = {}
        self._taken: dict[int, TimingSequence] = {}

    @cached_property
    def senders(self) -> tuple[Sender, ...]:
        """Every rank of all stages but the last."""
        return tuple(step_senders(self.wires, self.placement))

    def alike(self, number: int) -> StageKind:
        """See `StepParts`."""
        return self.kinds[number]

    def sent(self, kind: LaunchKind, limit_cycles: int | None) -> list[ScheduleTiming]:
        """x of all stages to the next, on all links at once."""
        key = kind.rows, limit_cycles
        if key not in self._sent:
            stage = self.costs.stage(self.width)
            self._sent[key] = self.costs.store.kept(
                "in steps",
                (stage.spec, stage.key, *key, [link.digest for link in self.links]),
                lambda: self._quickest(stage.hidden_blocks * kind.rows, limit_cycles),
                lambda found: [asdict(one) for one in found],
                lambda plain: [timing_of(one) for one in plain],
            )
        return self._sent[key]

    def _quickest(self, count: int, limit_cycles: int | None) -> list[ScheduleTiming]:
        """What brings so many rows of each rank on."""
        memory = self.costs.stage(self.width).memory

        def sent(some: Sequence[Sender], first: int, last: int) -> ScheduleTiming:
            def add(plan: Schedule, ways: Sequence[Path], rows: tuple[int, int]) -> None:
                source, target = (memory[name] for name in RESIDUAL)
                send(plan, ways[0], (source, target), rows)

            sizes = [_moved(one.some(count, first, last), first) for one in some]
            return self._timed("sent", [one.path for one in some], sizes, add)

        def handed_round(some: Sequence[Sender], first: int, last: int) -> ScheduleTiming:
            def add(plan: Schedule, ways: Sequence[Path], rows: tuple[int, int]) -> None:
                hand_round(plan, ways, memory[RESIDUAL[1]], rows)

            shares = [(one, _moved(one.some(count, first, last), first)) for one in some]
            each = [(path, rows) for one, rows in shares for path in one.onward]
            paths, sizes = zip(*each, strict=True)
            return self._timed("handed round", paths, sizes, add)

        return quickest_parts(self.senders, count, limit_cycles, sent, handed_round)

    def _timed(
        self, what: str, paths: Sequence[Path], rows: Sequence[tuple[int, int]], add: Add
    ) -> ScheduleTiming:
        """Rows along each path: those that meet are scheduled together, what is alike once."""
        spec = self.costs.stage(self.width).spec

        def alone(group: tuple[Path, ...], own: tuple[tuple[int, int], ...]) -> ScheduleTiming:
            plan = Schedule(spec)
            each = zip(group, own, strict=True)
            for (_, mine), some in groupby(each, lambda one: (one[0][0].member, one[1])):
                add(plan, [path for path, _ in some], mine)
            ((timing, _),) = plan.timings
            return timing

        found = []
        every = tuple(paths)
        if every not in self._groups:
            self._groups[every] = tuple(contention_groups(every, spec))
        for group in self._groups[every]:
            own = tuple(rows[n] for n in group.numbers)
            key = (what, group.paths, own)
            if key not in self._alike:
                self._alike[key] = alone(group.paths, own)
            found.append((self._alike[key], group.members, 0))
        return merged(found)

    def take_in(self, number: int, kind: LaunchKind) -> TimingSequence:
        """x to its place, from where the host or the stage before has left it."""
        if kind.rows not in self._taken:
            found = self._taken[kind.rows] = TimingSequence()
            found.add(self.costs.take_in(self.width, kind.rows), 0)
        return self._taken[kind.rows]

    def put_out(self, number: int, kind: LaunchKind) -> None:
        """Nothing: x of a prefill rests where it is."""


def _moved(rows: tuple[int, int], back: int) -> tuple[int, int]:
    """So many rows before: all of a part moved alike take the same cycles; see `in_parts`."""
    return rows[0] - back, rows[1] - back
