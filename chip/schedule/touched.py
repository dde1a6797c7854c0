"""Rows of buffers: from when on they may be read, and written."""

from dataclasses import dataclass, field

import numpy as np

from chip.schedule.flows import Access, Ints


@dataclass
class Touched:
    """Per row of a buffer: when it may be read, and when it may be overwritten.

    `planes` [rows, byte planes] is `ready` for each plane, where some come one after another.
    """

    ready: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    free: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    planes: Ints | None = None

    def wait(self, access: Access, further: int) -> int:
        """Earliest cycle 0 of a chain that touches rows so, `further` ones of the buffer."""
        table = self.free if access.writes else self.ready
        if access.issues and self.planes is not None and not access.writes:
            return int((self.planes[access.indices(further)] - access.planes).max())
        if access.once:
            return int(table[access.rows.first + further]) - access.early
        return int((table[access.indices(further)] - access.first).max())

    def note(self, access: Access, further: int, start: int) -> None:
        """A chain that begins at `start` touches rows so."""
        tables = (self.free, self.ready) if access.writes else (self.free,)
        if access.once:
            rows: int | Ints = access.rows.first + further
            after: int | Ints = access.late + start + 1
            for table in tables:
                if table[rows] < after:
                    table[rows] = after
        else:
            rows, after = access.indices(further), access.last + (start + 1)
            for table in tables:
                np.maximum.at(table, rows, after)
        if access.writes and access.issues:
            if self.planes is None:
                self.planes = np.repeat(self.ready[:, None], len(access.issues), axis=1)
            self.planes[rows] = access.planes + (start + 1)
        elif access.writes and self.planes is not None:
            self.planes[rows] = np.asarray(after)[..., None]

    def grow(self, count: int) -> None:
        """Make room for so many rows, and for some that may follow."""
        if count > len(self.ready):
            more = max(count, 2 * len(self.ready)) - len(self.ready)
            self.ready = np.concatenate([self.ready, np.zeros(more, np.int64)])
            self.free = np.concatenate([self.free, np.zeros(more, np.int64)])
            if self.planes is not None:
                none = np.zeros((more, self.planes.shape[1]), np.int64)
                self.planes = np.concatenate([self.planes, none])

    def copy(self) -> "Touched":
        """The same, to be changed apart."""
        planes = None if self.planes is None else self.planes.copy()
        return Touched(self.ready.copy(), self.free.copy(), planes)
