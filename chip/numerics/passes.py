"""The loops of array passes, compiled into the kernels of `chip.numerics.compiled`.

The order of a float64 sum varies with the host's vector length, the results may not: see
`chip.numerics.fp16`. A few weight rows at a time are widened into the L1 cache and multiplied
there, so that the stream from memory overlaps arithmetic.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics.backend import EXACT_UNITS, GRAIN, error_factor
from chip.numerics.exact import NAN
from chip.numerics.vectors import dots8, dots16, widen16

ROWS = 4  # weight rows multiplied together share the loads of x
LANES, UNIT, PEAK, NORMS = range(4)  # statistics of a tile: see _measure
_ERROR_AT_ZERO, _ERROR_PER_LANE = error_factor(0), error_factor(1) - error_factor(0)

widen16_rows, widen16_one = widen16(ROWS), widen16(1)
dots16_rows, dots16_one = dots16(ROWS), dots16(1)
dots8_rows, dots8_one = dots8(ROWS), dots8(1)


def _measure_row(bits: Any, floats: Any, seen: Any) -> Any:
    """Return the 2-norm of a row, infinite if a value is not finite, and its least magnitude - 1.

    Zero magnitudes wrap around to the largest, as in `backend.unit16`. Lanes that are not zero
    are marked in `seen`. Two loops, so that each fills its own kind of vector.
    """
    least, most = np.uint16(0xFFFF), np.uint16(0)
    for i in range(len(bits)):
        magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
        least = min(least, np.uint16(magnitude - np.uint16(1)))
        most = max(most, magnitude)
        seen[i] |= magnitude
    total = 0.0
    for i in range(len(bits)):
        total += np.float64(floats[i]) * np.float64(floats[i])
    return (np.inf if most >= 0x7C00 else np.sqrt(total)), np.int64(least)


def _unit(least: Any) -> Any:
    exponent = max((least + 1) >> 10, 1) - 25
    return np.int64((exponent + 1023) << 52).view(np.float64)


def _measure(w: Any, stats: Any) -> None:
    """Fill the statistics of each tile: used lanes, unit, largest norm, norm of each column."""
    lanes = w.shape[2]
    floats = np.empty(lanes, np.float32)
    for t in range(w.shape[0]):
        seen = np.zeros(lanes, np.uint16)
        least, stats[t, PEAK] = np.int64(0xFFFF), 0.0
        for n in range(w.shape[1]):
            widen16_one(w, (t * w.shape[1] + n) * lanes, lanes, floats, lanes)
            norm, row_least = measure_row(w[t, n], floats, seen)
            least = min(least, row_least)
            stats[t, NORMS + n] = norm
            stats[t, PEAK] = max(stats[t, PEAK], norm)
        stats[t, UNIT] = unit(least)
        used = 1
        for i in range(lanes):
            used = i + 1 if seen[i] else used
        stats[t, LANES] = -(-used // GRAIN) * GRAIN


def _activations(x: Any, stats: Any, wide: Any) -> None:
    """Convert x to float64. After each row: its norm, and below which |x| |w| sums are exact."""
    batch, lanes = x.shape[1], x.shape[2]
    floats, seen = np.empty(lanes, np.float32), np.zeros(lanes, np.uint16)
    for t in range(x.shape[0]):
        for m in range(batch):
            widen16_one(x, (t * batch + m) * lanes, lanes, floats, lanes)
            wide[t, m, lanes], least = measure_row(x[t, m], floats, seen)
            wide[t, m, lanes + 1] = EXACT_UNITS * stats[t, UNIT] * unit(least)
            for i in range(lanes):
                wide[t, m, i] = floats[i]


def _columns(w: Any, stats: Any, x: Any, out: Any, first: Any, last: Any) -> Any:
    """Compute columns first to last, numbered through all tiles; count the doubtful results."""
    batch, stride = x.shape[1], w.shape[2]
    floats = np.empty(ROWS * stride, np.float32)
    doubles = np.empty(ROWS * stride if batch > 1 else 0, np.float64)
    sums = np.empty(ROWS, np.float64)
    count = 0
    for t in range(w.shape[0]):
        before = t * w.shape[1]
        n, end = max(first - before, 0), min(last - before, w.shape[1])
        used = np.int64(stats[t, LANES])
        while n < end:
            rows = ROWS if n + ROWS <= end else 1
            if rows == 1:
                widen16_one(w, (before + n) * stride, stride, floats, used)
            else:
                widen16_rows(w, (before + n) * stride, stride, floats, used)
            if batch > 1:  # widen once for all rows of x
                for i in range(rows * used):
                    doubles[i] = floats[i]
            for m in range(batch):
                place = (t * batch + m) * (stride + 2)
                if rows == 1:
                    dots16_one(floats, x, place, used, sums)
                elif batch > 1:
                    dots16_rows(doubles, x, place, used, sums)
                else:
                    dots16_rows(floats, x, place, used, sums)
                for r in range(rows):
                    out[t, m, n + r] = sums[r]
                x_norm, limit = x[t, m, stride], x[t, m, stride + 1]
                if not x_norm * stats[t, PEAK] < limit:
                    norms = stats[t, NORMS + n : NORMS + n + rows]
                    count += mark(sums, norms, x_norm, limit, used, out[t, m, n:])
            n += rows
    return count


def _mark(sums: Any, norms: Any, x_norm: Any, limit: Any, lanes: Any, out: Any) -> Any:
    """Make NaN of the sums that may round otherwise than the exact one; return how many."""
    count = 0
    for r in range(len(norms)):
        bound = x_norm * norms[r]
        error = bound * (_ERROR_AT_ZERO + lanes * _ERROR_PER_LANE)
        same = np.float32(sums[r] - error) == np.float32(sums[r] + error)
        if not (bound < limit or same):
            out[r] = NAN
            count += 1
    return count


def _columns8(w: Any, lanes: Any, x: Any, out: Any, first: Any, last: Any) -> None:
    batch, stride = x.shape[1], w.shape[2]
    sums = np.empty(ROWS, np.int32)
    for t in range(w.shape[0]):
        before = t * w.shape[1]
        n, end = max(first - before, 0), min(last - before, w.shape[1])
        while n < end:
            rows = ROWS if n + ROWS <= end else 1
            row = (before + n) * stride
            for m in range(batch):
                place = (t * batch + m) * stride
                if rows == 1:
                    dots8_one(w, row, stride, x, place, lanes[t], sums)
                else:
                    dots8_rows(w, row, stride, x, place, lanes[t], sums)
                for r in range(rows):
                    out[t, m, n + r] = sums[r]
            n += rows


# Only measure_row needs, and may, sum in another order than written.
measure_row = numba.njit(nogil=True, fastmath={"reassoc", "contract"})(_measure_row)
unit, mark, measure, activations, columns, columns8 = (
    numba.njit(nogil=True)(function)
    for function in (_unit, _mark, _measure, _activations, _columns, _columns8)
)
