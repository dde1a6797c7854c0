"""The steps of an all-reduce of a residual update: behind what makes its summands, or beside it."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from functools import partial

from chip.errors import PoolFull
from chip.kernels.allreduce import AllReduce as Exchange
from chip.kernels.allreduce import Routes, at_a_time, swapped
from chip.kernels.layout import halves
from chip.kernels.memory import MemoryMap
from chip.kernels.step import Step
from chip.schedule import Schedule, TooLong
from cluster.compiler.assign import RESIDUAL, SUMMANDS, Assigned
from cluster.model.graph.collective import AllReduce

BEGUN_ROWS = 64  # of an all-reduce that begins while its summands are made: more gain little by it
Parts = MutableMapping[tuple[object, ...], Schedule]
TooLongs = MutableMapping[tuple[object, ...], int]  # limits that are known to be exceeded
NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class Update:
    """An all-reduce `op` of so many rows on the members of a group."""

    memory: MemoryMap
    assigned: Assigned
    op: AllReduce
    members: int
    rows: int
    routes: Routes

    def behind(
        self, step: Step, most_cycles: int | None, known: Parts, too_long: TooLongs
    ) -> Iterator[Step]:
        """The step that makes the summands and those of the all-reduce.

        Few rows leave as they come, unless both together then take more than `most_cycles`. What is
        scheduled so is looked up in what is `known`, and added to it; so is what is `too_long`.
        """
        key = ("all-reduce", self.routes, self.op.sums, *(part for part, _ in step.parts))
        limit, began = most_cycles or NO_LIMIT, None
        if self._blocks * self.rows <= BEGUN_ROWS and too_long.get(key, 0) < limit:
            try:
                began = self._beside(step, most_cycles, known, key)
            except (PoolFull, TooLong) as error:
                too_long[key] = limit if isinstance(error, TooLong) else NO_LIMIT
            if began and (most_cycles is None or began.cycles + step.cycles <= most_cycles):
                yield replace(step, tail_cycles=began.cycles)
                yield began
                return
        yield step
        yield from self.steps(most_cycles)

    def _beside(
        self, step: Step, most_cycles: int | None, known: Parts, key: tuple[object, ...]
    ) -> Step:
        """The all-reduce from the beginning of a step on; raises PoolFull, TooLong."""
        if key not in known:
            before, after = self._ends
            if self._swap:
                before, after = RESIDUAL[::-1]
            ranks = {
                member: (part, first)
                for part, everyone in step.parts
                for members in everyone
                for first, member in (members or {}).items()
            }
            exchange = self._exchange(before, after, self.rows)
            ready = [
                max(
                    part.ready_cycle(first, name, slice(row, row + 1))
                    for part, first in set(ranks.values())
                )
                for name, half in zip(SUMMANDS, halves(self._blocks), strict=True)
                for row in range(len(half) * self.rows)
            ]
            known[key] = exchange.beside(ranks, ready, most_cycles)
        return Step("all-reduce", ((known[key], (None,)),), step.moved, early_cycles=step.cycles)

    def steps(self, most_cycles: int | None) -> Iterator[Step]:
        """By itself; x1 into x0 swaps the places of x0 into x1.

        If it takes more than `most_cycles`, or more room than there is for what lands, it goes in
        steps of some of the tokens each; raises PoolFull where there is none for one.
        """
        before, after = self._ends
        blocks, rows, most = self._blocks, self.rows, self.rows

        def moved(index: int, address: int, first: int = 0) -> int:
            return first + (swapped(self.memory, index, address) if self._swap else address)

        for some in at_a_time(blocks, self.members, rows, self.routes, most_cycles):
            if some > most:
                continue
            exchange = self._exchange(before, after, some)
            if some > 1 and most_cycles and exchange.listed_cycles > most_cycles:
                continue
            try:
                part = exchange.shared_schedule()
            except PoolFull:
                if some == 1:
                    raise
                continue
            if not most_cycles or part.quiet_cycle <= most_cycles:
                break
            most = max(1, some * most_cycles // part.quiet_cycle)  # fewer take longer each
        for first in range(0, rows, some):
            yield Step("all-reduce", ((part, (None,)),), partial(moved, first=first))

    def _exchange(self, before: str | None, after: str, some: int) -> Exchange:
        """The all-reduce of some of the tokens."""
        return Exchange(self.memory, *self._size, before, after, some, self.op.sums)

    @property
    def _blocks(self) -> int:
        return self.assigned.layout(self.op.out).blocks

    @property
    def _size(self) -> tuple[int, int, int, Routes]:
        return self._blocks, self.members, self.rows, self.routes

    @property
    def _ends(self) -> tuple[str | None, str]:
        """The residual, if any, and the result."""
        return RESIDUAL if self.op.residual else (None, self.assigned.whole_copy(self.op.out))

    @property
    def _swap(self) -> bool:
        return self.assigned.residual.get(self.op.out.name) == RESIDUAL[0]
