"""Array passes compiled by numba: weights are read as they are stored, as fp16 bits or int8.

Four kernels, kept on disk. A pass is described by a few integers, so that helper threads can be
given pieces of it; see `chip.numerics.team`.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from chip.numerics import loops
from chip.numerics.backend import Functions, Int8, Int32, used_lanes
from chip.numerics.cache import address, cached
from chip.numerics.exact import Bits16, Float32, Float64, Int64
from chip.numerics.passes import NORMS, ROWS, activations, columns, columns8, measure
from chip.numerics.shared import LATE, PIECES, WORDS, lead, serve
from chip.numerics.team import MAX_PIECES, Team, pointer

types: Any = numba.types
config: Any = numba.config
carray: Any = vars(numba)["carray"]
_PIECE_BYTES = 1 << 16  # at least: some 5 microseconds


def _measure(w: Any, stats: Any) -> None:
    measure(w, stats)


def _piece(number: Any, pieces: Any, total: Any) -> Any:
    step = -(-total // (pieces * ROWS)) * ROWS
    return min(number * step, total), min((number + 1) * step, total)


def _piece16(place: Any, number: Any) -> Any:
    """Do one piece of a pass described by integers: sizes, then addresses of arrays."""
    job = carray(pointer(place), (WORDS,), np.int64)
    tiles, rows, lanes, batch = job[2], job[3], job[4], job[5]
    first, last = piece(number, job[1], tiles * rows)
    return columns(
        carray(pointer(job[6]), (tiles, rows, lanes), np.uint16),
        carray(pointer(job[7]), (tiles, NORMS + rows), np.float64),
        carray(pointer(job[8]), (tiles, batch, lanes + 2), np.float64),
        carray(pointer(job[9]), (tiles, batch, rows), np.float32),
        first,
        last,
    )


def _piece8(place: Any, number: Any) -> Any:
    job = carray(pointer(place), (WORDS,), np.int64)
    tiles, rows, lanes, batch = job[2], job[3], job[4], job[5]
    first, last = piece(number, job[1], tiles * rows)
    columns8(
        carray(pointer(job[6]), (tiles, rows, lanes), np.int8),
        carray(pointer(job[7]), (tiles,), np.int64),
        carray(pointer(job[8]), (tiles, batch, lanes), np.int16),
        carray(pointer(job[9]), (tiles, batch, rows), np.int32),
        first,
        last,
    )
    return 0


def _spread(x: Any, stats: Any, wide: Any) -> None:
    activations(x, stats, wide)


def _lead(control: Any, job: Any) -> Any:
    return lead(control, job, job[PIECES])


piece = numba.njit(nogil=True)(_piece)


def _array(element: Any, dimensions: int, writable: bool = True) -> Any:
    return types.Array(element, dimensions, "C", readonly=not writable)


_words = _array(types.int64, 1)
_doubles = _array(types.float64, 2), _array(types.float64, 3)
_bits = _array(types.uint16, 3, writable=False)

_pair = types.int64(types.int64, types.int64)

_measure_kernel = cached(_measure, types.void(_bits, _doubles[0]))
_spread_kernel = cached(_spread, types.void(_bits, _doubles[0], _doubles[1]))
_piece16_at, _piece8_at = address(_piece16, _pair), address(_piece8, _pair)
_lead_kernel = cached(_lead, types.int64(_words, _words))
_serve_kernel = cached(serve, types.void(_words))


@dataclass(frozen=True, slots=True)
class _Block:
    weights: Bits16
    stats: Float64

    @property
    def nbytes(self) -> int:
        return self.weights.nbytes + self.stats.nbytes

    def bits(self, tiles: Int64, columns: Int64) -> Bits16:
        return self.weights[tiles, columns]


class CompiledBackend:
    """Weights as stored; all threads on large blocks, unless another call has them already."""

    name = "compiled"
    functions: Functions = loops

    def __init__(self) -> None:
        self.team = Team(int(config.NUMBA_NUM_THREADS) - 1, _serve_kernel)

    @property
    def threads(self) -> int:
        return self.team.size

    def prepare16(self, bits: Bits16) -> _Block:
        tiles, columns, _ = bits.shape
        stats = np.empty((tiles, NORMS + columns))
        _measure_kernel(bits, stats)
        return _Block(bits, stats)

    def dot16(self, block: _Block, x: Bits16) -> tuple[Float32, bool]:
        w = block.weights
        tiles, batch, lanes = x.shape
        out = np.empty((tiles, batch, w.shape[1]), np.float32)
        wide = np.empty((tiles, batch, lanes + 2))
        _spread_kernel(x, block.stats, wide)
        done = self._run(_piece16_at, w, block.stats, wide, out)
        return done[0], done[1] > 0

    def prepare8(self, weights: Int8) -> tuple[Int8, Int64]:
        return weights, np.array([used_lanes(tile) for tile in weights], np.int64)

    def dot8(self, block: tuple[Int8, Int64], x: Int8) -> Int32:
        weights, lanes = block
        out = np.empty((weights.shape[0], x.shape[1], weights.shape[1]), np.int32)
        done = self._run(_piece8_at, weights, lanes, x.astype(np.int16), out)
        return np.asarray(done[0])

    def _run(self, function: int, *arrays: Any) -> tuple[Any, int]:
        """Return the last array, which the function fills piece by piece, and its count."""
        w, out = arrays[0], arrays[-1]
        pieces = min(MAX_PIECES, w.nbytes * out.shape[1] // _PIECE_BYTES)
        job = np.array(
            [function, 1, *w.shape, out.shape[1], *(a.ctypes.data for a in arrays)], np.int64
        )
        with self.team.helpers(pieces) as control:
            if control is None:
                return out, _lead_kernel(job, job)
            job[PIECES] = pieces
            count = _lead_kernel(control, job)
            if count >= LATE:
                self.team.abandon(pieces, arrays)
                return out.copy(), count - LATE
            return out, count
