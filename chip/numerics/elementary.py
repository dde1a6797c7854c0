"""The VXM functions in NumPy: the definition that `chip.numerics.loops` compiles, bit for bit.

Only IEEE basic operations and operations on bits are used, each written as one NumPy call.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.numerics.exact import NAN, NAN16, Float16, Float32, Float64

STEPS = 64  # exp is tabulated at multiples of ln 2 / 64
PER_STEP = float.fromhex("0x1.71547652b82fep+6")  # 64 / ln 2
STEP = float.fromhex("0x1.62e42fefa39efp-7")  # ln 2 / 64
LEAST, MOST = -105.0, 90.0  # fp32 exp is 0 and inf beyond
TANH_SERIES = (62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0)  # of x**9 to x**3
TANH_NEAR, TANH_FAR = 0.125, 20.0  # the series serves below, 1 above
MAGIC = 1.5 * 2.0**52  # adding it rounds to an integer, in the lowest bits


def _powers() -> npt.NDArray[np.int64]:
    """Return 2**(i/64) for i < 64 as float64 bits, from square roots of two alone."""
    table = np.ones(STEPS)
    root = np.float64(2.0)
    for bit in (32, 16, 8, 4, 2, 1):
        root = np.sqrt(root)
        table[(np.arange(STEPS) & bit) != 0] *= root
    return table.view(np.int64)


POWERS = _powers()


def exp(x: Float32) -> Float32:
    """Return e**x."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        # Beyond these bounds fp32 has only 0 and inf; minimum and maximum pass NaN on.
        wide = np.minimum(np.maximum(x, np.float32(LEAST)), np.float32(MOST)).astype(np.float64)
        return canonical(exp64(wide).astype(np.float32))


def exp64(x: Float64) -> Float64:
    """Return e**x for |x| < 600; relative error below 2**-34."""
    shifted = x * PER_STEP
    shifted += MAGIC
    steps = shifted.view(np.int64)
    rest = shifted - MAGIC
    rest *= -STEP
    rest += x  # at most ln 2 / 128: rest**4 / 24 is below 2**-34
    out = rest * (1.0 / 6.0)
    for coefficient in (0.5, 1.0):
        out += coefficient
        out *= rest
    out += 1.0
    scale = POWERS.take(steps & (STEPS - 1))
    steps >>= 6
    steps <<= 52
    scale += steps
    out *= scale.view(np.float64)
    return out


def tanh(x: Float32) -> Float32:
    """Return the hyperbolic tangent."""
    with np.errstate(under="ignore", invalid="ignore"):
        wide = x.astype(np.float64)
        size = np.minimum(np.abs(wide), TANH_FAR)
        decay = exp64(size * -2.0)
        square = size * size
        # Near zero 1 - decay cancels: the odd series to x**9 there.
        series = square * TANH_SERIES[0]
        for coefficient in TANH_SERIES[1:]:
            series += coefficient
            series *= square
        series *= size
        series += size
        ratio = (1.0 - decay) / (1.0 + decay)
        out = np.where(size < TANH_NEAR, series, ratio)
        return canonical(np.copysign(out, wide).astype(np.float32))


def rsqrt(x: Float32) -> Float32:
    """Return 1 / sqrt(x)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return canonical((1.0 / np.sqrt(x.astype(np.float64))).astype(np.float32))


def reciprocal(x: Float32) -> Float32:
    """Return 1 / x."""
    with np.errstate(all="ignore"):
        return canonical(np.divide(np.float32(1.0), x))


def to_fp16(x: Float32) -> Float16:
    """Round to nearest even; overflow gives infinity."""
    with np.errstate(over="ignore", under="ignore"):
        out = x.astype(np.float16)
    unordered = np.isnan(x)
    if unordered.any():
        out[unordered] = NAN16
    return out


def canonical(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `x` with every NaN as 0x7fc00000 or 0x7e00, in place; integers as they are.

    Hosts differ in the sign and payload of a NaN.
    """
    out = np.asarray(x)
    if out.dtype.kind == "f" and (unordered := np.isnan(out)).any():
        out[unordered] = NAN if out.dtype == np.float32 else NAN16
    return out
