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
from chip.numerics.exact import MAX_LANES, Bits16, Float32, dot_pairs

_CHUNK = 1 << 14  # doubtful results settled at a time


class Weights16:
    """A block of fp16 weight columns, or a stack of them, prepared for one or many passes.

    `w` is float16, or uint16 bits, of shape [columns, lanes] or [tiles, columns, lanes]. Lanes at
    the end of a tile that are zero in all its columns cost nothing. The block may share memory
    with `w`: do not write to it while in use.

    >>> Weights16(np.float16([[1, 2], [3, 4]])).dot(np.float16([[10, 1]]))
    array([[12., 34.]], dtype=float32)
    """

    __slots__ = ("_backend", "_block", "_stacked", "columns", "lanes", "tiles")

    def __init__(self, w: npt.NDArray[Any], backend: Backend | None = None) -> None:
        bits = fp16_bits(w)
        if bits.ndim not in (2, 3) or bits.shape[-1] > MAX_LANES:
            raise ValueError(
                f"weights must be [columns, lanes] or [tiles, columns, lanes] with at most "
                f"{MAX_LANES} lanes, not {list(w.shape)}"
            )
        self._stacked = bits.ndim == 3
        bits = _padded(bits if self._stacked else bits[None])
        self.tiles, self.columns, self.lanes = bits.shape[0], bits.shape[1], w.shape[-1]
        self._backend = backend or default_backend()
        self._block = self._backend.prepare16(bits)

    @property
    def nbytes(self) -> int:
        """Host bytes held by the prepared block."""
        return int(self._block.nbytes)

    def dot(self, x: npt.NDArray[Any]) -> Float32:
        """Return x[m] . w[n] as fp32 [M, columns] for fp16 x [M, lanes]: exact, rounded once.

        A stack takes x of [tiles, M, lanes] and returns [tiles, M, columns]. Ties round to even,
        an exact zero is +0; NaN, inf * 0 and inf - inf give the NaN 0x7fc00000.
        """
        bits = fp16_bits(x)
        if not self._stacked:
            bits = bits[None]
        if bits.ndim != 3 or bits.shape[0] != self.tiles or bits.shape[2] != self.lanes:
            tiles = f"{self.tiles} tiles, " if self._stacked else ""
            raise ValueError(
                f"activations must be [{tiles}M, {self.lanes} lanes], not {list(x.shape)}"
            )
        out, doubtful = self._backend.dot16(self._block, _padded(bits))
        if doubtful:
            self._settle(_padded(bits), out)
        return out if self._stacked else out[0]

    def _settle(self, x: Bits16, out: Float32) -> None:
        """Replace the doubtful results, which are NaN, by exact ones."""
        tiles, rows, columns = np.nonzero(np.isnan(out))
        for start in range(0, len(rows), _CHUNK):
            t, m, n = (index[start : start + _CHUNK] for index in (tiles, rows, columns))
            out[t, m, n] = dot_pairs(x[t, m], self._block.bits(t, n))


def fp16_bits(array: npt.NDArray[Any]) -> Bits16:
    """Return `array`, float16 or already uint16, as uint16 bits without a copy."""
    if array.dtype == np.float16:
        return array.view(np.uint16)
    if array.dtype != np.uint16:
        raise TypeError(f"fp16 values are float16 or uint16 arrays, not {array.dtype}")
    return array


def _padded(bits: Bits16) -> Bits16:
    """Append zero lanes up to a multiple of the grain; C-contiguous. Common arrays are as is."""
    missing = -bits.shape[-1] % GRAIN
    if missing:
        return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, 0), (0, missing))))
    return bits if bits.flags.c_contiguous else np.ascontiguousarray(bits)
