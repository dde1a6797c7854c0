"""Rows of x as products want them: in float64, or as int8 in the order of a word's lanes.

A row is written once for all words that meet it. Behind an fp16 row stands a `Row`: what products
need to know of it. Lanes before its first and behind its last that is not zero are not multiplied;
`chip.jit.words` says why that is the same.
"""

import functools

import numpy as np

from chip.jit.cache import address
from chip.jit.columns16 import extremes16, widen_row
from chip.jit.halves import widen16
from chip.jit.layout import FP16, GRAIN, x_bytes
from chip.jit.memory import (
    INT,
    doubles_at,
    halves_at,
    inner,
    row_at,
    words_at,
)
from chip.jit.vectors import DOT_OF_BYTES, any_set
from chip.numerics.products import EXACT_UNITS

_any_lane = any_set(16, 0x7FFF, 1)
bytes_of_x = inner(x_bytes)


@inner
def unit_of(least: int) -> float:
    """`products.least_unit` of a least magnitude, less one as there, that wrapped around."""
    exponent = max((least + 1) >> 10, 1) - 25
    unit: float = np.int64((exponent + 1023) << 52).view(np.float64)
    return unit


def spread16(a: int, target: int, lanes: int) -> int:
    """Write fp16 lanes as float64, and the `Row` behind them.

    Of a row with one finite lane that is not zero, only this lane is written.
    """
    bits, out = halves_at(a, lanes), doubles_at(target, lanes)
    row = row_at(target + 8 * lanes)
    first, end = lanes, 0
    for start in range(0, lanes, GRAIN):
        if _any_lane(a + 2 * start):
            first, end = (start if first == lanes else first), start + GRAIN
    if end == 0:
        first = 0
    row.first, row.count, row.only, row.diagonal = first, end - first, -1, 1
    if end == first + GRAIN:
        occupied, lane = 0, 0
        for i in range(first, end):
            if bits[i] & np.uint16(0x7FFF):
                occupied, lane = occupied + 1, i
        if occupied == 1 and (bits[lane] & np.uint16(0x7FFF)) < np.uint16(0x7C00):
            row.only, out[lane] = lane, widen16(bits[lane])
            return 0
    found = extremes16(a, lanes)
    # Squares are added in whatever order: `EXACT_UNITS` and `error_factor` have slack for that.
    squares = widen_row(a, target, lanes)
    row.norm = np.inf if found & 0xFFFF >= 0x7C00 else np.sqrt(squares)
    row.limit = EXACT_UNITS * unit_of(found >> 16)
    return 0


@inner
def find_diagonals(x: int, rows: int, lanes: int) -> None:
    """Note behind each row of x how many rows from it on have one lane each, one after another."""
    after, run = -1, 0
    for number in range(rows - 1, -1, -1):
        row = row_at(x + number * bytes_of_x(FP16, lanes) + 8 * lanes)
        run = run + 1 if 0 <= row.only == after - 1 else 1
        after, row.diagonal = row.only, run


def spread8(a: int, target: int, lanes: int) -> int:
    """Write int8 lanes by fours, each four times: for four columns.

    As bytes that are 128 more where the host multiplies bytes, else as int16: even and odd lanes of
    eight apart.
    """
    fours, out = words_at(a, lanes // 4), words_at(target, 2 * lanes)
    if DOT_OF_BYTES:
        for block in range(lanes // 4):
            for column in range(4):
                out[4 * block + column] = fours[block] ^ np.uint32(0x80808080)
    else:
        for block in range(lanes // 4):
            first = 16 * (block // 2) + 4 * (block % 2)
            for odd in range(2):
                low = np.uint32((fours[block] >> np.uint32(8 * odd)) & np.uint32(0x00FF00FF))
                signs = np.uint32((low << np.uint32(1)) & np.uint32(0x01000100))
                pair = np.uint32(low | np.uint32(signs * np.uint32(0xFF)))
                for column in range(4):
                    out[first + 8 * odd + column] = pair
    return 0


@functools.cache
def spreader(format: int) -> int:
    """The address of what brings a row of x of a format in shape: (a, target, lanes)."""
    return address(spread16 if format == FP16 else spread8, INT(INT, INT, INT))
