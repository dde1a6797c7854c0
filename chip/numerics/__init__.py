"""The definition of what the arithmetic units compute: NumPy, and the same bits on every host.

`chip.jit` computes the same faster: tests/chip/test_jit.py says so of each of its kernels.
"""

from chip.numerics.convert import to_fp16, to_fp32, to_int
from chip.numerics.fp8 import decode, encode
from chip.numerics.functions import (
    canonical,
    divide,
    exp,
    maximum,
    minimum,
    reciprocal,
    rsqrt,
    square_root,
    tanh,
)
from chip.numerics.products import Weights8, Weights16, WeightsF8

__all__ = [
    "Weights8",
    "Weights16",
    "WeightsF8",
    "canonical",
    "decode",
    "divide",
    "encode",
    "exp",
    "maximum",
    "minimum",
    "reciprocal",
    "rsqrt",
    "square_root",
    "tanh",
    "to_fp16",
    "to_fp32",
    "to_int",
]
