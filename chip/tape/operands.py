"""Values and operands of a stretch: slots for what nodes make, records that bring it in shape."""

from dataclasses import dataclass, field

import numpy as np

from chip.isa import NUMPY_TYPES
from chip.jit.layout import ARENA, ROWS, Operand, Record
from chip.jit.rows import copy_kernel
from chip.linker.fetch import Cast, Fetch, Merge, Plane, Scalar, Stack, Take
from chip.tape.arena import Arena
from chip.tape.records import Records
from chip.tape.tapes import Shape


@dataclass
class Values:
    """Slots of node values in the arena, and temporary ones for operands."""

    records: Records
    shapes: dict[int, Shape]
    arena: Arena = field(default_factory=Arena)
    slots: dict[int, int] = field(default_factory=dict)
    _temporary: list[tuple[int, int]] = field(default_factory=list)

    def make(self, node: int) -> int:
        """Give a node's value its slot."""
        if node not in self.slots:
            self.slots[node] = self.arena.take(self.shapes[node].bytes(self.records.lanes))
        return self.slots[node]

    def drop(self, node: int) -> None:
        """The slot of a value is free for others; where it lay stays known."""
        self.arena.give(self.slots[node], self.shapes[node].bytes(self.records.lanes))

    def drop_temporary(self) -> None:
        """Operands brought in shape are not needed any more."""
        for offset, size in self._temporary:
            self.arena.give(offset, size)
        self._temporary = []

    def whole(self, node: int) -> Operand:
        """All rows of a node's value."""
        size = self.records.lanes * NUMPY_TYPES[self.shapes[node].element].itemsize
        return Operand(ARENA, self.make(node), size)

    def operand(self, fetch: Fetch, rows: int, element: str) -> Operand:
        """Rows of lanes side by side for an operand; KeyError for what has no records."""
        lanes = self.records.lanes
        if isinstance(fetch, Scalar):
            return self.records.constant(np.full(lanes, fetch.value, NUMPY_TYPES[element]))
        if isinstance(fetch, Take):
            whole, where = self.whole(fetch.node), fetch.where
            if isinstance(where, slice):
                where = np.arange(where.start, where.stop, where.step)
            return self.records.rows_of(ARENA, whole.offset, whole.stride, where)
        if isinstance(fetch, Cast):
            return self.operand(fetch.source, rows, "u8")
        return self._shaped(fetch, rows, element)

    def _shaped(self, fetch: Fetch, rows: int, element: str) -> Operand:
        lanes = self.records.lanes
        size = NUMPY_TYPES[element].itemsize
        out = Operand(ARENA, self._room(rows * lanes * size), lanes * size)
        if isinstance(fetch, Plane):
            a = self.operand(fetch.source, rows, self.shapes[fetch.source.node].element)
            a = a._replace(offset=a.offset + fetch.byte)
            self._copy(rows, out, a, copy_kernel(1, fetch.width, 1))
        elif isinstance(fetch, Merge):
            for at, part in fetch.parts:
                place = self.records.rows_of(ARENA, out.offset, out.stride, at)
                self._copy(len(at), place, self.operand(part, len(at), element), copy_kernel(size))
        elif isinstance(fetch, Stack) and fetch.dtype is not None:
            for byte, plane in enumerate(fetch.planes):
                place = out._replace(offset=out.offset + byte)
                self._copy(rows, place, self.operand(plane, rows, "u8"), copy_kernel(1, 1, size))
        else:
            raise KeyError(fetch)
        return out

    def _copy(self, rows: int, out: Operand, a: Operand, kernel: int) -> None:
        self.records.records.append(Record(ROWS, rows, out, a, kernel=kernel))

    def _room(self, size: int) -> int:
        offset = self.arena.take(size)
        self._temporary.append((offset, size))
        return offset
