"""What exact products must know of a word of weights, compiled.

Of a word at rest it is kept until the word is written; of one that is read between two writes it
is worked out by the thread that multiplies it, for that one time.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.backend import GRAIN
from chip.numerics.half_columns import squares16
from chip.numerics.passes import unit
from chip.numerics.team import pointer

carray: Any = vars(numba)["carray"]
COLUMNS = 8  # fp16 columns of a word
_squares = squares16()
_SLACK = 1 + 2.0**-12  # for the roundings of fp32 sums: a norm may be too large, never too small


def _used(first: Any, others: Any, lanes: Any) -> Any:
    """Count the lanes up to the last that is not zero in one of four parts, by whole grains."""
    used = lanes
    while used > GRAIN:
        seen = 0
        for i in range(used - GRAIN, used):
            seen |= first[i] | others[0][i] | others[1][i] | others[2][i]
        if seen:
            break
        used -= GRAIN
    return used


def _survey(p0: Any, p1: Any, p2: Any, p3: Any, lanes: Any, fp16: Any, found: Any) -> None:
    """Fill the statistics of a word whose parts are at these addresses.

    Norms come later, by `norms`: until then the peak is -1, or infinite if one is no number.
    """
    words = carray(pointer(p0), (lanes,), np.int32)
    others = (
        carray(pointer(p1), (lanes,), np.int32),
        carray(pointer(p2), (lanes,), np.int32),
        carray(pointer(p3), (lanes,), np.int32),
    )
    used = used_lanes(words, others, lanes)
    if fp16:
        least, most = np.uint16(0xFFFF), np.uint16(0)
        for part in (p0, p1, p2, p3):
            bits = carray(pointer(part), (2 * used,), np.uint16)
            for i in range(2 * used):
                magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
                least = min(least, np.uint16(magnitude - np.uint16(1)))
                most = max(most, magnitude)
        found[code.STATS_UNIT] = unit(np.int64(least))
        found[code.STATS_PEAK] = np.inf if most >= 0x7C00 else -1.0
        for column in range(COLUMNS):
            found[code.STATS_NORMS + column] = np.inf
    found[code.STATS_LANES] = used


def _norms(p0: Any, p1: Any, p2: Any, p3: Any, found: Any) -> None:
    """Fill in the norms of the columns of a word that has been surveyed."""
    sums = found[code.STATS_NORMS :]
    _squares(p0, p1, p2, p3, np.int64(found[code.STATS_LANES]), sums.ctypes.data)
    peak = 0.0
    for column in range(COLUMNS):
        sums[column] = np.sqrt(sums[column] * _SLACK)
        peak = max(peak, sums[column])
    found[code.STATS_PEAK] = peak


used_lanes, survey, norms = (
    numba.njit(nogil=True)(function) for function in (_used, _survey, _norms)
)
