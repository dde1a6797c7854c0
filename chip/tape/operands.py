"""Values and operands of a stretch: slots for what nodes make, records that bring it in shape.

Rows of a value that only one task needs have a slot in the arena of that task, all others one
in the common arena.
"""

from dataclasses import dataclass, field

import numpy as np

from chip.isa import NUMPY_TYPES
from chip.jit.layout import ARENA, ROWS, Operand, Record
from chip.jit.rows import copy_kernel
from chip.linker.fetch import Cast, Fetch, Ints, Merge, Plane, Scalar, Stack, Take
from chip.tape.arena import Arena
from chip.tape.records import Records
from chip.tape.tapes import Shape
from chip.tape.tasks import taken


@dataclass
class Values:
    """Slots of node values in arenas, and temporary ones for operands.

    `resting` are values that are read where they rest in SRAM, as operands of one row and the
    words of all rows. `own` are rows of values in the arena of the task that is being written,
    from a base on; there are none between tasks.
    """

    records: Records
    shapes: dict[int, Shape]
    slots: dict[int, int] = field(default_factory=dict)
    resting: dict[int, tuple[Operand, Ints]] = field(default_factory=dict)
    common: Arena = field(default_factory=Arena)
    base: int = ARENA
    task: Arena | None = None
    own: dict[int, tuple[int, Ints]] = field(default_factory=dict)
    _temporary: list[tuple[int, int]] = field(default_factory=list)

    @property
    def _arena(self) -> Arena:
        return self.common if self.task is None else self.task

    def begin(self, base: int, task: Arena) -> None:
        """What follows is of a task, until `end`."""
        self.base, self.task = base, task

    def end(self) -> None:
        """What follows is of no task."""
        self.base, self.task = ARENA, None

    def make(self, node: int) -> int:
        """Give a node's value its slot."""
        if node not in self.slots:
            self.slots[node] = self.common.take(self.shapes[node].bytes(self.records.lanes))
        return self.slots[node]

    def make_own(self, node: int, rows: Ints) -> None:
        """Give rows of a node's value a slot of the task."""
        self.own[node] = self._arena.take(len(rows) * self._row_bytes(node)), rows

    def drop_own(self, node: int) -> None:
        """The slot of rows of a value is free for others."""
        offset, rows = self.own.pop(node)
        self._arena.give(offset, len(rows) * self._row_bytes(node))

    def drop(self, node: int) -> None:
        """The slot of a value is free for others; where it lay stays known."""
        self.common.give(self.slots[node], self.shapes[node].bytes(self.records.lanes))

    def drop_temporary(self) -> None:
        """Operands brought in shape are not needed any more."""
        for offset, size in self._temporary:
            self._arena.give(offset, size)
        self._temporary = []

    def placed(self, node: int, rows: Ints | None = None) -> Operand:
        """Rows of a node's value, or all."""
        if node in self.resting:
            place, words = self.resting[node]
            return self.records.chosen(place, words if rows is None else words[rows])
        size = self._row_bytes(node)
        if node in self.own:
            offset, held = self.own[node]
            where = None if rows is None else np.searchsorted(held, rows)
            return self.records.chosen(Operand(self.base, offset, size), where)
        return self.records.chosen(Operand(ARENA, self.make(node), size), rows)

    def operand(self, fetch: Fetch, rows: Ints, element: str) -> Operand:
        """Rows of lanes side by side for rows of an operand; KeyError for what has no records."""
        match fetch:
            case Scalar(value=value):
                return self.records.constant(
                    np.full(self.records.lanes, value, NUMPY_TYPES[element])
                )
            case Take(node=node, where=None):
                return self.placed(node, rows)
            case Take(node=node, where=where):
                return self.placed(node, taken(where, 0)[rows])
            case Cast(source=source):
                return self.operand(source, rows, "u8")
        return self._shaped(fetch, rows, element)

    def _shaped(self, fetch: Fetch, rows: Ints, element: str) -> Operand:
        size, count = NUMPY_TYPES[element].itemsize, len(rows)
        row_bytes = self.records.lanes * size
        out = Operand(self.base, self._room(count * row_bytes), row_bytes)
        match fetch:
            case Plane(source=source, byte=byte, width=width):
                a = self.operand(source, rows, self.shapes[source.node].element)
                a = a._replace(offset=a.offset + byte)
                self._copy(count, out, a, copy_kernel(1, width, 1))
            case Merge(parts=parts):
                for at, part in parts:
                    mine = np.flatnonzero(np.isin(at, rows))
                    if len(mine):
                        place = self.records.chosen(out, np.searchsorted(rows, at[mine]))
                        a = self.operand(part, mine, element)
                        self._copy(len(mine), place, a, copy_kernel(size))
            case Stack(planes=planes, dtype=dtype) if dtype is not None:
                for byte, plane in enumerate(planes):
                    place = out._replace(offset=out.offset + byte)
                    a = self.operand(plane, rows, "u8")
                    self._copy(count, place, a, copy_kernel(1, 1, size))
            case _:
                raise KeyError(fetch)
        return out

    def _copy(self, rows: int, out: Operand, a: Operand, kernel: int) -> None:
        self.records.add(Record(ROWS, rows, out, a, kernel=kernel))

    def _row_bytes(self, node: int) -> int:
        return self.records.lanes * NUMPY_TYPES[self.shapes[node].element].itemsize

    def _room(self, size: int) -> int:
        offset = self._arena.take(size)
        self._temporary.append((offset, size))
        return offset
