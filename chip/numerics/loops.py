"""The VXM functions compiled by numba: one pass over the data instead of twenty.

Each does the operations of its namesake in `chip.numerics.elementary`, in the same order. Without
fast-math flags LLVM neither reorders nor fuses them, so the bits are equal, and tested so.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics.cache import cached
from chip.numerics.elementary import (
    LEAST,
    MAGIC,
    MOST,
    PER_STEP,
    POWERS,
    STEP,
    STEPS,
    TANH_FAR,
    TANH_NEAR,
    TANH_SERIES,
)
from chip.numerics.exact import NAN, Float16, Float32

types: Any = numba.types
_SERIES_9, _SERIES_7, _SERIES_5, _SERIES_3 = TANH_SERIES
_HALF, _FP16_OVERFLOW, _FP16_NORMAL = 0x3F000000, 0x477FF000, 0x38800000  # fp32 bits


def _exp64(x: Any) -> Any:
    shifted = x * PER_STEP + MAGIC
    steps = np.float64(shifted).view(np.int64)
    rest = (shifted - MAGIC) * -STEP + x
    polynomial = ((rest * (1.0 / 6.0) + 0.5) * rest + 1.0) * rest + 1.0
    scale = np.int64(POWERS[steps & (STEPS - 1)] + np.int64((steps >> 6) << 52))
    return polynomial * scale.view(np.float64)


exp64: Any = numba.njit(inline="always", error_model="numpy")(_exp64)


def _exp(x: Any) -> Any:
    wide = np.float64(min(max(x, np.float32(LEAST)), np.float32(MOST)))
    return np.float32(exp64(wide)) if x == x else NAN


def _tanh(x: Any) -> Any:
    wide = np.float64(x)
    size = min(abs(wide), TANH_FAR)
    decay = exp64(size * -2.0)
    square = size * size
    series = square * _SERIES_9
    series = (((series + _SERIES_7) * square + _SERIES_5) * square + _SERIES_3) * square
    series = series * size + size
    out = series if size < TANH_NEAR else (1.0 - decay) / (1.0 + decay)
    return np.float32(np.copysign(out, wide)) if x == x else NAN


def _rsqrt(x: Any) -> Any:
    return np.float32(1.0 / np.sqrt(np.float64(x))) if x >= 0 else NAN


def _reciprocal(x: Any) -> Any:
    return np.float32(1.0) / x if x == x else NAN


def _half_bits(x: Any) -> Any:
    """Round to fp16 bits: by an addition below the normal numbers, else by integers."""
    bits = np.float32(x).view(np.uint32)
    size = np.uint32(bits & np.uint32(0x7FFFFFFF))
    small = np.uint32(
        np.float32(size.view(np.float32) + np.float32(0.5)).view(np.uint32) - np.uint32(_HALF)
    )
    odd = np.uint32((size >> np.uint32(13)) & np.uint32(1))
    normal = np.uint32(np.uint32(size - np.uint32((112 << 23) - 0xFFF) + odd) >> np.uint32(13))
    out = small if size < np.uint32(_FP16_NORMAL) else normal
    out = np.uint32(0x7C00) if size >= np.uint32(_FP16_OVERFLOW) else out
    out = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else out
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    return np.uint16(out | sign) if x == x else np.uint16(0x7E00)


exp1, tanh1, rsqrt1, reciprocal1, half_bits1 = (
    numba.njit(inline="always", error_model="numpy")(scalar)
    for scalar in (_exp, _tanh, _rsqrt, _reciprocal, _half_bits)
)


# Five loops and not one made by a closure: numba's cache forgets functions with closures.
def _exp_loop(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = exp1(x[i])


def _tanh_loop(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = tanh1(x[i])


def _rsqrt_loop(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = rsqrt1(x[i])


def _reciprocal_loop(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = reciprocal1(x[i])


def _half_bits_loop(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = half_bits1(x[i])


def _over_arrays(loop: Any, result: Any) -> Any:
    """Compile a loop; return a function of float32 arrays of any shape."""
    arrays = (types.Array(types.float32, 1, "C", readonly=True), types.Array(result, 1, "C"))
    kernel = cached(loop, types.void(*arrays))
    dtype = np.dtype(str(result))

    def function(x: Any) -> Any:
        out = np.empty(x.shape, dtype)
        kernel(np.ascontiguousarray(x).reshape(-1), out.reshape(-1))
        return out

    return function


exp = _over_arrays(_exp_loop, types.float32)
tanh = _over_arrays(_tanh_loop, types.float32)
rsqrt = _over_arrays(_rsqrt_loop, types.float32)
reciprocal = _over_arrays(_reciprocal_loop, types.float32)
_half_bits_of = _over_arrays(_half_bits_loop, types.uint16)


def to_fp16(x: Float32) -> Float16:
    """Round to nearest even; overflow gives infinity."""
    out: Float16 = _half_bits_of(x).view(np.float16)
    return out
