"""Rows of x as products want them, compiled: in float64 or int16, in the order of a word's lanes.

A row is written once for all words that meet it. Behind an fp16 row stands what the products need
to know of it; lanes before its first and behind its last that is not zero are never multiplied.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.backend import EXACT_UNITS, GRAIN
from chip.numerics.lane_vectors import twice
from chip.numerics.passes import unit
from chip.numerics.team import pointer
from chip.numerics.vectors import widen16
from chip.numerics.word_vectors import DOT_OF_BYTES

carray: Any = vars(numba)["carray"]
_widen_row, _twice = widen16(1), twice()


def _about_x(row: Any, lanes: Any) -> Any:
    """Return what stands behind a row: norm, unit, first lane, number of lanes, the only one."""
    return carray(pointer(row + 16 * lanes), (code.X_ABOUT,), np.float64)


def _span(bits: Any, lanes: Any) -> Any:
    """Return the first lane and the number of lanes, in whole grains, that hold all but zeros."""
    first, last = lanes, 0
    for grain in range(0, lanes, GRAIN):
        seen = np.uint16(0)
        for i in range(grain, grain + GRAIN):
            seen |= bits[i]
        if seen & np.uint16(0x7FFF):
            first, last = min(first, grain), grain + GRAIN
    return min(first, last), max(last - first, 0)


def _only(bits: Any, first: Any, count: Any) -> Any:
    """Return the one lane of a span that is not zero, or -1 if there are others."""
    lane = -1
    if count == GRAIN:
        for i in range(first, first + count):
            if bits[i] & np.uint16(0x7FFF):
                if lane >= 0:
                    return -1
                lane = i
    return lane


def _spread16(row: Any, floats: Any, target: Any, lanes: Any) -> None:
    """Write fp16 lanes twice each as float64; behind them `about_x`.

    Of a row with one lane that is not zero, only its grain is written.
    """
    bits = carray(pointer(row), (lanes,), np.uint16)
    out = carray(pointer(target), (2 * lanes,), np.float64)
    first, count = span(bits, lanes)
    least, most = np.uint16(0xFFFF), np.uint16(0)
    for i in range(first, first + count):
        magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
        least = min(least, np.uint16(magnitude - np.uint16(1)))
        most = max(most, magnitude)
    lane = only(bits, first, count) if most < 0x7C00 else -1
    if lane < 0:
        out[: 2 * first] = 0.0
        out[2 * (first + count) :] = 0.0
    _widen_row(bits, first, lanes, floats, count)
    _twice(target + 16 * first, floats.ctypes.data, count)
    about = about_x(target, lanes)
    about[code.X_NORM] = np.inf if most >= 0x7C00 else norm(floats, count)
    about[code.X_UNIT] = EXACT_UNITS * unit(np.int64(least))
    about[code.X_FIRST], about[code.X_COUNT], about[code.X_ONLY] = first, count, lane


def _norm(floats: Any, lanes: Any) -> Any:
    total = 0.0
    for i in range(lanes):
        total += np.float64(floats[i]) * np.float64(floats[i])
    return np.sqrt(total)


def _spread8(row: Any, target: Any, lanes: Any) -> None:
    """Write int8 lanes as int16, by fours, each four times: for four columns."""
    values = carray(pointer(row), (lanes,), np.int8)
    out = carray(pointer(target), (4 * lanes,), np.int16)
    for block in range(lanes // 4):
        for column in range(4):
            for i in range(4):
                out[16 * block + 4 * column + i] = values[4 * block + i]


def _spread8_bytes(row: Any, target: Any, lanes: Any) -> None:
    """Write int8 lanes as bytes from 0 to 255, by fours, each four times: for four columns."""
    fours = carray(pointer(row), (lanes // 4,), np.uint32)
    out = carray(pointer(target), (lanes,), np.uint32)
    for block in range(lanes // 4):
        for column in range(4):
            out[4 * block + column] = fours[block] ^ np.uint32(0x80808080)


def _x_bytes(fp16: Any, lanes: Any) -> Any:
    return 8 * (2 * lanes + code.X_ABOUT) if fp16 else 8 * lanes


norm = numba.njit(nogil=True, fastmath={"reassoc", "contract"})(_norm)
about_x, span, only, x_bytes = (
    numba.njit(nogil=True)(function) for function in (_about_x, _span, _only, _x_bytes)
)
spread16 = numba.njit(nogil=True)(_spread16)
spread8 = numba.njit(nogil=True)(_spread8_bytes if DOT_OF_BYTES else _spread8)
