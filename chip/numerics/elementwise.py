"""Point-wise arithmetic on fp32 and integers: one text, which NumPy and `chip.jit` both read.

NumPy reads it for whole arrays, which is the definition; `chip.jit` compiles it for one element
and runs it over rows. Only IEEE basic operations (+, -, *, /, sqrt) and operations on bits are
used, so both give the same bits on every host, but for NaNs, whose sign and payload differ from
host to host: what is made of these functions calls `functions.canonical`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Number = Any  # an array, or for `chip.jit` one element of it
STEPS = 64  # exp is tabulated at multiples of ln 2 / 64
PER_STEP = float.fromhex("0x1.71547652b82fep+6")  # 64 / ln 2
STEP = float.fromhex("0x1.62e42fefa39efp-7")  # ln 2 / 64
LEAST, MOST = np.float32(-105.0), np.float32(90.0)  # fp32 exp is 0 and inf beyond
# tanh near 0 is its odd series, to x**9; 1 - exp would cancel there.
SERIES_9, SERIES_7, SERIES_5, SERIES_3 = 62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0
TANH_NEAR, TANH_FAR = 0.125, 20.0  # the series serves below, 1 above
MAGIC = 1.5 * 2.0**52  # adding it rounds to an integer, in the lowest bits
ONE = np.float32(1.0)


def _powers() -> npt.NDArray[np.int64]:
    """Return 2**(i/64) for i < 64 as float64 bits, from square roots of two alone."""
    table = np.ones(STEPS)
    root = np.float64(2.0)
    for bit in (32, 16, 8, 4, 2, 1):
        root = np.sqrt(root)
        table[(np.arange(STEPS) & bit) != 0] *= root
    return table.view(np.int64)


POWERS = _powers()


def choose(condition: Number, a: Number, b: Number) -> Number:
    """a where the condition holds, else b."""
    return np.where(condition, a, b)


def maximum(a: Number, b: Number) -> Number:
    """The larger of a and b, of one type; NaN if either is, and +0 is above -0."""
    return choose((a == 0) & (b == 0), a + b, np.maximum(a, b))


def minimum(a: Number, b: Number) -> Number:
    """The smaller of a and b, of one type; NaN if either is, and -0 is below +0."""
    return choose((a == 0) & (b == 0), -(-a - b), np.minimum(a, b))


def exp64(x: Number) -> Number:
    """e**x of a float64 |x| < 600; relative error below 2**-34."""
    shifted = np.float64(x * PER_STEP + MAGIC)
    steps = shifted.view(np.int64)
    rest = (shifted - MAGIC) * -STEP + x  # at most ln 2 / 128: rest**4 / 24 is below 2**-34
    polynomial = ((rest * (1.0 / 6.0) + 0.5) * rest + 1.0) * rest + 1.0
    scale = np.int64(POWERS[steps & (STEPS - 1)] + ((steps >> 6) << 52))
    return polynomial * scale.view(np.float64)


def exp(x: Number) -> Number:
    """e**x; at most 0.501 ulp off. Overflows to inf, underflows gradually to 0."""
    # Beyond these bounds fp32 has only 0 and inf. Chosen like this NaN is passed on, and compiled
    # code does not branch as it would for minimum and maximum: 2.2 instead of 7.1 ns an element.
    above = choose(x < LEAST, LEAST, x)
    return np.float32(exp64(np.float64(choose(above > MOST, MOST, above))))


def tanh(x: Number) -> Number:
    """The hyperbolic tangent; at most 0.502 ulp off. The sign of zero is kept."""
    wide = np.float64(x)
    size = np.abs(wide)
    size = choose(size > TANH_FAR, TANH_FAR, size)
    decay = exp64(size * -2.0)
    square = size * size
    series = (((square * SERIES_9 + SERIES_7) * square + SERIES_5) * square + SERIES_3) * square
    out = choose(size < TANH_NEAR, series * size + size, (1.0 - decay) / (1.0 + decay))
    return np.float32(np.copysign(out, wide))


def rsqrt(x: Number) -> Number:
    """1 / sqrt(x); at most 0.5001 ulp off. +-0 give +-inf, negative numbers NaN."""
    return np.float32(1.0 / np.sqrt(np.float64(x)))


def reciprocal(x: Number) -> Number:
    """1 / x, correctly rounded (0.5 ulp). +-0 give +-inf."""
    return ONE / x


def nearest_i8(x: Number) -> Number:
    """fp32 to int8: to nearest even, saturating at -128 and 127; NaN becomes 0."""
    bounded = np.minimum(np.maximum(np.rint(x), np.float32(-128)), np.float32(127))
    return np.int8(choose(x == x, bounded, np.float32(0)))


def nearest_u16(x: Number) -> Number:
    """fp32 to uint16: to nearest even, saturating at 0 and 65535; NaN becomes 0."""
    bounded = np.minimum(np.maximum(np.rint(x), np.float32(0)), np.float32(65535))
    return np.uint16(choose(x == x, bounded, np.float32(0)))


def as_fp32(x: Number) -> Number:
    """The nearest fp32 number, ties to even."""
    return np.float32(x)


def magnitude(x: Number) -> Number:
    """|x|: the sign cleared."""
    return np.abs(x)
