"""The one seam between array passes and what computes them: NumPy, or kernels compiled by numba.

Both backends give equal bits, by the exactness tests of `chip.numerics.fp16` and because int8 sums
are exact anyway; they differ in speed and memory only. numba is imported from here alone, when
first asked for.
"""

import functools
import os
import sys
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from chip.numerics import elementary
from chip.numerics.exact import NAN, Bits16, Float16, Float32, Float64, Int64

Name = Literal["numpy", "compiled", "auto"]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

GRAIN = 32  # lanes of blocks and activations are a multiple of this: a step of the kernels

# Below this many units a sum is exact; the slack covers the rounding of the norms.
EXACT_UNITS = 2.0**53 * (1 - 2.0**-20)


class Block16(Protocol):
    """fp16 columns [tiles, columns, lanes] as a backend wants them."""

    @property
    def nbytes(self) -> int:
        """Host bytes held."""

    def bits(self, tiles: Int64, columns: Int64) -> Bits16:
        """Return the fp16 bits, all lanes, of the given columns of the given tiles."""


class Functions(Protocol):
    """What computes functions of fp32 arrays: the modules `elementary` and `loops`."""

    def exp(self, x: Float32, /) -> Float32: ...
    def tanh(self, x: Float32, /) -> Float32: ...
    def rsqrt(self, x: Float32, /) -> Float32: ...
    def reciprocal(self, x: Float32, /) -> Float32: ...
    def to_fp16(self, x: Float32, /) -> Float16: ...


class Backend(Protocol):
    """What multiplies prepared weight blocks. Arrays given to it are C-contiguous."""

    name: str
    functions: Functions

    @property
    def threads(self) -> int:
        """Threads that it may keep busy."""

    def prepare16(self, bits: Bits16) -> Any:
        """Return fp16 bits [tiles, columns, lanes] as a `Block16`, shared or copied."""

    def dot16(self, block: Any, x: Bits16) -> tuple[Float32, bool]:
        """Return fp32 [tiles, M, columns] for x [tiles, M, lanes], and whether some are doubtful.

        The doubtful, and only they, are NaN: all that may not be the correctly rounded sum, and
        all that depend on an infinity or NaN.
        """

    def prepare8(self, weights: Int8) -> Any:
        """Return int8 [tiles, columns, lanes] as `dot8` wants it, shared or copied."""

    def dot8(self, block: Any, x: Int8) -> Int32:
        """Return exact int32 [tiles, M, columns] for x [tiles, M, lanes]."""


