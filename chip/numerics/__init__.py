"""What the arithmetic units compute, bit for bit the same on every host, BLAS and thread count."""

from chip.numerics.backend import Backend, default_backend, make_backend, set_backend, set_threads
from chip.numerics.convert import to_fp16, to_fp32, to_int
from chip.numerics.fp8 import WeightsF8, decode, encode
from chip.numerics.fp16 import Weights16
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
from chip.numerics.int8 import Weights8

__all__ = [
    "Backend",
    "Weights8",
    "Weights16",
    "WeightsF8",
    "canonical",
    "decode",
    "default_backend",
    "divide",
    "encode",
    "exp",
    "make_backend",
    "maximum",
    "minimum",
    "reciprocal",
    "rsqrt",
    "set_backend",
    "set_threads",
    "square_root",
    "tanh",
    "to_fp16",
    "to_fp32",
    "to_int",
]
