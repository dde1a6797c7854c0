"""Rows of x as products want them, compiled: in float64 or int16, in the order of a word's lanes.

A row is written once for all words that meet it. Behind an fp16 row stands what the products need
to know of it; lanes before its first and behind its last that is not zero are never multiplied.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.backend import EXACT_UNITS, GRAIN
from chip.numerics.lane_vectors import occupied
from chip.numerics.passes import unit
from chip.numerics.team import pointer
from chip.numerics.vectors import widen16
from chip.numerics.word_vectors import DOT_OF_BYTES

carray: Any = vars(numba)["carray"]
_widen_row, _occupied = widen16(1), occupied()


def _about_x(row: Any, lanes: Any) -> Any:
    """Return what stands behind a row, by the places that `opcodes` has for it."""
    return carray(pointer(row + 8 * lanes), (code.X_ABOUT,), np.float64)


def _span(masks: Any) -> Any:
    """Return the first lane and the number of lanes, in whole grains, that hold all but zeros.

    Then the only lane that is not zero, or -1 if there are others or none.
    """
    first, last, lane = len(masks), 0, -1
    for grain in range(len(masks)):
        if masks[grain]:
            first, last = min(first, grain), grain + 1
    if last == first + 1:
        mask, place = masks[first], 0
        while not mask & 1:
            mask, place = mask >> np.uint32(1), place + 1
        lane = GRAIN * first + place if mask == 1 else -1
    return GRAIN * min(first, last), GRAIN * max(last - first, 0), lane


def _spread16(row: Any, masks: Any, floats: Any, target: Any, lanes: Any) -> None:
    """Write fp16 lanes as float64; behind them `about_x`.

    Of a row with one lane that is not zero, only this lane is written.
    """
    bits, about = carray(pointer(row), (lanes,), np.uint16), about_x(target, lanes)
    _occupied(masks.ctypes.data, row, lanes)
    first, count, lane = span(masks)
    finite_lane = lane >= 0 and (bits[lane] & 0x7FFF) < 0x7C00
    about[code.X_FIRST], about[code.X_COUNT] = first, count
    about[code.X_ONLY] = lane if finite_lane else -1
    _widen_row(bits, first, lanes, floats, count)
    out = carray(pointer(target), (lanes,), np.float64)
    if finite_lane:
        out[lane] = floats[lane - first]
        return
    out[:first] = 0.0
    out[first + count :] = 0.0
    for i in range(count):
        out[first + i] = floats[i]
    least, most = np.uint16(0xFFFF), np.uint16(0)
    for i in range(first, first + count):
        magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
        least = min(least, np.uint16(magnitude - np.uint16(1)))
        most = max(most, magnitude)
    about[code.X_NORM] = np.inf if most >= 0x7C00 else norm(floats, count)
    about[code.X_UNIT] = EXACT_UNITS * unit(np.int64(least))


def _find_runs(x: Any, rows: Any, lanes: Any) -> None:
    """Note behind each row of x how many rows from it on have one lane each, one after another."""
    after, run = np.int64(-1), 0
    for number in range(rows - 1, -1, -1):
        about = about_x(x + number * x_bytes(True, lanes), lanes)
        lane = np.int64(about[code.X_ONLY])
        run = run + 1 if 0 <= lane == after - 1 else 1
        after, about[code.X_RUN] = lane, run


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
    return 8 * (lanes + code.X_ABOUT) if fp16 else 8 * lanes


norm = numba.njit(nogil=True, fastmath={"reassoc", "contract"})(_norm)
about_x, span, x_bytes = (
    numba.njit(nogil=True)(function) for function in (_about_x, _span, _x_bytes)
)
find_runs = numba.njit(nogil=True)(_find_runs)
spread16 = numba.njit(nogil=True)(_spread16)
spread8 = numba.njit(nogil=True)(_spread8_bytes if DOT_OF_BYTES else _spread8)
