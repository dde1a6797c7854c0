"""One int8 array pass: exact int32 sums."""

import numpy as np
import numpy.typing as npt

from chip.numerics.backend import GRAIN, Backend, Int8, Int32, default_backend
from chip.numerics.exact import MAX_LANES


class Weights8:
    """A block of int8 weight columns, or a stack of them, prepared for one or many passes.

    `w` is [columns, lanes] or [tiles, columns, lanes]; lanes at the end of a tile that are zero in
    all its columns cost nothing. The block may share memory with `w`: do not write to it while in
    use.

    >>> Weights8(np.int8([[1, 2], [-128, 4]])).dot(np.int8([[-128, 1]]))
    array([[ -126, 16388]], dtype=int32)
    """

    __slots__ = ("_backend", "_block", "_stacked", "columns", "lanes", "tiles")

    def __init__(self, w: Int8, backend: Backend | None = None) -> None:
        if w.dtype != np.int8:
            raise TypeError(f"int8 weights expected, not {w.dtype}")
        if w.ndim not in (2, 3) or w.shape[-1] > MAX_LANES:
            raise ValueError(
                f"weights must be [columns, lanes] or [tiles, columns, lanes] with at most "
                f"{MAX_LANES} lanes, not {list(w.shape)}"
            )
        self._stacked = w.ndim == 3
        padded = _padded(w if self._stacked else w[None])
        self.tiles, self.columns, self.lanes = padded.shape[0], padded.shape[1], w.shape[-1]
        self._backend = backend or default_backend()
        self._block = self._backend.prepare8(padded)

    def dot(self, x: Int8) -> Int32:
        """Return x[m] . w[n] as int32 [M, columns] for int8 x [M, lanes], exactly.

        A stack takes x of [tiles, M, lanes] and returns [tiles, M, columns].
        """
        if x.dtype != np.int8:
            raise TypeError(f"int8 activations expected, not {x.dtype}")
        rows = x if self._stacked else x[None]
        if rows.ndim != 3 or rows.shape[0] != self.tiles or rows.shape[2] != self.lanes:
            tiles = f"{self.tiles} tiles, " if self._stacked else ""
            raise ValueError(
                f"activations must be [{tiles}M, {self.lanes} lanes], not {list(x.shape)}"
            )
        out = self._backend.dot8(self._block, _padded(rows))
        return out if self._stacked else out[0]


def _padded(rows: npt.NDArray[np.int8]) -> Int8:
    """Append zero lanes up to a multiple of the grain; C-contiguous."""
    missing = -rows.shape[-1] % GRAIN
    if missing:
        return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, 0), (0, missing))))
    return np.ascontiguousarray(rows)
