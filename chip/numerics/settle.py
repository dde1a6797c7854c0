"""`chip.numerics.exact.dot_pairs` compiled, for one pair: the exact sum of fp16 products."""

from typing import Any

import numba
import numpy as np

from chip.numerics.exact import NAN

_SPLIT = 29
_MASK = (1 << _SPLIT) - 1


def _split(bits: Any) -> Any:
    """Return a finite fp16 number as an integer and a left shift, in units of 2**-24."""
    exponent = (bits >> 10) & 31
    integer = (bits & 0x3FF) | ((1 if exponent > 0 else 0) << 10)
    return (-integer if bits >> 15 else integer), max(exponent, 1) - 1


def _rounded(high: Any, low: Any) -> Any:
    """Round (high * 2**29 + low) * 2**-48 to fp32, as `exact._rounded` does."""
    high, low = high + (low >> _SPLIT), low & _MASK
    negative = high < 0
    if negative:
        borrow = 1 if low != 0 else 0
        high, low = -high - borrow, -low & _MASK
    if high < 1 << 24:
        magnitude = np.float32(np.float64((high << _SPLIT) | low) * 2.0**-48)
    else:
        sticky = np.float32((high << 1) | (1 if low != 0 else 0))
        magnitude = np.float32(sticky * np.float32(2.0 ** (_SPLIT - 1 - 48)))
    return -magnitude if negative else magnitude


def _exact_dot(x: Any, w: Any, step: Any, lanes: Any) -> Any:
    """Return the sum of x[i] * w[i * step] over the lanes of fp16 bits, rounded once to fp32."""
    high, low = np.int64(0), np.int64(0)
    up, down, invalid = False, False, False
    for i in range(lanes):
        a, b = np.int64(x[i]), np.int64(w[i * step])
        size_a, size_b = a & 0x7FFF, b & 0x7FFF
        if size_a >= 0x7C00 or size_b >= 0x7C00:
            infinite = size_a <= 0x7C00 and size_b <= 0x7C00 and size_a != 0 and size_b != 0
            invalid = invalid or not infinite
            if infinite and (a ^ b) >> 15:
                down = True
            elif infinite:
                up = True
        else:
            a_integer, a_shift = split(a)
            b_integer, b_shift = split(b)
            product, shift = a_integer * b_integer, a_shift + b_shift
            if shift < _SPLIT:
                low += product << shift
            else:
                high += product << (shift - _SPLIT)
    if invalid or (up and down):
        return NAN
    if up or down:
        return np.float32(np.inf) if up else np.float32(-np.inf)
    return rounded(high, low)


split, rounded = (numba.njit(nogil=True)(function) for function in (_split, _rounded))
exact_dot = numba.njit(nogil=True)(_exact_dot)
