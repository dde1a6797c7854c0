"""The arithmetic of int8 weights (W8A8, W8A16), bit for bit as chips compute it.

Weights are int8 with a scale for each output channel. Before each matrix, a row of activations is
scaled by its largest magnitude and rounded to int8, to nearest even; sums are exact integers. With
16 bits, what is left of each step is rounded to 254ths of it (chip/kernels/integers16.py). One
rounding that falls otherwise changes an integer, and from there all that follows. So this takes the
numerics contract at its word: the chip's elementary functions, dot products of up to 320 terms
summed exactly and rounded once, and the stated order of the sums that are not exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chip.kernels.integers16 import LOW_LEVELS
from chip.kernels.lanes import LANES, ODD_FACTORS
from chip.kernels.layout import Layout, even
from chip.kernels.quantise import LEVELS, SMALLEST_PEAK
from chip.numerics import reciprocal

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
EXACT_TERMS = 1024  # products of 8 bits whose sum in float32 is an integer


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix [out, in] of integers, held as float32, and the scale [out] of each row."""

    integers: F32
    scales: F32

    @staticmethod
    def of(matrix: F32) -> "Int8Matrix":
        """Round a float32 matrix to nearest even; each row's largest magnitude becomes 127.

        >>> Int8Matrix.of(np.float32([[254, -127], [0, 0]])).integers.tolist()
        [[127.0, -64.0], [0.0, 0.0]]
        """
        scales: F32 = np.abs(matrix).max(axis=1, initial=0) / np.float32(LEVELS)
        divisor = np.where(scales > 0, scales, np.float32(1))
        return Int8Matrix(np.rint(matrix / divisor[:, None]), scales)

    def dot(self, x: "Int8Rows | Int16Rows") -> F32:
        """Products [rows, out] with rows of integers: sums times the row's step and the scales."""
        rows = x.of_each(lambda integers: integers.reshape(len(integers), -1))
        product: F32 = rows.sums(self.integers) * x.steps * self.scales
        return product


@dataclass(frozen=True)
class Int8Rows:
    """Activations [rows, ..] as integers, held as float32, and a step [rows, 1] for each row.

    That is 1 where fixed steps are factors of the matrices that rows meet.
    """

    integers: F32
    steps: F32

    @staticmethod
    def of(x: F32, factor: F32 | None = None) -> "Int8Rows":
        """Round rows by their largest magnitude; `factor` [rows, 1] scales what they mean."""
        rows = x.reshape(len(x), -1)
        peak, inverse = _peaks(rows)
        integers = np.clip(np.rint(rows * inverse), -128, 127).reshape(x.shape)
        steps = peak * (np.float32(1) / np.float32(LEVELS))
        return Int8Rows(integers, steps if factor is None else steps * factor)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the activations."""
        return self.integers.shape

    def of_each(self, change: Callable[[F32], F32]) -> "Int8Rows":
        """Its integers as `change` leaves them."""
        return Int8Rows(change(self.integers), self.steps)

    def sums(self, matrix: F32) -> F32:
        """Exact sums [rows, out] of products with integers [out, in], as fp32."""
        return integer_dot(self.integers, matrix).astype(np.float32)


@dataclass(frozen=True)
class Int16Rows:
    """Activations [rows, ..] as 254 * high + low, int8 both, and a step [rows, 1] for each row."""

    high: F32
    low: F32
    steps: F32

    @staticmethod
    def of(x: F32, factor: F32 | None = None) -> "Int16Rows":
        """Round rows by their largest magnitude; `factor` [rows, 1] scales what they mean."""
        rows = x.reshape(len(x), -1)
        peak, inverse = _peaks(rows)
        scaled = rows * inverse
        high = np.clip(np.rint(scaled), -128, 127)
        low = np.clip(np.rint((scaled - high) * np.float32(LOW_LEVELS)), -128, 127)
        steps = peak * (np.float32(1) / np.float32(LEVELS * LOW_LEVELS))
        steps = steps if factor is None else steps * factor
        return Int16Rows(high.reshape(x.shape), low.reshape(x.shape), steps)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the activations."""
        return self.high.shape

    def of_each(self, change: Callable[[F32], F32]) -> "Int16Rows":
        """Both halves as `change` leaves them."""
        return Int16Rows(change(self.high), change(self.low), self.steps)

    def sums(self, matrix: F32) -> F32:
        """Sums [rows, out] of products with integers [out, in]: exact ones put together in fp32."""
        high, low = (integer_dot(half, matrix).astype(np.float32) for half in (self.high, self.low))
        total: F32 = high * np.float32(LOW_LEVELS) + low
        return total


