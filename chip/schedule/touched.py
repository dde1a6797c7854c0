"""Rows of buffers: from when on they may be read, and written."""

from dataclasses import dataclass, field
from operator import sub

import numpy as np

from chip.schedule.flows import Access, Ints


@dataclass
class Touched:
    """Per row of a buffer: when it may be read, and when it may be overwritten.

    `planes` has, of rows whose byte planes come one after another, what `ready` is for each.
    """

    ready: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    free: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    planes: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def wait(self, access: Access, further: int) -> int:
        """Earliest cycle 0 of a chain that touches rows so, `further` ones of the buffer."""
        if access.issues and self.planes and not access.writes:
            return self._wait_planes(access, further)
        table = self.free if access.writes else self.ready
        if access.once:
            return int(table[access.rows.first + further]) - access.early
        return int((table[access.indices(further)] - access.first).max())

    def _wait_planes(self, access: Access, further: int) -> int:
        found = []
        for cycle, row in access.iterations(further):
            planes = self.planes.get(row)
            if planes is None:
                found.append(int(self.ready[row]) - access.early - cycle)
            else:
                found.append(max(map(sub, planes, access.issues)) - cycle)
        return max(found)

    def note(self, access: Access, further: int, start: int) -> None:
        """A chain that begins at `start` touches rows so."""
        tables = (self.free, self.ready) if access.writes else (self.free,)
        if access.once:
            row, last = access.rows.first + further, access.late + start + 1
            for table in tables:
                if table[row] < last:
                    table[row] = last
        else:
            rows, after = access.indices(further), access.last + (start + 1)
            for table in tables:
                np.maximum.at(table, rows, after)
        if access.writes and access.issues:
            for cycle, row in access.iterations(further):
                after_cycle = start + 1 + cycle
                self.planes[row] = tuple([issue + after_cycle for issue in access.issues])
        elif access.writes and self.planes:
            for _, row in access.iterations(further):
                self.planes.pop(row, None)

    def grow(self, count: int) -> None:
        """Make room for so many rows, and for some that may follow."""
        if count > len(self.ready):
            more = max(count, 2 * len(self.ready)) - len(self.ready)
            self.ready = np.concatenate([self.ready, np.zeros(more, np.int64)])
            self.free = np.concatenate([self.free, np.zeros(more, np.int64)])

    def copy(self) -> "Touched":
        """The same, to be changed apart."""
        return Touched(self.ready.copy(), self.free.copy(), dict(self.planes))
