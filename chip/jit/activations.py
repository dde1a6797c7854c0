"""Rows of x as products want them: in float64, or as int8 in the order of a word's lanes.

A row is written once for all words that meet it. Behind an fp16 row stands a `Row`: what products
need to know of it. Lanes before its first and behind its last that is not zero are not multiplied.
"""

import functools

import numpy as np

from chip.jit.cache import address
from chip.jit.layout import FP16, GRAIN, ROW
from chip.jit.memory import (
    INT,
    array_of,
    doubles_at,
    halves_at,
    in_any_order,
    inner,
    row_at,
    words_at,
)
from chip.jit.rows import widen16
from chip.jit.vectors import DOT_OF_BYTES
from chip.numerics.products import EXACT_UNITS

_ROW_BYTES = ROW.itemsize


@inner
def x_bytes(is_fp16: bool, lanes: int) -> int:
    """Bytes of a row of x, with what stands behind it."""
    return 8 * lanes + _ROW_BYTES if is_fp16 else 8 * lanes


@inner
def unit_of(least: np.int64) -> float:
    """`products.least_unit` of a least magnitude, less one as there, that wrapped around."""
    exponent = ((least + 1) >> 10 or 1) - 25
    unit: float = np.int64((exponent + 1023) << 52).view(np.float64)
    return unit


@in_any_order
def _norm(values: int, first: int, end: int) -> float:
    """The 2-norm of some float64 lanes. Any order will do: `error_factor` has slack for it."""
    lanes = doubles_at(values, end)
    total = 0.0
    for i in range(first, end):
        total += lanes[i] * lanes[i]
    norm: float = np.sqrt(total)
    return norm


def spread16(a: int, target: int, lanes: int) -> int:
    """Write fp16 lanes as float64, and the `Row` behind them.

    Of a row with one finite lane that is not zero, only this lane is written.
    """
    bits, out = halves_at(a, lanes), doubles_at(target, lanes)
    row = row_at(target + 8 * lanes)
    first, end = lanes, 0
    for start in range(0, lanes, GRAIN):
        seen = np.uint16(0)
        for i in range(start, start + GRAIN):
            seen |= bits[i]
        if seen & np.uint16(0x7FFF):
            first, end = (start if first == lanes else first), start + GRAIN
    if end == 0:
        first = 0
    row.first, row.count, row.only, row.run = first, end - first, -1, 1
    if end == first + GRAIN:
        occupied, lane = 0, 0
        for i in range(first, end):
            if bits[i] & np.uint16(0x7FFF):
                occupied, lane = occupied + 1, i
        if occupied == 1 and (bits[lane] & np.uint16(0x7FFF)) < np.uint16(0x7C00):
            row.only, out[lane] = lane, widen16(bits[lane])
            return 0
    least, most = np.uint16(0xFFFF), np.uint16(0)
    for i in range(first, end):
        magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
        below = np.uint16(magnitude - np.uint16(1))
        least, most = (below if below < least else least), (magnitude if magnitude > most else most)
    for i in range(first):
        out[i] = 0.0
    for i in range(first, end):
        out[i] = widen16(bits[i])
    for i in range(end, lanes):
        out[i] = 0.0
    row.norm = np.inf if most >= 0x7C00 else _norm(target, first, end)
    row.limit = EXACT_UNITS * unit_of(np.int64(least))
    return 0


@inner
def find_runs(x: int, rows: int, lanes: int) -> None:
    """Note behind each row of x how many rows from it on have one lane each, one after another."""
    after, run = -1, 0
    for number in range(rows - 1, -1, -1):
        row = row_at(x + number * x_bytes(True, lanes) + 8 * lanes)
        run = run + 1 if 0 <= row.only == after - 1 else 1
        after, row.run = row.only, run


_signed_at, _wide_at = array_of(np.int8), array_of(np.int16)


def spread8(a: int, target: int, lanes: int) -> int:
    """Write int8 lanes by fours, each four times: for four columns.

    As bytes that are 128 more where the host multiplies bytes, else as int16.
    """
    if DOT_OF_BYTES:
        fours, bytes_out = words_at(a, lanes // 4), words_at(target, lanes)
        for block in range(lanes // 4):
            for column in range(4):
                bytes_out[4 * block + column] = fours[block] ^ np.uint32(0x80808080)
    else:
        values, out = _signed_at(a, lanes), _wide_at(target, 4 * lanes)
        for block in range(lanes // 4):
            for column in range(4):
                for i in range(4):
                    out[16 * block + 4 * column + i] = values[4 * block + i]
    return 0


@functools.cache
def spreader(format: int) -> int:
    """The address of what brings a row of x of a format in shape: (a, target, lanes)."""
    return address(spread16 if format == FP16 else spread8, INT(INT, INT, INT))
