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
from chip.numerics.cache import cached
from chip.numerics.exact import Bits16, Float32, Float64, Int64
from chip.numerics.passes import NORMS, ROWS, activations, columns, columns8, measure
from chip.numerics.team import (
    DONE,
    JOB,
    LATE_SPINS,
    MAX_PIECES,
    STOP,
    Team,
    await_piece,
    idle,
    load,
    pointer,
    publish,
    store,
    take,
)

types: Any = numba.types
config: Any = numba.config
carray: Any = vars(numba)["carray"]
_PIECE_BYTES = 1 << 16  # at least: some 5 microseconds
_LATE = 1 << 62
_JOB_WORDS = 10


def _measure(w: Any, stats: Any) -> None:
    measure(w, stats)


def _piece(number: Any, pieces: Any, total: Any) -> Any:
    step = -(-total // (pieces * ROWS)) * ROWS
    return min(number * step, total), min((number + 1) * step, total)


def _run(job: Any, number: Any) -> Any:
    """Do one piece of a pass described by integers: sizes, then addresses of arrays."""
    tiles, rows, lanes, batch = job[2], job[3], job[4], job[5]
    first, last = piece(number, job[1], tiles * rows)
    if job[0] == 8:
        columns8(
            carray(pointer(job[6]), (tiles, rows, lanes), np.int8),
            carray(pointer(job[7]), (tiles,), np.int64),
            carray(pointer(job[8]), (tiles, batch, lanes), np.int16),
            carray(pointer(job[9]), (tiles, batch, rows), np.int32),
            first,
            last,
        )
        return 0
    return columns(
        carray(pointer(job[6]), (tiles, rows, lanes), np.uint16),
        carray(pointer(job[7]), (tiles, NORMS + rows), np.float64),
        carray(pointer(job[8]), (tiles, batch, lanes + 2), np.float64),
        carray(pointer(job[9]), (tiles, batch, rows), np.float32),
        first,
        last,
    )


def _lead(control: Any, job: Any, pieces: Any) -> Any:
    """Run a pass, with helpers if it has several pieces; return its count.

    If some helper was late and may still be writing the same results, the count is _LATE more.
    """
    if pieces == 1:
        return run(job, np.int64(0))
    publish(control, job, pieces)
    count, late = 0, 0
    while True:
        number = take(control)
        if number < 0:
            break
        store(control, DONE + number, 1 + run(job, number))
    for number in range(pieces):
        if await_piece(control, number, 1 if late else LATE_SPINS):
            count += load(control, DONE + number) - 1
        else:
            count, late = count + run(job, number), _LATE
    return count + late


def _serve(control: Any) -> None:
    """Help with the passes of others until there have been none for long."""
    rounds = 0
    while load(control, STOP) == 0:
        number = take(control)
        if number >= 0:
            store(control, DONE + number, 1 + run(control[JOB:], number))
            rounds = 0
        elif idle(rounds):
            break
        else:
            rounds += 1


def _describe(kind: Any, pieces: Any, w: Any, about: Any, x: Any, out: Any) -> Any:
    """Return the job of a pass: what `_run` reads."""
    job = np.empty(_JOB_WORDS, np.int64)
    job[0], job[1] = kind, pieces
    job[2], job[3], job[4], job[5] = w.shape[0], w.shape[1], w.shape[2], x.shape[1]
    job[6], job[7], job[8] = w.ctypes.data, about.ctypes.data, x.ctypes.data
    job[9] = out.ctypes.data
    return job


def _dot16(control: Any, pieces: Any, w: Any, stats: Any, x: Any, wide: Any, out: Any) -> Any:
    activations(x, stats, wide)
    return lead(control, describe(16, pieces, w, stats, wide, out), pieces)


def _dot8(control: Any, pieces: Any, w: Any, lanes: Any, x: Any, out: Any) -> Any:
    return lead(control, describe(8, pieces, w, lanes, x, out), pieces)


piece, run, lead, describe = (
    numba.njit(nogil=True)(function) for function in (_piece, _run, _lead, _describe)
)


def _array(element: Any, dimensions: int, writable: bool = True) -> Any:
    return types.Array(element, dimensions, "C", readonly=not writable)


_words = _array(types.int64, 1)
_doubles = _array(types.float64, 2), _array(types.float64, 3)
_bits, _bytes = _array(types.uint16, 3, writable=False), _array(types.int8, 3, writable=False)

_outs = _array(types.float32, 3), _array(types.int32, 3)
_arguments16 = (_words, types.int64, _bits, _doubles[0], _bits, _doubles[1], _outs[0])
_arguments8 = (_words, types.int64, _bytes, _words, _array(types.int16, 3), _outs[1])

_measure_kernel = cached(_measure, types.void(_bits, _doubles[0]))
_dot16_kernel = cached(_dot16, types.int64(*_arguments16))
_dot8_kernel = cached(_dot8, types.int64(*_arguments8))
_serve_kernel = cached(_serve, types.void(_words))


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
        self._team = Team(int(config.NUMBA_NUM_THREADS) - 1, _serve_kernel)

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
        done = self._run(_dot16_kernel, w.nbytes * batch, w, block.stats, x, wide, out)
        return done[0], done[1] > 0

    def prepare8(self, weights: Int8) -> tuple[Int8, Int64]:
        return weights, np.array([used_lanes(tile) for tile in weights], np.int64)

    def dot8(self, block: tuple[Int8, Int64], x: Int8) -> Int32:
        weights, lanes = block
        out = np.empty((weights.shape[0], x.shape[1], weights.shape[1]), np.int32)
        work_bytes = weights.nbytes * x.shape[1]
        done = self._run(_dot8_kernel, work_bytes, weights, lanes, x.astype(np.int16), out)
        return np.asarray(done[0])

    def _run(self, kernel: Any, work_bytes: int, *arrays: Any) -> tuple[Any, int]:
        """Return the last array, which the kernel fills, and the kernel's count."""
        team, out = self._team, arrays[-1]
        pieces = min(MAX_PIECES, work_bytes // _PIECE_BYTES)
        if pieces < 2 or team.size < 2 or not team.lock.acquire(blocking=False):
            return out, kernel(team.control, 1, *arrays)
        try:
            team.wake()
            count = kernel(team.control, pieces, *arrays)
            if count >= _LATE:
                team.abandon(pieces, arrays)
                return out.copy(), count - _LATE
            return out, count
        finally:
            team.lock.release()
