"""VXM: point-wise arithmetic on 16 ALUs per lane; results forward from ALU to ALU. [ISCA20]

Every function maps arrays of shape [vectors, lanes] to one of the same shape. float32 and float16
arithmetic is IEEE round-to-nearest-even, one rounding per op.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip import numerics
from chip.isa.op import op

Vectors = npt.NDArray[Any]
UNARY = "dtype:dtype a:src out:dst"
BINARY = "dtype:dtype a:src b:src imm:f32 out:dst"


@op("vxm.add", "vxm", BINARY, timing="vxm.alu")
def add(a: Vectors, b: Vectors) -> Vectors:
    """a + b."""
    return np.add(a, b)


@op("vxm.sub", "vxm", BINARY, timing="vxm.alu")
def sub(a: Vectors, b: Vectors) -> Vectors:
    """a - b."""
    return np.subtract(a, b)


@op("vxm.mul", "vxm", BINARY, timing="vxm.alu")
def mul(a: Vectors, b: Vectors) -> Vectors:
    """a * b."""
    return np.multiply(a, b)


@op("vxm.max", "vxm", BINARY, timing="vxm.alu")
def maximum(a: Vectors, b: Vectors) -> Vectors:
    """The larger of a and b; NaN if either is."""
    return np.maximum(a, b)


@op("vxm.min", "vxm", BINARY, timing="vxm.alu")
def minimum(a: Vectors, b: Vectors) -> Vectors:
    """The smaller of a and b; NaN if either is."""
    return np.minimum(a, b)


@op("vxm.copy", "vxm", UNARY, timing="vxm.alu")
def copy(a: Vectors) -> Vectors:
    """a, unchanged."""
    return a


@op("vxm.exp", "vxm", "a:src.f32 out:dst.f32", timing="vxm.exp")
def exp(a: Vectors) -> Vectors:
    """e to the a."""
    return numerics.exp(a)


@op("vxm.rsqrt", "vxm", "a:src.f32 out:dst.f32", timing="vxm.rsqrt")
def rsqrt(a: Vectors) -> Vectors:
    """1 / square root of a."""
    return numerics.rsqrt(a)


@op("vxm.recip", "vxm", "a:src.f32 out:dst.f32", timing="vxm.recip")
def recip(a: Vectors) -> Vectors:
    """1 / a."""
    return numerics.reciprocal(a)


@op("vxm.to_f16", "vxm", "a:src.f32 out:dst.f16", timing="vxm.convert")
def to_f16(a: Vectors) -> Vectors:
    """float32 to float16, to nearest even; overflow becomes infinity."""
    return numerics.to_fp16(a)


@op("vxm.to_f32", "vxm", "a:src.f16 out:dst.f32", timing="vxm.convert")
def to_f32(a: Vectors) -> Vectors:
    """float16 to float32, exact."""
    return a.astype(np.float32)
