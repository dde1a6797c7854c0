"""Conversions between the VXM's types: round to nearest, ties to even, everywhere.

NaN becomes the canonical quiet NaN of a float type (fp32 0x7fc00000, fp16 0x7e00) and 0 as an
integer. Integers always saturate; fp16 overflows to infinity unless told to saturate.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.numerics.exact import Float16, Float32
from chip.numerics.functions import canonical

Number = Array
Integer = TypeVar("Integer", np.uint8, np.uint16, np.int8, np.int16, np.int32)

_MAX16 = np.float16(65504)


def to_fp16(x: Number, saturate: bool = False) -> Float16:
    """Round fp32 or an integer type to fp16, once, to nearest even.

    From 65520 on that is an infinity, or with `saturate` the largest number, 65504. An infinity
    saturates too; NaN stays NaN.
    """
    with np.errstate(all="ignore"):  # int32 has more digits than fp32: by float64, to round once
        wide = x.astype(np.float32 if x.dtype.kind == "f" else np.float64, copy=False)
        out = canonical(wide.astype(np.float16))
    return np.asarray(out.clip(-_MAX16, _MAX16)) if saturate else out


def to_fp32(x: Number) -> Float32:
    """Widen fp16 and integers of 8 and 16 bits exactly; round int32 to nearest even."""
    out = x.astype(np.float32)
    return canonical(out) if x.dtype.kind == "f" else out


def to_int(x: Number, dtype: type[Integer]) -> npt.NDArray[Integer]:
    """Round fp16 or fp32 to nearest even, or narrow an integer, saturating at `dtype`'s bounds."""
    bounds = np.iinfo(dtype)
    if x.dtype.kind in "iu":
        own = np.iinfo(x.dtype)
        return x.clip(max(bounds.min, own.min), min(bounds.max, own.max)).astype(dtype)
    # float64 holds the bounds of int32, fp32 does not.
    wide = x.astype(np.float64)
    np.rint(wide, out=wide)
    wide.clip(bounds.min, bounds.max, out=wide)
    unordered = np.isnan(wide)
    if unordered.any():
        wide[unordered] = 0.0
    return wide.astype(dtype)
