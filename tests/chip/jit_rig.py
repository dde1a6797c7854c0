"""Kernels of `chip.jit` on arrays, without a chip: products of a few words, and single kernels."""

import ctypes
from collections.abc import Callable

import numpy as np
from llvmlite import binding

from chip.jit.activations import spreader
from chip.jit.layout import (
    ARENA,
    FP16,
    GROUPS,
    INT8,
    PRODUCTS,
    RECORD,
    STATISTICS,
    Operand,
    Part,
    Record,
    packed,
    x_bytes,
)
from chip.jit.play import play
from chip.jit.words import multiplier

LANES = 320


def function_at(address: int, arguments: int, result: type = ctypes.c_int64) -> Callable[..., int]:
    """What is at an address, to be called with integers and arrays."""
    call = ctypes.CFUNCTYPE(result, *(ctypes.c_int64,) * arguments)(address)
    return lambda *given: call(*(g.ctypes.data if isinstance(g, np.ndarray) else g for g in given))


def kernel_called(name: str, arguments: int, result: type = ctypes.c_int64) -> Callable[..., int]:
    """A kernel by its name."""
    return function_at(binding.address_of_symbol(f"lpu_{name}"), arguments, result)


class Products:
    """Columns w [n, lanes], fp16 or int8, as words in four quarters; keeps their statistics."""

    def __init__(self, w: np.ndarray) -> None:
        self.format = INT8 if w.dtype == np.int8 else FP16
        self.columns = 16 if self.format == INT8 else 8
        words = -(-len(w) // self.columns)
        padded = np.zeros((words * self.columns, LANES), w.dtype)
        padded[: len(w), : w.shape[1]] = w
        split = padded.reshape(words, 4, self.columns // 4, LANES).transpose(1, 0, 3, 2)
        self.count, self.words = len(w), words
        self.quarters = [np.ascontiguousarray(part) for part in split]
        self.statistics = np.zeros(words, STATISTICS)

    def dot(self, x: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
        """Products [n, columns] of row i % M of x [M, lanes] in n iterations, in any order."""
        rows = np.zeros((len(x), LANES), x.dtype)
        rows[:, : x.shape[1]] = x
        order = np.arange(len(x)) if order is None else order
        tables = np.concatenate([np.arange(self.words), [0], [0, len(order)], order]).astype(
            np.int64
        )
        return self._play(rows, order, tables)

    def _play(self, rows: np.ndarray, order: np.ndarray, tables: np.ndarray) -> np.ndarray:
        out = np.full((self.words, len(order), LANES), 7, np.float32)
        x_scratch_bytes = len(rows) * x_bytes(self.format, LANES)
        sums_end = x_scratch_bytes + 4 * LANES * len(order)
        word_bytes = sums_end + STATISTICS.itemsize
        records = []
        for word in range(self.words):  # a word each, so that threads have something to share
            scratch = word * word_bytes
            records.append(
                Record(
                    PRODUCTS,
                    len(order),
                    Operand(ARENA, word * len(order) * LANES * 4, 4 * LANES),
                    Operand(0, 0, LANES * rows.itemsize),
                    format=self.format,
                    spread=spreader(self.format),
                    multiply=multiplier(self.format),
                    tiles=1,
                    loads=1,
                    word_table=word,
                    column_table=self.words,
                    start_table=self.words + 1,
                    order_table=self.words + 3,
                    x_rows=len(rows),
                    quarters_base=GROUPS,
                    statistics=0,
                    first_load=word,
                    x_scratch=scratch,
                    out_scratch=scratch + x_scratch_bytes,
                    statistics_scratch=scratch + sums_end,
                    left=self.words - word,
                    zeroed=1,
                )
            )
        taped = np.array(records, RECORD)
        bases = np.array([a.ctypes.data for a in (rows, out, *self.quarters)], np.int64)
        statistics, shifts = np.array([self.statistics.ctypes.data]), np.zeros(1, np.int64)
        arrays = (taped, bases, statistics, shifts, tables)
        part = Part(*(a.ctypes.data for a in arrays), len(taped), LANES, 16)
        size = self.words * word_bytes
        scratch, spare = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        failed, _, _ = play(packed(part), scratch, spare, (arrays, rows, out, self))
        assert failed == -1
        kind = np.int32 if self.format == INT8 else np.float32
        found = out[:, :, : self.columns].transpose(1, 0, 2).reshape(len(order), -1)
        return found[:, : self.count].view(kind)
