"""The one seam between array passes and what computes them: NumPy, or kernels compiled by numba.

Both backends give equal bits, by the exactness tests of `chip.numerics.fp16` and because int8 sums
are exact anyway; they differ in speed and memory only. numba is imported here alone, when first
asked for.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from chip.numerics.exact import Bits16, Float32, Float64

Name = Literal["numpy", "compiled", "auto"]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Doubtful = npt.NDArray[np.bool_] | None

GRAIN = 16  # lanes of a prepared block are a multiple of this: one vector of the compiled kernels

# A sum at and below this many units is exact; the slack covers the rounding of the norms.
EXACT_UNITS = 2.0**53 * (1 - 2.0**-20)


@dataclass(frozen=True, slots=True)
class Block16:
    """fp16 columns as a backend wants them: raw bits (uint16) or float64, [columns, lanes]."""

    weights: npt.NDArray[Any]
    norms: Float64  # 2-norm per column; NaN or infinite where the column is not finite
    unit: float  # every weight is a multiple of it

    def bits(self, columns: npt.NDArray[np.intp]) -> Bits16:
        """Return the fp16 bits of some columns."""
        chosen = self.weights[columns]
        return chosen if chosen.dtype == np.uint16 else chosen.astype(np.float16).view(np.uint16)


class Backend(Protocol):
    """What multiplies prepared weight blocks; lanes of x are a multiple of the grain."""

    name: str

    def prepare16(self, bits: Bits16) -> Block16:
        """Return C-contiguous fp16 bits [columns, lanes] as a block, shared or copied."""

    def dot16(self, block: Block16, x: Bits16) -> tuple[Float32, Doubtful]:
        """Return fp32 [M, columns] and where it may not be the correctly rounded sum, if it may.

        `x` may have more lanes than the block, which then holds zeros there.
        """

    def prepare8(self, weights: Int8) -> npt.NDArray[Any]:
        """Return C-contiguous int8 [columns, lanes] as `dot8` wants it."""

    def dot8(self, weights: npt.NDArray[Any], x: Int8) -> Int32:
        """Return exact int32 [M, columns]; x has the lanes of the block."""


class NumpyBackend:
    """float64 copies of fp16 and float32 copies of int8 weights, multiplied by NumPy's BLAS."""

    name = "numpy"

    def prepare16(self, bits: Bits16) -> Block16:
        weights = bits.view(np.float16).astype(np.float64)
        return Block16(weights, _norms(weights), float(unit16(bits.reshape(1, -1))[0]))

    def dot16(self, block: Block16, x: Bits16) -> tuple[Float32, Doubtful]:
        wide = x.view(np.float16).astype(np.float64)
        with np.errstate(invalid="ignore"):
            sums = wide[:, : block.weights.shape[1]] @ block.weights.T
            sums += 0.0  # -0 becomes +0
            return round_sums(sums, _norms(wide), unit16(x), block)

    def prepare8(self, weights: Int8) -> npt.NDArray[Any]:
        return weights.astype(np.float32)

    def dot8(self, weights: npt.NDArray[Any], x: Int8) -> Int32:
        # Exact in any order: partial sums are integers of at most 512 lanes * 2**14 = 2**23.
        return (x.astype(np.float32) @ weights.T).astype(np.int32)


def round_sums(
    sums: Float64, norms: Float64, units: Float64, block: Block16
) -> tuple[Float32, Doubtful]:
    """Round float64 sums to fp32 and say which may round otherwise: tests 1 and 2 of `fp16`."""
    out = sums.astype(np.float32)
    limits = EXACT_UNITS * block.unit * units
    if np.all(norms * block.norms.max(initial=0.0) < limits):
        return out, None
    bounds = norms[:, None] * block.norms
    errors = bounds * error_factor(block.weights.shape[1])
    straddles = (sums - errors).astype(np.float32) != (sums + errors).astype(np.float32)
    doubtful = straddles & ~(bounds < limits[:, None])
    return out, doubtful if doubtful.any() else None


def error_factor(lanes: int) -> float:
    """Bound |error| / (|x| |w|) of a float64 sum of exact products, in any order, with slack."""
    return (lanes + 8) * 2.0**-53


def unit16(bits: Bits16) -> Float64:
    """Return per row the weight of the last bit of its least non-zero magnitude, a power of two.

    All finite values of the row are multiples of it. Zeros count as infinitely large.
    """
    magnitude = (bits & 0x7FFF) - np.uint16(1)  # zero wraps around to the largest
    least = (magnitude.min(axis=1, initial=0xFFFF) + np.uint32(1)) >> 10
    return np.ldexp(1.0, np.maximum(least.astype(np.int32), 1) - 25)


def _norms(rows: Float64) -> Float64:
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def make_backend(name: Name) -> Backend:
    """Return a backend; `auto` is the compiled one where numba and its cache work."""
    if name == "numpy":
        return NumpyBackend()
    try:
        from chip.numerics.compiled import CompiledBackend
    except (ImportError, RuntimeError):
        if name == "compiled":
            raise
        return NumpyBackend()
    return CompiledBackend()


@functools.cache
def _shared(name: Name) -> Backend:
    return make_backend(name)


_chosen: Name = "auto"


def set_backend(name: Name) -> None:
    """Choose what `default_backend` returns from now on; blocks already prepared keep theirs."""
    global _chosen
    if name not in ("numpy", "compiled", "auto"):
        raise ValueError(f"unknown numerics backend {name!r}: numpy, compiled or auto")
    _chosen = name


def default_backend() -> Backend:
    """Return the backend in force, loading it when first asked for."""
    return _shared(_chosen)
