"""Records of a tape, written one after another, with the tables and constants they name."""

from dataclasses import dataclass, field

import numpy as np

from chip.arrays import Array
from chip.jit.layout import CONSTANTS, GROUPS, TURN, Operand, Record
from chip.jit.rows import lane_kernel, run_kernel, turn_kernel
from chip.linker.fetch import Ints
from chip.sram import GROUP

RUN_LANES = 16  # side by side, on average: from here on it pays to move them together


def lane_runs(lanes: Ints) -> Ints:
    """Runs [n, 3] of lanes that stay side by side: to, from, how many.

    None where these would be short, or where some lanes are zeroed.
    """
    starts = np.flatnonzero(np.diff(lanes, prepend=lanes[0]) != 1)
    if len(starts) * RUN_LANES > len(lanes) or lanes.min() < 0:
        return np.zeros((0, 3), np.int64)
    return np.stack([starts, lanes[starts], np.diff(starts, append=len(lanes))], axis=1)


def turned_by(lanes: Ints) -> int:
    """By how much each TURN lanes are turned round; -1 where lanes are not moved like that."""
    number, by = np.arange(len(lanes)), int(lanes[0])
    like = number // TURN * TURN + (number + by) % TURN
    return by if 0 <= by < TURN and bool((lanes == like).all()) else -1


@dataclass
class Records:
    """What all tapes of a stretch share: tables of integers, and constant rows of lanes."""

    lanes: int
    tables: list[Ints] = field(default_factory=list)
    constants: list[bytes] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    _places: dict[bytes, int] = field(default_factory=dict)
    _constants: dict[bytes, int] = field(default_factory=dict)
    _moves: dict[tuple[int, bytes], tuple[int, Operand]] = field(default_factory=dict)
    _length: int = 0
    _bytes: int = 0

    @property
    def word_bytes(self) -> int:
        """Bytes of a word of four slices."""
        return self.lanes * GROUP

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
            runs, by = lane_runs(lanes), turned_by(lanes)
            if by > 0:
                kernel, b = turn_kernel(size), np.array([by])
            elif len(runs):
                kernel, b = run_kernel(), np.concatenate([[len(runs)], size * runs.ravel()])
            else:
                kernel, b = lane_kernel(size), lanes
            self._moves[key] = kernel, self.constant(b.astype(np.int64))
        return self._moves[key]

    def rows_of(
        self, base: int, offset: int, row_bytes: int, rows: Ints | None, shift: int = -1
    ) -> Operand:
        """The rows of `rows` from an offset on, or all in order."""
        if rows is None or len(rows) == 0:
            return Operand(base, offset, row_bytes, -1, shift)
        step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
        if bool((np.diff(rows) == step).all()):
            return Operand(base, offset + int(rows[0]) * row_bytes, step * row_bytes, -1, shift)
        return Operand(base, offset, row_bytes, self.table(rows), shift)

    def row(self, operand: Operand, number: int) -> Operand:
        """One row of an operand, as an operand of one row."""
        if operand.row_table >= 0:
            return operand._replace(row_table=operand.row_table + number)
        return operand._replace(offset=operand.offset + number * operand.stride)

    def in_sram(self, index: int, words: Ints, local: int) -> Operand:
        """Elements at rest from slice `index` on."""
        base = GROUPS + index // GROUP
        return self.rows_of(base, index % GROUP, self.word_bytes, words, local)
