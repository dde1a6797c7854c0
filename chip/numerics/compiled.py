"""Array passes compiled by numba: weights are read as they are stored, as fp16 bits or int8.

The order of a float64 sum varies with the host's vector length, the results may not: see
`chip.numerics.fp16`. A few weight rows at a time are widened into the L1 cache and multiplied
there, so that the stream from memory overlaps arithmetic. Kernels are cached on disk beside this
file, for each kind of processor.
"""

import threading

import numba
import numpy as np
import numpy.typing as npt
from numba.types import Array, boolean, float32, float64, int8, int16, int32, int64, uint16

from chip.numerics.backend import EXACT_UNITS, Block16, Doubtful, Int8, Int32, error_factor
from chip.numerics.exact import Bits16, Float32, Float64
from chip.numerics.vectors import dots8, dots16, widen16

_ROWS = 4  # weight rows multiplied together share the loads of x
_PART_BYTES = 1 << 16  # what one thread takes at least: starting it costs a few microseconds

_inner = numba.njit(nogil=True)
_reassociated = numba.njit(nogil=True, fastmath={"reassoc", "contract"})
_dots16_rows, _dots16_one = dots16(_ROWS), dots16(1)
_dots8_rows, _dots8_one = dots8(_ROWS), dots8(1)


def _measure_row(bits, floats):  # type: ignore[no-untyped-def]
    """Return the 2-norm of a row, infinite if a value is not finite, and its least magnitude - 1.

    Zero magnitudes wrap around to the largest, as in `backend.unit16`.
    """
    total, least, most = 0.0, np.uint16(0xFFFF), np.uint16(0)
    for i in range(len(bits)):
        total += np.float64(floats[i]) * np.float64(floats[i])
        magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
        least = min(least, np.uint16(magnitude - np.uint16(1)))
        most = max(most, magnitude)
    return (np.inf if most >= 0x7C00 else np.sqrt(total)), np.int64(least)


def _unit(least):  # type: ignore[no-untyped-def]
    exponent = max((least + 1) >> 10, 1) - 25
    return np.int64((exponent + 1023) << 52).view(np.float64)


measure_row = _reassociated(_measure_row)
unit = _inner(_unit)


def _measure(w, norms):  # type: ignore[no-untyped-def]
    """Fill the norms of all rows and return the unit of the whole block."""
    lanes = w.shape[1]
    floats = np.empty(lanes, np.float32)
    least = np.int64(0xFFFF)
    for n in range(w.shape[0]):
        widen16(w, n * lanes, floats, lanes)
        norms[n], row_least = measure_row(w[n], floats)
        least = min(least, row_least)
    return unit(least)


def _activations(x, lanes, wide, norms, units):  # type: ignore[no-untyped-def]
    """Convert rows of x to float64, `lanes` of them, and measure them in full."""
    floats = np.empty(x.shape[1], np.float32)
    for m in range(x.shape[0]):
        widen16(x, m * x.shape[1], floats, x.shape[1])
        norms[m], least = measure_row(x[m], floats)
        units[m] = unit(least)
        for i in range(lanes):
            wide[m, i] = floats[i]


activations = _inner(_activations)


def _settle(total, bound, limit, factor):  # type: ignore[no-untyped-def]
    """Say whether a float64 sum may round otherwise than the exact one: tests 1 and 2 of fp16."""
    error = bound * factor
    return not (bound < limit) and np.float32(total - error) != np.float32(total + error)


settle = _inner(_settle)


def _columns(w, norms, limits, x, x_norms, out, doubtful, first, last):  # type: ignore[no-untyped-def]
    """Compute out[:, first:last]; return how many results are doubtful."""
    lanes = w.shape[1]
    factor = (lanes + 8) * 2.0**-53
    floats = np.empty(_ROWS * lanes, np.float32)
    doubles = np.empty(_ROWS * lanes, np.float64)
    sums = np.empty(_ROWS, np.float64)
    count = 0
    n = first
    while n < last:
        rows = _ROWS if n + _ROWS <= last else 1
        widen16(w, n * lanes, floats, rows * lanes)
        if len(x) > 1:  # widen once for all rows of x
            for i in range(rows * lanes):
                doubles[i] = floats[i]
        for m in range(len(x)):
            if rows == 1:
                _dots16_one(floats, x, m * lanes, lanes, sums)
            elif len(x) > 1:
                _dots16_rows(doubles, x, m * lanes, lanes, sums)
            else:
                _dots16_rows(floats, x, 0, lanes, sums)
            for r in range(rows):
                out[m, n + r] = sums[r]
                unsure = settle(sums[r], x_norms[m] * norms[n + r], limits[m], factor)
                doubtful[m, n + r] = unsure
                count += unsure
        n += rows
    return count


columns = _inner(_columns)


