"""VXM functions of arrays of any shape: `elementwise`, with one NaN for all.

The NaN is 0x7fc00000 in fp32 and 0x7e00 in fp16: what a processor makes of NaNs differs from one to
the next. All results are rounded once to fp32.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np

from chip.arrays import Array
from chip.numerics import elementwise
from chip.numerics.exact import NAN, NAN16, Float32

Numbers = Array


def canonical(x: Numbers) -> Numbers:
    """Return `x` with every NaN as 0x7fc00000 or 0x7e00, in place; integers as they are."""
    out = np.asarray(x)
    if out.dtype.kind == "f" and (unordered := np.isnan(out)).any():
        out[unordered] = NAN if out.dtype == np.float32 else NAN16
    return out


def over_arrays(text: Callable[..., elementwise.Number]) -> Callable[..., Numbers]:
    """The function of arrays that an elementwise text defines."""

    @wraps(text)
    def function(*operands: Numbers) -> Numbers:
        with np.errstate(all="ignore"):  # infinities and NaNs are values like others
            return canonical(np.asarray(text(*operands)))

    return function


exp, tanh, rsqrt, reciprocal, maximum, minimum = (
    over_arrays(text)
    for text in (
        elementwise.exp,
        elementwise.tanh,
        elementwise.rsqrt,
        elementwise.reciprocal,
        elementwise.maximum,
        elementwise.minimum,
    )
)


def divide(a: Float32 | np.float32, b: Float32) -> Float32:
    """Return a / b, correctly rounded (0.5 ulp). 0 / 0 and inf / inf are NaN."""
    with np.errstate(all="ignore"):
        return canonical(np.divide(a, b))


def square_root(x: Numbers) -> Numbers:
    """Return sqrt(x) of fp16 or fp32, correctly rounded (0.5 ulp); NaN below 0.

    fp16 by way of fp32 is rounded once in effect: 24 digits are two more than twice 11.
    """
    with np.errstate(invalid="ignore"):
        return canonical(np.sqrt(x))
