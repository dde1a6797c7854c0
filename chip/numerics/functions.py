"""VXM functions on fp32, of any shape, with equal bits on every host and backend.

Built from IEEE basic operations (+, -, *, /, sqrt) in float64 and operations on bits; the float64
result is rounded once to fp32. NaN results are canonical, 0x7fc00000 or 0x7e00: what a processor
makes of NaNs, and which of two zeros it calls the larger, differs from one to the next.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.numerics.backend import default_backend
from chip.numerics.elementary import canonical
from chip.numerics.exact import Float32

__all__ = [
    "canonical",
    "divide",
    "exp",
    "maximum",
    "minimum",
    "reciprocal",
    "rsqrt",
    "square_root",
    "tanh",
]

Numbers = npt.NDArray[Any]
BITS = {2: np.uint16, 4: np.uint32}


def maximum(a: Numbers, b: Numbers) -> Numbers:
    """Return the larger of a and b, of one type; NaN if either is, and +0 is above -0."""
    return _extreme(np.maximum, np.bitwise_and, a, b)


def minimum(a: Numbers, b: Numbers) -> Numbers:
    """Return the smaller of a and b, of one type; NaN if either is, and -0 is below +0."""
    return _extreme(np.minimum, np.bitwise_or, a, b)


def _extreme(choose: Any, sign: Any, a: Numbers, b: Numbers) -> Numbers:
    """Equal floats have equal bits but for the sign of zero, which `sign` picks."""
    chosen = choose(a, b)
    if chosen.dtype.kind != "f":
        return np.asarray(chosen)
    bits = BITS[chosen.dtype.itemsize]
    same = sign(np.asarray(a).view(bits), np.asarray(b).view(bits))
    return canonical(np.where(a == b, same.view(chosen.dtype), chosen))


def exp(x: Float32) -> Float32:
    """Return e**x; at most 0.501 ulp off. Overflows to inf, underflows gradually to 0."""
    return default_backend().functions.exp(x)


def tanh(x: Float32) -> Float32:
    """Return the hyperbolic tangent; at most 0.502 ulp off. The sign of zero is kept."""
    return default_backend().functions.tanh(x)


def rsqrt(x: Float32) -> Float32:
    """Return 1 / sqrt(x); at most 0.5001 ulp off. +-0 give +-inf, negative numbers NaN."""
    return default_backend().functions.rsqrt(x)


def reciprocal(x: Float32) -> Float32:
    """Return 1 / x, correctly rounded (0.5 ulp). +-0 give +-inf."""
    return default_backend().functions.reciprocal(x)


def divide(a: Float32 | np.float32, b: Float32) -> Float32:
    """Return a / b, correctly rounded (0.5 ulp). 0 / 0 and inf / inf are NaN."""
    with np.errstate(all="ignore"):
        return canonical(np.divide(a, b))


def square_root(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return sqrt(x) of fp16 or fp32, correctly rounded (0.5 ulp); NaN below 0.

    fp16 by way of fp32 is rounded once in effect: 24 digits are two more than twice 11.
    """
    with np.errstate(invalid="ignore"):
        return canonical(np.sqrt(x))
