"""Records of a tape, written one after another, with the tables and constants they name."""

from dataclasses import dataclass, field

import numpy as np

from chip.arrays import Array
from chip.jit.layout import CONSTANTS, GROUPS, TURN, Operand, Record
from chip.jit.rows import exchange_kernel, lane_kernel
from chip.linker.fetch import Ints
from chip.sram import GROUP


def exchanges(lanes: Ints) -> Ints | None:
    """How `vectors.exchanged` moves lanes like that; None if it cannot."""
    blocks = lanes.reshape(-1, TURN)
    starts = blocks.min(axis=1)
    by = int(blocks[0, 0] - starts[0])
    like = starts[:, None] + (np.arange(TURN) ^ by)
    fits = lanes.min() >= 0 and by < TURN and bool((blocks == like).all())
    return np.array([by, *starts]) if fits else None


@dataclass
class Records:
    """What all tapes of a stretch share: tables of integers, and constant rows of lanes."""

    lanes: int
    tables: list[Ints] = field(default_factory=list)
    constants: list[bytes] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # the node of each
    owner: int = 0  # of those that are written now
    _places: dict[bytes, int] = field(default_factory=dict)
    _constants: dict[bytes, int] = field(default_factory=dict)
    _moves: dict[tuple[int, bytes], tuple[int, Operand]] = field(default_factory=dict)
    _length: int = 0
    _bytes: int = 0

    @property
    def word_bytes(self) -> int:
        """Bytes of a word of four slices."""
        return self.lanes * GROUP

    def add(self, record: Record) -> None:
        """Append a record of the node that is being written."""
        self.records.append(record)
        self.owners.append(self.owner)

    def table(self, numbers: Ints) -> int:
        """Place of some numbers in the tables."""
        numbers = np.ascontiguousarray(numbers, np.int64).ravel()
        key = numbers.tobytes()
        if key not in self._places:
            self._places[key] = self._length
            self.tables.append(numbers)
            self._length += len(numbers)
        return self._places[key]

    def constant(self, row: Array) -> Operand:
        """A row that is the same for ever."""
        content = row.tobytes()
        if content not in self._constants:
            self._constants[content] = self._bytes
            self.constants.append(content + bytes(-len(content) % 64))
            self._bytes += len(self.constants[-1])
        return Operand(CONSTANTS, self._constants[content], 0)

    def moves(self, size: int, lanes: Ints) -> tuple[int, Operand]:
        """The kernel that moves lanes of `size` bytes, and its operand b; many nodes share few."""
        key = size, lanes.tobytes()
        if key not in self._moves:
            b = exchanges(lanes)
            kernel = lane_kernel(size) if b is None else exchange_kernel(size)
            b = lanes if b is None else b
            self._moves[key] = kernel, self.constant(b.astype(np.int64))
        return self._moves[key]

    def chosen(self, first: Operand, rows: Ints | None) -> Operand:
        """Some rows of an operand that has no row table, or all in order."""
        if rows is None or len(rows) == 0:
            return first
        low, step = int(rows[0]), int(rows[1] - rows[0]) if len(rows) > 1 else 1
        if len(rows) < 3 or bool((np.diff(rows) == step).all()):
            offset = first.offset + low * first.stride
            return first._replace(offset=offset, stride=step * first.stride)
        return first._replace(row_table=self.table(rows))

    def word(self, index: int, local: int) -> Operand:
        """Elements at rest from slice `index` on, in words from 0 on."""
        return Operand(GROUPS + index // GROUP, index % GROUP, self.word_bytes, -1, local)

    def in_sram(self, index: int, words: Ints, local: int) -> Operand:
        """Elements at rest from slice `index` on, in some words."""
        return self.chosen(self.word(index, local), words)
