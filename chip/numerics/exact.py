"""Exact sums of fp16 products, in integers: the referee of the fast paths.

A finite fp16 number is m * 2**(s - 24) with m < 2**11 and 0 <= s < 30, so a product is an integer
below 2**22 shifted left by less than 59, in units of 2**-48. A sum of up to 512 of them is held in
two int64 words, `high * 2**29 + low`, exactly. It is below 2**42 and, when not zero, at least
2**-48, so an fp32 result of finite inputs never overflows and is never subnormal.
"""

import numpy as np
import numpy.typing as npt

Bits16 = npt.NDArray[np.uint16]
Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAX_LANES = 512  # the widest chip that a specification may describe
NAN = np.uint32(0x7FC00000).view(np.float32)
NAN16 = np.uint16(0x7E00).view(np.float16)

SPLIT = 29  # bits of the low word
_CHUNK = 1024


def exact_dots(x: Bits16, w: Bits16) -> Float32:
    """Sum x[d] * w[d] over lanes for each pair d of [D, lanes] fp16 bits, rounded once to fp32.

    Ties go to even and an exact zero is +0. A NaN, inf * 0 or inf - inf gives the canonical NaN
    (0x7fc00000); any other infinity gives that infinity.
    """
    out = np.empty(len(x), np.float32)
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = _finite_dots(x[part], w[part])
        special = (((x[part] & 0x7C00) == 0x7C00) | ((w[part] & 0x7C00) == 0x7C00)).any(axis=1)
        if special.any():
            out[part][special] = _special_dots(x[part][special], w[part][special])
    return out


def _finite_dots(x: Bits16, w: Bits16) -> Float32:
    x_integer, x_shift = _integers(x)
    w_integer, w_shift = _integers(w)
    product, shift = x_integer * w_integer, x_shift + w_shift
    is_low = shift < SPLIT
    product <<= np.where(is_low, shift, shift - SPLIT)
    low = np.where(is_low, product, 0).sum(axis=1)
    high = np.where(is_low, 0, product).sum(axis=1)
    return _rounded(high, low)


def _integers(bits: Bits16) -> tuple[Int64, Int64]:
    """Split fp16 bits into signed integers and left shifts, in units of 2**-24."""
    exponent = ((bits >> 10) & 31).astype(np.int64)
    integer = (bits & 0x3FF).astype(np.int64)
    integer |= (exponent > 0).astype(np.int64) << 10
    return np.where(bits >> 15, -integer, integer), np.maximum(exponent, 1) - 1


def _rounded(high: Int64, low: Int64) -> Float32:
    """Round (high * 2**29 + low) * 2**-48 to fp32, nearest even."""
    mask = (1 << SPLIT) - 1
    high, low = high + (low >> SPLIT), low & mask
    negative = high < 0
    borrow = (low != 0).astype(np.int64)
    high, low = np.where(negative, -high - borrow, high), np.where(negative, -low & mask, low)
    # Below 2**53 the integer is a float64, rounded once by the cast. Above, high has 25 bits or
    # more: with the sticky bit of low appended, the int64 cast rounds as the whole would.
    small = (((high & 0xFFFFFF) << SPLIT) | low).astype(np.float64) * 2.0**-48
    large = ((high << 1) | (low != 0)).astype(np.float32) * np.float32(2.0 ** (SPLIT - 1 - 48))
    magnitude = np.where(high < 1 << 24, small.astype(np.float32), large)
    return np.where(negative, -magnitude, magnitude)


def _special_dots(x: Bits16, w: Bits16) -> Float32:
    """Sum rows that hold a NaN or an infinity: the finite products cannot matter."""
    with np.errstate(invalid="ignore"):
        product = x.view(np.float16).astype(np.float64) * w.view(np.float16).astype(np.float64)
    up, down = (product == np.inf).any(axis=1), (product == -np.inf).any(axis=1)
    invalid = np.isnan(product).any(axis=1) | (up & down)
    return np.where(invalid, NAN, np.where(up, np.float32(np.inf), np.float32(-np.inf)))
