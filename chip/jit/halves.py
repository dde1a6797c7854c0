"""fp16 bits to fp32 and back, by the host's instructions where it has them, else by integers.

Both round as IEEE 754 says. Of a NaN only that it is one is kept: `narrow16` makes the canonical
one.
"""

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]

from chip.jit.layout import Untyped
from chip.jit.memory import emitted, inner, types
from chip.jit.vectors import FLOAT, HALF_IN_HARDWARE, I16
from chip.numerics.exact import NAN

_HALF, _HALF_BITS = np.float32(0.5), np.uint32(0x3F000000)
_OVERFLOW, _NORMAL = np.uint32(0x477FF000), np.uint32(0x38800000)


@emitted(types.float32, types.uint16)
def _widened(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    return builder.fpext(builder.bitcast(args[0], ir.HalfType()), FLOAT)


@emitted(types.uint16, types.float32)
def _narrowed(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), I16)


def _widened_by_integers(bits: Untyped) -> Untyped:
    """The exponent's bias is made good by a product, but for inf and NaN."""
    size = np.uint32(np.uint32(bits & np.uint16(0x7FFF)) << np.uint32(13))
    wide = np.float32(size.view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    wide = np.uint32(size | np.uint32(0x7F800000)) if size >= np.uint32(0x0F800000) else wide
    return np.uint32(wide | np.uint32(np.uint32(bits >> 15) << np.uint32(31))).view(np.float32)


def _narrowed_by_integers(x: Untyped) -> Untyped:
    """By an addition below the normal numbers, else by integers."""
    bits = np.float32(x).view(np.uint32)
    size = np.uint32(bits & np.uint32(0x7FFFFFFF))
    small = np.uint32(np.float32(size.view(np.float32) + _HALF).view(np.uint32) - _HALF_BITS)
    odd = np.uint32((size >> np.uint32(13)) & np.uint32(1))
    normal = np.uint32(np.uint32(size - np.uint32((112 << 23) - 0xFFF) + odd) >> np.uint32(13))
    out = small if size < _NORMAL else normal
    out = np.uint32(0x7C00) if size >= _OVERFLOW else out
    out = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else out
    return np.uint16(out | np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000)))


widen16: Untyped = _widened if HALF_IN_HARDWARE else inner(_widened_by_integers)
_narrow: Untyped = _narrowed if HALF_IN_HARDWARE else inner(_narrowed_by_integers)


@inner
def narrow16(x: Untyped) -> Untyped:
    """Round fp32 to fp16 bits. NaN is chosen first: as one of 32 bits, like all that is chosen."""
    return _narrow(np.float32(x) if x == x else NAN)
