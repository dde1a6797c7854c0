"""fp8 as weights and activations: each of the 256 values is an fp16 number.

The formats of the OCP 8-bit floating point specification: E5M2 is the upper byte of an fp16, with
infinities; E4M3 has a bias of 7, no infinities, and NaN only where all other bits are set.
"""

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.numerics.exact import Float16

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


# Magnitudes in the order of their codes, and the points half way between neighbours.
_FINITE = {
    name: table[:128][np.isfinite(table[:128])].astype(np.float64) for name, table in TABLES.items()
}
_MIDDLES = {name: (values[1:] + values[:-1]) / 2 for name, values in _FINITE.items()}


def encode(name: str, x: Array) -> Bytes:
    """Round fp16 or fp32 to fp8, to nearest even, saturating at 448 or 57344; NaN stays NaN.

    An infinity saturates as well. The NaN of E4M3 is 0x7F, of E5M2 0x7E.
    """
    size, middles = np.abs(x.astype(np.float64)), _MIDDLES[name]
    code = np.searchsorted(middles, size, side="left")
    tie = (code < len(middles)) & (middles.take(code, mode="clip") == size)
    code += tie & (code % 2 == 1)  # neighbouring codes are neighbouring values: even is even
    code += np.signbit(x) * 128
    code[np.isnan(size)] = {"e4m3": 0x7F, "e5m2": 0x7E}[name]
    return code.astype(np.uint8)
