"""VXM functions on fp32, of any shape, with equal bits on every host.

Built from IEEE basic operations (+, -, *, /, sqrt, rounding to an integer) in float64 and from
integer operations on bits; the float64 result is rounded once to fp32. NaN results are canonical.
"""

import numpy as np
import numpy.typing as npt

from chip.numerics.exact import NAN, Float32, Float64

_STEPS = 64  # exp is tabulated at multiples of ln 2 / 64
_PER_STEP = float.fromhex("0x1.71547652b82fep+6")  # 64 / ln 2
_STEP = float.fromhex("0x1.62e42fefa39efp-7")  # ln 2 / 64
_MAGIC = 1.5 * 2.0**52  # adding it rounds to an integer, in the lowest bits


def _powers() -> npt.NDArray[np.int64]:
    """Return 2**(i/64) for i < 64 as float64 bits, from square roots of two alone."""
    table = np.ones(_STEPS)
    root = np.float64(2.0)
    for bit in (32, 16, 8, 4, 2, 1):
        root = np.sqrt(root)
        table[(np.arange(_STEPS) & bit) != 0] *= root
    return table.view(np.int64)


_POWERS = _powers()


def exp(x: Float32) -> Float32:
    """Return e**x; at most 0.501 ulp off. Overflows to inf, underflows gradually to 0."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        # Beyond these bounds fp32 has only 0 and inf; minimum and maximum pass NaN on.
        wide = np.minimum(np.maximum(x, np.float32(-105)), np.float32(90)).astype(np.float64)
        return canonical(_exp(wide).astype(np.float32))


def _exp(x: Float64) -> Float64:
    """Return e**x for |x| < 600; relative error below 2**-34."""
    shifted = x * _PER_STEP
    shifted += _MAGIC
    steps = shifted.view(np.int64)
    rest = shifted - _MAGIC
    rest *= -_STEP
    rest += x  # at most ln 2 / 128: rest**4 / 24 is below 2**-34
    out = rest * (1.0 / 6.0)
    for coefficient in (0.5, 1.0):
        out += coefficient
        out *= rest
    out += 1.0
    scale = _POWERS.take(steps & (_STEPS - 1))
    steps >>= 6
    steps <<= 52
    scale += steps
    out *= scale.view(np.float64)
    return out


def tanh(x: Float32) -> Float32:
    """Return the hyperbolic tangent; at most 0.502 ulp off. The sign of zero is kept."""
    with np.errstate(under="ignore", invalid="ignore"):
        wide = x.astype(np.float64)
        size = np.minimum(np.abs(wide), 20.0)
        decay = _exp(size * -2.0)
        square = size * size
        # Near zero 1 - decay cancels: the odd series to x**9 there.
        series = square * (62.0 / 2835.0)
        for coefficient in (-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0):
            series += coefficient
            series *= square
        series *= size
        series += size
        ratio = (1.0 - decay) / (1.0 + decay)
        out = np.where(size < 0.125, series, ratio)
        return canonical(np.copysign(out, wide).astype(np.float32))


def rsqrt(x: Float32) -> Float32:
    """Return 1 / sqrt(x); at most 0.501 ulp off. +-0 give +-inf, negative numbers NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return canonical((1.0 / np.sqrt(x.astype(np.float64))).astype(np.float32))


def reciprocal(x: Float32) -> Float32:
    """Return 1 / x, correctly rounded (0.5 ulp). +-0 give +-inf."""
    return divide(np.float32(1.0), x)


def divide(a: Float32 | np.float32, b: Float32) -> Float32:
    """Return a / b, correctly rounded (0.5 ulp). 0 / 0 and inf / inf are NaN."""
    with np.errstate(all="ignore"):
        return canonical(np.divide(a, b))


def canonical(x: Float32) -> Float32:
    """Return `x` with every NaN as 0x7fc00000, in place: hosts differ in sign and payload."""
    out = np.asarray(x)
    unordered = np.isnan(out)
    if unordered.any():
        out[unordered] = NAN
    return out
