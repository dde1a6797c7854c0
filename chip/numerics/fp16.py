"""One fp16 array pass: exact products, one exact sum over the lanes, rounded once to fp32.

The vendor calls it TruePoint: a wide accumulator. Backends sum in float64 in whatever order suits
them, and the result still does not depend on that order, by three tests, cheapest first:

1. Every product is a multiple of the product of the units of x and w, the unit being that of the
   least magnitude in it. Where |x| |w| < 2**53 units (2-norms), no partial sum rounds at all.
2. Otherwise a float64 sum y is off by at most e = lanes * 2**-53 * |x| |w|. Where y - e and y + e
   round to the same fp32 number, so does the exact sum.
3. What is left, about one result in a million, is summed again in integers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.numerics.backend import GRAIN, Backend, default_backend
from chip.numerics.exact import MAX_LANES, Bits16, Float16, Float32, dot_pairs


class Weights16:
    """A block of fp16 weight columns, prepared for one or many passes.

    `w` is float16, or uint16 bits, of shape [columns, lanes]. Lanes at the end that are zero in
    all columns are dropped. The block may share memory with `w`: do not write to it while in use.

    >>> Weights16(np.float16([[1, 2], [3, 4]])).dot(np.float16([[10, 1]]))
    array([[12., 34.]], dtype=float32)
    """

    __slots__ = ("_backend", "_block", "columns", "lanes")

    def __init__(self, w: npt.NDArray[Any], backend: Backend | None = None) -> None:
        bits = fp16_bits(w)
        if bits.ndim != 2 or bits.shape[1] > MAX_LANES:
            raise ValueError(f"weights must be [columns, at most {MAX_LANES} lanes]: {w.shape}")
        self.columns, self.lanes = bits.shape
        self._backend = backend or default_backend()
        self._block = self._backend.prepare16(_trimmed(bits))

    @property
    def nbytes(self) -> int:
        """Host bytes held by the prepared block."""
        return self._block.weights.nbytes + self._block.norms.nbytes

    def dot(self, x: Float16) -> Float32:
        """Return x[m] . w[n] as fp32 [M, columns] for x of shape [M, lanes]: see `dot_pairs`."""
        bits = fp16_bits(x)
        if bits.ndim != 2 or bits.shape[1] != self.lanes:
            raise ValueError(f"activations must be [M, {self.lanes} lanes]: {x.shape}")
        if self.lanes % GRAIN:
            bits = np.pad(bits, ((0, 0), (0, -self.lanes % GRAIN)))
        out, doubtful = self._backend.dot16(self._block, bits)
        if doubtful is not None:
            self._settle(bits, out, doubtful)
        return out

    def _settle(self, x: Bits16, out: Float32, doubtful: npt.NDArray[np.bool_]) -> None:
        """Replace the doubtful results by exact ones, some at a time."""
        rows, columns = np.nonzero(doubtful)
        step = 1 << 14
        for start in range(0, len(rows), step):
            m, n = rows[start : start + step], columns[start : start + step]
            w = self._block.bits(n)
            w = np.pad(w, ((0, 0), (0, x.shape[1] - w.shape[1])))
            out[m, n] = dot_pairs(x[m], w)


def fp16_bits(array: npt.NDArray[Any]) -> Bits16:
    """Return `array`, float16 or already uint16, as uint16 bits without a copy."""
    if array.dtype == np.float16:
        return array.view(np.uint16)
    if array.dtype != np.uint16:
        raise TypeError(f"fp16 values are float16 or uint16 arrays, not {array.dtype}")
    return array


def _trimmed(bits: Bits16) -> Bits16:
    """Drop trailing lanes that are zero everywhere; keep a positive multiple of the grain."""
    used = np.flatnonzero(np.bitwise_or.reduce(bits, axis=0) & 0x7FFF)
    lanes = int(used[-1]) + 1 if used.size else 1
    kept = -(-lanes // GRAIN) * GRAIN
    if kept > bits.shape[1]:
        bits = np.pad(bits, ((0, 0), (0, kept - bits.shape[1])))
    return np.ascontiguousarray(bits[:, :kept])
