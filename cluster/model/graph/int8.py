"""The arithmetic of int8 weights (W8A8), bit for bit as chips compute it.

Weights are int8 with a scale for each output channel. Before each matrix, a row of activations is
scaled by its largest magnitude and rounded to int8, to nearest even; sums are exact integers. One
rounding that falls otherwise changes an int8 activation, and from there all that follows. So this
takes the numerics contract at its word: the chip's elementary functions, dot products of up to 320
terms summed exactly and rounded once, and the stated order of the sums that are not exact.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chip.kernels.lanes import LANES, ODD_FACTORS
from chip.kernels.quantise import LEVELS, SMALLEST_PEAK
from chip.kernels.layout import blocks
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

    def dot(self, x: "Int8Rows") -> F32:
        """Products [rows, out] with int8 rows: exact sums, times the row's step, then the scale."""
        sums = integer_dot(x.integers.reshape(len(x.integers), -1), self.integers)
        product: F32 = sums.astype(np.float32) * x.steps * self.scales
        return product


@dataclass(frozen=True)
class Int8Rows:
    """Activations [rows, ..] as integers, held as float32, and a step [rows, 1] for each row."""

    integers: F32
    steps: F32

    @staticmethod
    def of(x: F32, factor: F32 | None = None) -> "Int8Rows":
        """Round rows by their largest magnitude; `factor` [rows, 1] scales what they mean."""
        rows = x.reshape(len(x), -1)
        peak = np.abs(rows).max(axis=1, keepdims=True, initial=np.float32(SMALLEST_PEAK))
        inverse = reciprocal(peak) * np.float32(LEVELS)
        integers = np.clip(np.rint(rows * inverse), -128, 127).reshape(x.shape)
        steps = peak * (np.float32(1) / np.float32(LEVELS))
        return Int8Rows(integers, steps if factor is None else steps * factor)


def integer_dot(a: F32, b: F32) -> F64:
    """a . b over the last axis of integers up to 8 bits, exactly."""
    starts = range(0, a.shape[1], EXACT_TERMS)
    ends = [(s, s + EXACT_TERMS) for s in starts]
    parts = [(a[:, s:e] @ b[:, s:e].T).astype(np.float64) for s, e in ends]
    total: F64 = np.sum(parts, axis=0)
    return total


def lane_sum(rows: F32) -> F32:
    """Sum [rows, 1] of [rows, n], in the order of the chip's lanes (kernels.lanes.reduce_alike).

    Blocks of up to 320 lanes, as even as multiples of 16 allow, are added one after another; then
    lanes that differ in bits 0 and 1, in 2 and 3, in 4 and 5; then the five groups of 64 that are
    left, beginning at each of them: the largest of these sums counts.
    """
    count, total = rows.shape
    cut = blocks(total, "i8")
    lanes = np.zeros((count, cut.count, LANES), np.float32)
    padded = np.zeros((count, cut.count * cut.width), np.float32)
    padded[:, :total] = rows
    lanes[:, :, : cut.width] = padded.reshape(count, cut.count, cut.width)
    quads = _in_order(lanes.swapaxes(0, 1)).reshape(count, LANES // 64, 4, 4, 4)
    for _ in range(3):
        quads = (quads[..., 0] + quads[..., 1]) + (quads[..., 2] + quads[..., 3])
    fives = [np.roll(quads, -first, axis=1) for first in range(LANES // 64)]
    sums = [((f[:, 0] + f[:, 1]) + (f[:, 2] + f[:, 3])) + f[:, 4] for f in fives]
    largest: F32 = np.max(sums, axis=0)[:, None]
    return largest


def group_sum(rows: F32) -> F32:
    """Sum [rows, 1] of [rows, n], in the order of a group of n lanes (kernels.lanes.reduce_groups).

    Lanes whose numbers differ in a bit or two are added; then, for each odd factor of n, as many
    parts, beginning at each of them: the largest of these sums counts.
    """
    count, size = rows.shape
    power = size & -size
    sums, step = rows.reshape(count, size // power, power), 1
    while step < power:
        copies = 4 if step * 4 <= power else 2
        parts = sums.reshape(count, size // power, -1, copies)
        sums = _tree([parts[..., number] for number in range(copies)])
        step *= copies
    sums = sums[..., 0]
    for factor in ODD_FACTORS:
        while sums.shape[1] % factor == 0:
            parts = sums.reshape(count, factor, -1)
            turns = [np.roll(parts, -first, axis=1) for first in range(factor)]
            trees = [_tree([turn[:, number] for number in range(factor)]) for turn in turns]
            sums = np.max(trees, axis=0)
    return sums


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


def _tree(parts: list[F32]) -> F32:
    """The sum of parts, pair by pair; an odd one out comes last."""
    while len(parts) > 1:
        odd = parts[len(parts) & ~1 :]
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)] + odd
    return parts[0]


def _in_order(parts: "list[F32] | F32") -> F32:
    """The sum of parts, one after another."""
    total: F32 = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