def _dot16_serial(w, norms, unit, x, out, doubtful):  # type: ignore[no-untyped-def]
    wide = np.empty((x.shape[0], w.shape[1]))
    x_norms, limits = np.empty(x.shape[0]), np.empty(x.shape[0])
    activations(x, w.shape[1], wide, x_norms, limits)
    limits *= EXACT_UNITS * unit
    return columns(w, norms, limits, wide, x_norms, out, doubtful, 0, w.shape[0])


def _dot16_parallel(w, norms, unit, x, out, doubtful, parts):  # type: ignore[no-untyped-def]
    wide = np.empty((x.shape[0], w.shape[1]))
    x_norms, limits = np.empty(x.shape[0]), np.empty(x.shape[0])
    activations(x, w.shape[1], wide, x_norms, limits)
    for m in range(len(limits)):
        limits[m] *= EXACT_UNITS * unit
    step = -(-w.shape[0] // (parts * _ROWS)) * _ROWS
    count = 0
    for part in numba.prange(parts):
        first, last = part * step, min((part + 1) * step, w.shape[0])
        count += columns(w, norms, limits, wide, x_norms, out, doubtful, first, last)
    return count


def _columns8(w, x, out, first, last):  # type: ignore[no-untyped-def]
    sums = np.empty(_ROWS, np.int32)
    n = first
    while n < last:
        rows = _ROWS if n + _ROWS <= last else 1
        for m in range(x.shape[0]):
            if rows == 1:
                _dots8_one(w, n, x, m, w.shape[1], sums)
            else:
                _dots8_rows(w, n, x, m, w.shape[1], sums)
            for r in range(rows):
                out[m, n + r] = sums[r]
        n += rows


columns8 = _inner(_columns8)


def _dot8_serial(w, x, out):  # type: ignore[no-untyped-def]
    columns8(w, x, out, 0, w.shape[0])


def _dot8_parallel(w, x, out, parts):  # type: ignore[no-untyped-def]
    step = -(-w.shape[0] // (parts * _ROWS)) * _ROWS
    for part in numba.prange(parts):
        columns8(w, x, out, part * step, min((part + 1) * step, w.shape[0]))


def _rows(element, writable=True):  # type: ignore[no-untyped-def]
    return Array(element, 2, "C", readonly=not writable)


_vector = Array(float64, 1, "C")
_16 = (_rows(uint16, False), _vector, float64, _rows(uint16, False), _rows(float32), _rows(boolean))
_8 = (_rows(int8, False), _rows(int16), _rows(int32))
_kernel = numba.njit
_measure_kernel = numba.njit(float64(_16[0], _vector), nogil=True, cache=True)(_measure)
_serial16 = numba.njit(int64(*_16), nogil=True, cache=True)(_dot16_serial)
_parallel16 = numba.njit(int64(*_16, int64), nogil=True, cache=True, parallel=True)(_dot16_parallel)
_serial8 = numba.njit(numba.void(*_8), nogil=True, cache=True)(_dot8_serial)
_parallel8 = numba.njit(numba.void(*_8, int64), nogil=True, cache=True, parallel=True)(_dot8_parallel)


class CompiledBackend:
    """Weights as stored; both threads on large blocks, unless another call has them already."""

    name = "compiled"

    def __init__(self) -> None:
        # One parallel region at a time: not every threading layer of numba allows more.
        self._threads = threading.Lock()

    def prepare16(self, bits: Bits16) -> Block16:
        norms = np.empty(len(bits))
        return Block16(bits, norms, _measure_kernel(bits, norms))

    def dot16(self, block: Block16, x: Bits16) -> tuple[Float32, Doubtful]:
        w = block.weights
        out = np.empty((len(x), len(w)), np.float32)
        doubtful = np.empty(out.shape, np.bool_)
        parts = self._parts(w.nbytes * len(x))
        if parts > 1 and self._threads.acquire(blocking=False):
            try:
                count = _parallel16(w, block.norms, block.unit, x, out, doubtful, parts)
            finally:
                self._threads.release()
        else:
            count = _serial16(w, block.norms, block.unit, x, out, doubtful)
        return out, doubtful if count else None

    def prepare8(self, weights: Int8) -> npt.NDArray[np.int8]:
        return weights

    def dot8(self, weights: npt.NDArray[np.int8], x: Int8) -> Int32:
        out = np.empty((len(x), len(weights)), np.int32)
        wide = x.astype(np.int16)
        parts = self._parts(weights.nbytes * len(x))
        if parts > 1 and self._threads.acquire(blocking=False):
            try:
                _parallel8(weights, wide, out, parts)
            finally:
                self._threads.release()
        else:
            _serial8(weights, wide, out)
        return out

    def _parts(self, work_bytes: int) -> int:
        return min(numba.config.NUMBA_NUM_THREADS, work_bytes // _PART_BYTES)
