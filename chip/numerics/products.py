"""What one pass through the array computes: exact products, summed exactly, rounded at most once.

int8: int32 sums. fp16: products of two 11-bit significands, one exact sum over the lanes, rounded
once to fp32; the vendor calls it TruePoint, a wide accumulator. fp8: each of its 256 values is an
fp16 number.

An fp16 sum is made in float64 in whatever order suits the host, and the result does not depend on
that order, by three tests, cheapest first. No partial sum is above |x| |w|, the product of the
2-norms of a row and a column (Cauchy-Schwarz).

1. Every product is a multiple of the product of two units: the last bit of the least magnitude in
   the row of x, and in the whole tile. Where |x| |w| < 2**53 of these, no partial sum rounds.
2. Otherwise a float64 sum y is off by at most e = (lanes + 8) * 2**-53 * |x| |w|: half a unit in
   the last place for each addition; the 8 is for the rounding of norms, of e, and of y - e and
   y + e. Where these two round to the same fp32 number, so does the exact sum.
3. What is left is summed in integers: `exact.exact_dots`. Of standard normal x and w in 320 lanes
   that is one sum in 4,000; where x or w are small, as in models, fewer, as test 1 lets them pass.

docs/fp16-product.md follows a product from here to the compiled kernel.
"""

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.numerics.exact import MAX_LANES, Bits16, Float32, Float64, exact_dots
from chip.numerics.fp8 import Bytes, decode

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

# Below this many units a sum is exact; the slack covers the rounding of the norms.
EXACT_UNITS = 2.0**53 * (1 - 2.0**-20)
_CHUNK = 1 << 14  # doubtful results computed again at a time


def error_factor(lanes: int) -> float:
    """Bound |error| / (|x| |w|) of a float64 sum of exact products, in any order, with slack."""
    return (lanes + 8) * 2.0**-53


def least_unit(bits: Bits16) -> Float64:
    """Per row, the weight of the last bit of its least non-zero magnitude, a power of two.

    All finite values of the row are multiples of it. A row of zeros has the largest, 2**39.
    """
    magnitude = (bits & 0x7FFF) - np.uint16(1)  # zero wraps around: it is never the least
    least = (magnitude.min(axis=-1, initial=0xFFFF).astype(np.int32) + 1) >> 10
    units: Float64 = np.ldexp(np.float64(1), np.maximum(least, 1) - 25)
    return units


class Weights16:
    """Columns of fp16 weights [columns, lanes], as float16 or as uint16 bits.

    >>> Weights16(np.float16([[1, 2], [3, 4]])).dot(np.float16([[10, 1]]))
    array([[12., 34.]], dtype=float32)
    """

    def __init__(self, w: Array) -> None:
        self._bits = fp16_bits(w)
        _check_columns(self._bits)
        self._weights = self._bits.view(np.float16).astype(np.float64)
        with np.errstate(invalid="ignore"):
            self._norms = _norms(self._weights)
        self._unit = least_unit(self._bits.ravel())

    def dot(self, x: Array) -> Float32:
        """Return x[m] . w[n] as fp32 [M, columns] for fp16 x [M, lanes]: exact, rounded once.

        Ties round to even, an exact zero is +0; NaN, inf * 0 and inf - inf give the canonical NaN.
        """
        bits = fp16_bits(x)
        _check_rows(bits, self._bits)
        wide = bits.view(np.float16).astype(np.float64)
        with np.errstate(invalid="ignore"):
            sums = wide @ self._weights.T
            sums += 0.0  # -0 becomes +0
            bounds: Float64 = _norms(wide)[:, None] * self._norms
            limits = EXACT_UNITS * self._unit * least_unit(bits)
            exact, out = bounds < limits[:, None], sums.astype(np.float32)
            if exact.all():
                return out
            errors = bounds * error_factor(bits.shape[1])
            same = (sums - errors).astype(np.float32) == (sums + errors).astype(np.float32)
        rows, columns = np.nonzero(~(exact | same))
        for start in range(0, len(rows), _CHUNK):
            m, n = rows[start : start + _CHUNK], columns[start : start + _CHUNK]
            out[m, n] = exact_dots(bits[m], self._bits[n])
        return out


class Weights8:
    """Columns of int8 weights [columns, lanes].

    >>> Weights8(np.int8([[1, 2], [-128, 4]])).dot(np.int8([[-128, 1]]))
    array([[ -126, 16388]], dtype=int32)
    """

    def __init__(self, w: Int8) -> None:
        if w.dtype != np.int8:
            raise TypeError(f"int8 weights expected, not {w.dtype}")
        _check_columns(w)
        self._weights = w.astype(np.float32)

    def dot(self, x: Int8) -> Int32:
        """Return x[m] . w[n] as int32 [M, columns] for int8 x [M, lanes], exactly.

        fp32 is exact in any order: partial sums are integers of at most 512 * 2**14 = 2**23.
        """
        if x.dtype != np.int8:
            raise TypeError(f"int8 activations expected, not {x.dtype}")
        _check_rows(x, self._weights)
        sums: Int32 = (x.astype(np.float32) @ self._weights.T).astype(np.int32)
        return sums


class WeightsF8:
    """`Weights16` of fp8 bytes: columns and activations are of the type `name`.

    >>> WeightsF8("e5m2", np.uint8([[0x3C, 0x40]])).dot(np.uint8([[0x3C, 0x3C]]))
    array([[3.]], dtype=float32)
    """

    def __init__(self, name: str, w: Bytes) -> None:
        self._name, self._weights = name, Weights16(decode(name, w))

    def dot(self, x: Bytes) -> Float32:
        """Return x[m] . w[n] as fp32 [M, columns] for fp8 x [M, lanes]: exact, rounded once."""
        return self._weights.dot(decode(self._name, x))


def fp16_bits(array: Array) -> Bits16:
    """Return `array`, float16 or already uint16, as uint16 bits without a copy."""
    if array.dtype == np.float16:
        return array.view(np.uint16)
    if array.dtype != np.uint16:
        raise TypeError(f"fp16 values are float16 or uint16 arrays, not {array.dtype}")
    return array


def _norms(rows: Float64) -> Float64:
    out: Float64 = np.sqrt(np.einsum("...j,...j->...", rows, rows))
    return out


def _check_columns(w: Array) -> None:
    if w.ndim != 2 or w.shape[1] > MAX_LANES:
        shape = f"[columns, lanes] with at most {MAX_LANES} lanes"
        raise ValueError(f"weights must be {shape}, not {list(w.shape)}")


def _check_rows(x: Array, w: Array) -> None:
    if x.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(f"activations must be [M, {w.shape[1]} lanes], not {list(x.shape)}")
