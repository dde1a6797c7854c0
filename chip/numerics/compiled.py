"""Array passes compiled by numba: weights are read as they are stored, as fp16 bits or int8.

The order of a float64 sum varies with the host's vector length, the results may not: see
`chip.numerics.fp16`. A few weight rows at a time are widened into the L1 cache and multiplied
there, so that the stream from memory overlaps arithmetic. Kernels are cached on disk beside this
file, for each kind of processor.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from chip.numerics import loops
from chip.numerics.backend import (
    EXACT_UNITS,
    GRAIN,
    Functions,
    Int8,
    Int32,
    error_factor,
    used_lanes,
)
from chip.numerics.exact import NAN, Bits16, Float32, Float64, Int64
from chip.numerics.vectors import dots8, dots16, widen16

types: Any = numba.types
config: Any = numba.config
_ROWS = 4  # weight rows multiplied together share the loads of x
_PART_BYTES = 1 << 16  # what one thread takes at least: starting it costs a few microseconds
_ERROR_AT_ZERO, _ERROR_PER_LANE = error_factor(0), error_factor(1) - error_factor(0)

_LANES, _UNIT, _PEAK, _NORMS = range(4)  # statistics of a tile: see _measure
widen16_rows, widen16_one = widen16(_ROWS), widen16(1)
dots16_rows, dots16_one = dots16(_ROWS), dots16(1)
dots8_rows, dots8_one = dots8(_ROWS), dots8(1)


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
        least, stats[t, _PEAK] = np.int64(0xFFFF), 0.0
        for n in range(w.shape[1]):
            widen16_one(w, (t * w.shape[1] + n) * lanes, lanes, floats, lanes)
            norm, row_least = measure_row(w[t, n], floats, seen)
            least = min(least, row_least)
            stats[t, _NORMS + n] = norm
            stats[t, _PEAK] = max(stats[t, _PEAK], norm)
        stats[t, _UNIT] = unit(least)
        used = lanes
        while used > GRAIN and not seen[used - GRAIN : used].any():
            used -= GRAIN
        stats[t, _LANES] = used


def _activations(x: Any, stats: Any, wide: Any, norms: Any, limits: Any) -> None:
    """Convert x to float64, measure its rows, and say below which |x| |w| their sums are exact."""
    floats, seen = np.empty(x.shape[2], np.float32), np.zeros(x.shape[2], np.uint16)
    for t in range(x.shape[0]):
        for m in range(x.shape[1]):
            widen16_one(x, (t * x.shape[1] + m) * x.shape[2], x.shape[2], floats, x.shape[2])
            norms[t, m], least = measure_row(x[t, m], floats, seen)
            limits[t, m] = EXACT_UNITS * stats[t, _UNIT] * unit(least)
            for i in range(x.shape[2]):
                wide[t, m, i] = floats[i]


def _columns(
    w: Any, stats: Any, x: Any, x_norms: Any, limits: Any, out: Any, first: Any, last: Any
) -> Any:
    """Compute columns first to last, numbered through all tiles; count the doubtful results."""
    batch, stride = x.shape[1], w.shape[2]
    floats = np.empty(_ROWS * stride, np.float32)
    doubles = np.empty(_ROWS * stride if batch > 1 else 0, np.float64)
    sums = np.empty(_ROWS, np.float64)
    count = 0
    for t in range(w.shape[0]):
        before = t * w.shape[1]
        n, end = max(first - before, 0), min(last - before, w.shape[1])
        used = np.int64(stats[t, _LANES])
        while n < end:
            rows = _ROWS if n + _ROWS <= end else 1
            if rows == 1:
                widen16_one(w, (before + n) * stride, stride, floats, used)
            else:
                widen16_rows(w, (before + n) * stride, stride, floats, used)
            if batch > 1:  # widen once for all rows of x
                for i in range(rows * used):
                    doubles[i] = floats[i]
            for m in range(batch):
                place = (t * batch + m) * stride
                if rows == 1:
                    dots16_one(floats, x, place, used, sums)
                elif batch > 1:
                    dots16_rows(doubles, x, place, used, sums)
                else:
                    dots16_rows(floats, x, place, used, sums)
                for r in range(rows):
                    out[t, m, n + r] = sums[r]
                x_norm, limit = x_norms[t, m], limits[t, m]
                if not x_norm * stats[t, _PEAK] < limit:
                    norms = stats[t, _NORMS + n : _NORMS + n + rows]
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


def _dot16_serial(w: Any, stats: Any, x: Any, out: Any) -> Any:
    wide = np.empty((x.shape[0], x.shape[1], w.shape[2]))
    x_norms, limits = np.empty(x.shape[:2]), np.empty(x.shape[:2])
    activations(x, stats, wide, x_norms, limits)
    return columns(w, stats, wide, x_norms, limits, out, 0, w.shape[0] * w.shape[1])


def _dot16_parallel(w: Any, stats: Any, x: Any, out: Any, parts: Any) -> Any:
    wide = np.empty((x.shape[0], x.shape[1], w.shape[2]))
    x_norms, limits = np.empty(x.shape[:2]), np.empty(x.shape[:2])
    activations(x, stats, wide, x_norms, limits)
    total = w.shape[0] * w.shape[1]
    step = -(-total // (parts * _ROWS)) * _ROWS
    count = 0
    for part in numba.prange(parts):
        last = min((part + 1) * step, total)
        count += columns(w, stats, wide, x_norms, limits, out, part * step, last)
    return count


def _columns8(w: Any, lanes: Any, x: Any, out: Any, first: Any, last: Any) -> None:
    batch, stride = x.shape[1], w.shape[2]
    sums = np.empty(_ROWS, np.int32)
    for t in range(w.shape[0]):
        before = t * w.shape[1]
        n, end = max(first - before, 0), min(last - before, w.shape[1])
        while n < end:
            rows = _ROWS if n + _ROWS <= end else 1
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


def _dot8_serial(w: Any, lanes: Any, x: Any, out: Any) -> None:
    columns8(w, lanes, x, out, 0, w.shape[0] * w.shape[1])


def _dot8_parallel(w: Any, lanes: Any, x: Any, out: Any, parts: Any) -> None:
    total = w.shape[0] * w.shape[1]
    step = -(-total // (parts * _ROWS)) * _ROWS
    for part in numba.prange(parts):
        columns8(w, lanes, x, out, part * step, min((part + 1) * step, total))


# The parts of the kernels; only measure_row needs, and may, sum in another order than written.
measure_row = numba.njit(nogil=True, fastmath={"reassoc", "contract"})(_measure_row)
unit = numba.njit(nogil=True)(_unit)
mark = numba.njit(nogil=True)(_mark)
activations = numba.njit(nogil=True)(_activations)
columns = numba.njit(nogil=True)(_columns)
columns8 = numba.njit(nogil=True)(_columns8)


def _kernel(function: Any, result: Any, *arguments: Any, parallel: bool = False) -> Any:
    signature = result(*arguments, types.int64) if parallel else result(*arguments)
    return numba.njit(signature, nogil=True, cache=True, parallel=parallel)(function)


def _array(element: Any, dimensions: int, writable: bool = True) -> Any:
    return types.Array(element, dimensions, "C", readonly=not writable)


_stats, _lanes = _array(types.float64, 2), _array(types.int64, 1)
_bits, _bytes = _array(types.uint16, 3, writable=False), _array(types.int8, 3, writable=False)
_arguments16 = (_bits, _stats, _bits, _array(types.float32, 3))
_arguments8 = (_bytes, _lanes, _array(types.int16, 3), _array(types.int32, 3))

_measure_kernel = _kernel(_measure, types.void, _bits, _stats)
_serial16 = _kernel(_dot16_serial, types.int64, *_arguments16)
_parallel16 = _kernel(_dot16_parallel, types.int64, *_arguments16, parallel=True)
_serial8 = _kernel(_dot8_serial, types.void, *_arguments8)
_parallel8 = _kernel(_dot8_parallel, types.void, *_arguments8, parallel=True)


@dataclass(frozen=True, slots=True)
class _Block:
    weights: Bits16
    stats: Float64

    @property
    def nbytes(self) -> int:
        return self.weights.nbytes + self.stats.nbytes

    def bits(self, tiles: Int64, columns: Int64) -> Bits16:
        return self.weights[tiles, columns]


class CompiledBackend:
    """Weights as stored; both threads on large blocks, unless another call has them already."""

    name = "compiled"
    functions: Functions = loops

    def __init__(self) -> None:
        # One parallel region at a time: not every threading layer of numba allows more.
        self._threads = threading.Lock()
        self._max_parts = int(config.NUMBA_NUM_THREADS)

    def prepare16(self, bits: Bits16) -> _Block:
        tiles, columns, _ = bits.shape
        stats = np.empty((tiles, _NORMS + columns))
        _measure_kernel(bits, stats)
        return _Block(bits, stats)

    def dot16(self, block: _Block, x: Bits16) -> tuple[Float32, bool]:
        w = block.weights
        out = np.empty((len(w), x.shape[1], w.shape[1]), np.float32)
        count = self._run(_serial16, _parallel16, w.nbytes * x.shape[1], w, block.stats, x, out)
        return out, count > 0

    def prepare8(self, weights: Int8) -> tuple[Int8, Int64]:
        return weights, np.array([used_lanes(tile) for tile in weights], np.int64)

    def dot8(self, block: tuple[Int8, Int64], x: Int8) -> Int32:
        weights, lanes = block
        out = np.empty((weights.shape[0], x.shape[1], weights.shape[1]), np.int32)
        work_bytes = weights.nbytes * x.shape[1]
        self._run(_serial8, _parallel8, work_bytes, weights, lanes, x.astype(np.int16), out)
        return out

    def _run(self, serial: Any, parallel: Any, work_bytes: int, *arguments: Any) -> Any:
        parts = min(self._max_parts, work_bytes // _PART_BYTES)
        if parts < 2 or not self._threads.acquire(blocking=False):
            return serial(*arguments)
        try:
            return parallel(*arguments, parts)
        finally:
            self._threads.release()
