"""VXM functions on fp32, of any shape, with equal bits on every host and backend.

Built from IEEE basic operations (+, -, *, /, sqrt) in float64 and operations on bits; the float64
result is rounded once to fp32. NaN results are canonical, 0x7fc00000.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.numerics.backend import default_backend
from chip.numerics.elementary import canonical
from chip.numerics.exact import NAN, NAN16, Float32

__all__ = ["canonical", "divide", "exp", "reciprocal", "rsqrt", "square_root", "tanh"]


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
        out = np.sqrt(x)
    nan = NAN if x.dtype == np.float32 else NAN16
    return np.where(np.isnan(out), nan, out)
