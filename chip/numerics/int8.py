"""One int8 array pass: exact int32 sums."""

import numpy as np
import numpy.typing as npt

from chip.numerics.backend import GRAIN, Backend, Int8, Int32, default_backend
from chip.numerics.exact import MAX_LANES


class Weights8:
    """A block of int8 weight columns [columns, lanes], prepared for one or many passes.

    Lanes at the end that are zero in all columns are dropped. The block may share memory with `w`.

    >>> Weights8(np.int8([[1, 2], [-128, 4]])).dot(np.int8([[-128, 1]]))
    array([[ -126, 16388]], dtype=int32)
    """

    __slots__ = ("_backend", "_weights", "columns", "lanes")

    def __init__(self, w: Int8, backend: Backend | None = None) -> None:
        if w.dtype != np.int8:
            raise TypeError(f"int8 weights expected, not {w.dtype}")
        if w.ndim != 2 or w.shape[1] > MAX_LANES:
            raise ValueError(f"weights must be [columns, at most {MAX_LANES} lanes]: {w.shape}")
        self.columns, self.lanes = w.shape
        self._backend = backend or default_backend()
        self._weights = self._backend.prepare8(_trimmed(w))

    @property
    def nbytes(self) -> int:
        """Host bytes held by the prepared block."""
        return int(self._weights.nbytes)

    def dot(self, x: Int8) -> Int32:
        """Return x[m] . w[n] as int32 [M, columns] for int8 x of shape [M, lanes]."""
        if x.dtype != np.int8:
            raise TypeError(f"int8 activations expected, not {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.lanes:
            raise ValueError(f"activations must be [M, {self.lanes} lanes]: {x.shape}")
        return self._backend.dot8(self._weights, _to_lanes(x, self._weights.shape[1]))


def _trimmed(w: Int8) -> Int8:
    used = np.flatnonzero(np.bitwise_or.reduce(w, axis=0))
    lanes = int(used[-1]) + 1 if used.size else 1
    return _to_lanes(w, -(-lanes // GRAIN) * GRAIN)


def _to_lanes(rows: npt.NDArray[np.int8], lanes: int) -> Int8:
    """Cut or zero-extend rows to `lanes`, C-contiguous."""
    missing = lanes - rows.shape[1]
    return (
        np.pad(rows, ((0, 0), (0, missing)))
        if missing > 0
        else np.ascontiguousarray(rows[:, :lanes])
    )
