"""fp8 as weights and activations: each of the 256 values is an fp16 number.

The formats of the OCP 8-bit floating point specification: E5M2 is the upper byte of an fp16, with
infinities; E4M3 has a bias of 7, no infinities, and NaN only where all other bits are set.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.numerics.exact import Float16, Float32
from chip.numerics.fp16 import Weights16

Bytes = npt.NDArray[np.uint8]


def _e5m2() -> Float16:
    return (np.arange(256).astype(np.uint16) << np.uint16(8)).view(np.float16)


def _e4m3() -> Float16:
    bits = np.arange(128)
    exponent, fraction = bits >> 3, (bits & 7) / 8.0
    normal, tiny = np.ldexp(1 + fraction, exponent - 7), np.ldexp(fraction, -6)
    half = np.where(exponent > 0, normal, tiny)
    half[127] = np.nan
    return np.concatenate([half, -half]).astype(np.float16)


TABLES = {"e4m3": _e4m3(), "e5m2": _e5m2()}


def decode(name: str, values: Bytes) -> Float16:
    """The fp8 numbers that the bytes stand for, as fp16; exact."""
    numbers: Float16 = TABLES[name][values]
    return numbers


class WeightsF8:
    """`Weights16` of fp8 bytes: columns and activations are of the type `name`.

    >>> WeightsF8("e5m2", np.uint8([[0x3C, 0x40]])).dot(np.uint8([[0x3C, 0x3C]]))
    array([[3.]], dtype=float32)
    """

    __slots__ = ("_name", "_weights")

    def __init__(self, name: str, w: Bytes, backend: Any = None) -> None:
        self._name, self._weights = name, Weights16(decode(name, w), backend)

    def dot(self, x: Bytes) -> Float32:
        """Return x[m] . w[n] as fp32 [M, columns] for fp8 x [M, lanes]: exact, rounded once."""
        return self._weights.dot(decode(self._name, x))