def integers_of(dtype: str, x: F32, factor: F32 | None = None) -> Int8Rows | Int16Rows:
    """Rows rounded to integers of a value's type, i8 or i16; `factor` scales what they mean."""
    return (Int16Rows if dtype == "i16" else Int8Rows).of(x, factor)


def with_steps(x: F32, steps: F32) -> Int8Rows:
    """Rows rounded by a fixed step for each of their elements; -128 and 127 of them are the ends.

    >>> with_steps(np.float32([[0.26, -9]]), np.float32([0.1, 0.01])).integers.tolist()
    [[3.0, -128.0]]
    """
    scaled = x.reshape(len(x), -1) * inverse_of(steps)
    integers = np.clip(np.rint(scaled), -128, 127).reshape(x.shape)
    return Int8Rows(integers, np.ones((len(x), 1), np.float32))


def inverse_of(steps: F32) -> F32:
    """What elements are multiplied by to become integers."""
    inverse: F32 = np.float32(1) / steps
    return inverse


def _peaks(rows: F32) -> tuple[F32, F32]:
    """The largest magnitude [rows, 1] of each row, and 127 over it."""
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=np.float32(SMALLEST_PEAK))
    return peak, reciprocal(peak) * np.float32(LEVELS)


def integer_dot(a: F32, b: F32) -> F64:
    """a . b over the last axis of integers up to 8 bits, exactly."""
    starts = range(0, a.shape[1], EXACT_TERMS)
    ends = [(s, s + EXACT_TERMS) for s in starts]
    parts = [(a[:, s:e] @ b[:, s:e].T).astype(np.float64) for s, e in ends]
    total: F64 = np.sum(parts, axis=0)
    return total


def lane_sum(rows: F32, layout: Layout | None = None) -> F32:
    """Sum [rows, 1] of [rows, n], in the order of the chip's lanes.

    Blocks of a layout, or of up to 320 lanes each, are added one after another, then lanes.
    """
    layout = layout or even(rows.shape[1], "i8")
    padded = np.zeros((len(rows), layout.total), np.float32)
    padded[:, : rows.shape[1]] = rows
    blocks = np.stack([layout.rows(row) for row in padded], axis=1)
    return group_sum(_in_order(blocks))


def group_sum(rows: F32) -> F32:
    """Sum [rows, 1] of the lanes [rows, n] of a group, as chip.kernels.lanes.reduce_groups adds.

    Lanes are paired by exclusive or, four or two at a time, as often as 2 divides n; then, for each
    odd factor, as many parts are added beginning at each of them: the largest of these sums counts.
    """
    count, size = rows.shape
    power, step = size & -size, 1
    while step < power:
        copies = 4 if step * 4 <= power else 2
        rows = _pairwise(list(np.moveaxis(rows.reshape(count, -1, copies), 2, 0)))
        step *= copies
    for factor in ODD_FACTORS:
        while rows.shape[1] % factor == 0:
            parts = rows.reshape(count, factor, -1)
            turned = (np.roll(parts, -first, axis=1) for first in range(factor))
            rows = np.max([_pairwise(list(np.moveaxis(t, 1, 0))) for t in turned], axis=0)
    return rows


def _pairwise(parts: list[F32]) -> F32:
    """The sum of neighbours, of neighbouring sums and so on; an odd one waits."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [a + b for a, b in pairs] + (parts[-1:] if len(parts) % 2 else [])
    return parts[0]


def dot_fp16(a: F32, b: F32) -> F32:
    """a @ b of fp16 values, summed in float64 (as good as exactly) and rounded once."""
    result: F32 = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    return result


def dot_by_blocks(weights: F32, values: F32) -> F32:
    """weights @ values [.., tokens, width] of fp16 values: blocks of 320 tokens one by one."""
    starts = range(0, weights.shape[-1], LANES)
    blocks = [(weights[..., s : s + LANES], values[..., s : s + LANES, :]) for s in starts]
    return _in_order([dot_fp16(*block) for block in blocks])


def fp16(x: F32) -> F32:
    """x rounded to fp16, as float32."""
    return x.astype(np.float16).astype(np.float32)


def _in_order(parts: "list[F32] | F32") -> F32:
    """The sum of parts, one after another."""
    total: F32 = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