def used_lanes(bits: npt.NDArray[Any]) -> int:
    """Count the lanes of [columns, lanes] up to the last non-zero one, to a multiple of a grain."""
    used = np.flatnonzero(np.bitwise_or.reduce(bits, axis=0))
    return -(-(int(used[-1]) + 1) // GRAIN) * GRAIN if used.size else GRAIN


def error_factor(lanes: int) -> float:
    """Bound |error| / (|x| |w|) of a float64 sum of exact products, in any order, with slack."""
    return (lanes + 8) * 2.0**-53


def unit16(bits: Bits16) -> Float64:
    """Return per row the weight of the last bit of its least non-zero magnitude, a power of two.

    All finite values of the row are multiples of it. Zeros count as infinitely large.
    """
    magnitude = (bits & 0x7FFF) - np.uint16(1)  # zero wraps around to the largest
    least = (magnitude.min(axis=-1).astype(np.int32) + 1) >> 10
    units: Float64 = np.ldexp(np.float64(1), np.maximum(least, 1) - 25)
    return units


class _Tile:
    """One tile as float64, without unused lanes, and what the exactness tests need of it."""

    def __init__(self, bits: Bits16) -> None:
        kept = bits[:, : used_lanes(bits)]
        self.weights: Float64 = kept.view(np.float16).astype(np.float64)
        self.norms = _norms(self.weights)
        self.unit = unit16(kept).min(initial=1.0)

    def dot(self, x: Float64, x_norms: Float64, x_units: Float64) -> tuple[Float32, bool]:
        sums = x[:, : self.weights.shape[1]] @ self.weights.T
        sums += 0.0  # -0 becomes +0
        out = sums.astype(np.float32)
        limits = EXACT_UNITS * self.unit * x_units
        if np.all(x_norms * self.norms.max(initial=0.0) < limits):
            return out, False
        bounds = x_norms[:, None] * self.norms
        errors = bounds * error_factor(self.weights.shape[1])
        straddles = (sums - errors).astype(np.float32) != (sums + errors).astype(np.float32)
        doubtful = straddles & ~(bounds < limits[:, None])
        out[doubtful] = NAN
        return out, bool(doubtful.any())


class _NumpyBlock:
    def __init__(self, bits: Bits16) -> None:
        self.lanes = bits.shape[2]
        self.tiles = [_Tile(tile) for tile in bits]

    @property
    def nbytes(self) -> int:
        return sum(tile.weights.nbytes + tile.norms.nbytes for tile in self.tiles)

    def bits(self, tiles: Int64, columns: Int64) -> Bits16:
        out = np.zeros((len(tiles), self.lanes), np.uint16)
        for row, (t, n) in enumerate(zip(tiles, columns, strict=True)):
            kept = self.tiles[t].weights[n].astype(np.float16).view(np.uint16)
            out[row, : len(kept)] = kept
        return out


class NumpyBackend:
    """float64 copies of fp16 and float32 copies of int8 weights, multiplied by NumPy's BLAS."""

    name = "numpy"
    functions: Functions = elementary
    threads = 1  # besides those of the BLAS

    def prepare16(self, bits: Bits16) -> _NumpyBlock:
        return _NumpyBlock(bits)

    def dot16(self, block: _NumpyBlock, x: Bits16) -> tuple[Float32, bool]:
        wide: Float64 = x.view(np.float16).astype(np.float64)
        units = unit16(x)
        with np.errstate(invalid="ignore"):
            norms = _norms(wide)
            parts = [tile.dot(wide[t], norms[t], units[t]) for t, tile in enumerate(block.tiles)]
        if len(parts) == 1:
            return parts[0][0][None], parts[0][1]
        return np.stack([out for out, _ in parts]), any(doubtful for _, doubtful in parts)

    def prepare8(self, weights: Int8) -> list[Float32]:
        return [tile[:, : used_lanes(tile)].astype(np.float32) for tile in weights]

    def dot8(self, block: list[Float32], x: Int8) -> Int32:
        # Exact in any order: partial sums are integers of at most 512 lanes * 2**14 = 2**23.
        wide = x.astype(np.float32)
        parts = [wide[t, :, : w.shape[1]] @ w.T for t, w in enumerate(block)]
        return np.array(parts).astype(np.int32)


def _norms(rows: Float64) -> Float64:
    out: Float64 = np.sqrt(np.einsum("...j,...j->...", rows, rows))
    return out


@functools.cache
def make_backend(name: Name) -> Backend:
    """Return a backend; `auto` is the compiled one where numba and its cache work."""
    if name == "numpy":
        return NumpyBackend()
    if name not in ("compiled", "auto"):
        raise ValueError(f"unknown numerics backend {name!r}: numpy, compiled or auto")
    try:
        from chip.numerics.compiled import CompiledBackend
    except (ImportError, RuntimeError):
        if name == "compiled":
            raise
        return make_backend("numpy")
    return CompiledBackend() if name == "compiled" else make_backend("compiled")


_chosen: Name = "auto"


def set_backend(name: Name) -> None:
    """Choose what `default_backend` returns from now on; blocks already prepared keep theirs."""
    global _chosen
    if name not in ("numpy", "compiled", "auto"):
        raise ValueError(f"unknown numerics backend {name!r}: numpy, compiled or auto")
    _chosen = name


def set_threads(count: int) -> None:
    """Compute with so many threads from now on, also in a process that is a fork of another."""
    os.environ["NUMBA_NUM_THREADS"] = str(count)  # read when numba is imported
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()
        make_backend.cache_clear()


def default_backend() -> Backend:
    """Return the backend in force, loading it when first asked for."""
    return make_backend(_chosen)
