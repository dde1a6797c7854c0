"""Images in int8: convolutions that scale their sums, maxima and means over pixels.

A row is an image, its dimensions are lines, columns and channels; `i8` values have no step here, as
every convolution brings its sums back to int8. Sums are exact, so that all chips and hosts agree.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cluster.model.graph.int8 import F64, integer_dot
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Dim, Value, Weight


class _OfImage(Op):
    """An op over the pixels of an image, which no tensor parallelism cuts."""

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Whole, as its inputs."""
        self.require(set(inputs) == {Spread.WHOLE}, "its inputs must be whole on every rank")
        return Spread.WHOLE

    def exact(self, run: Run, *inputs: Any) -> F32:
        """The same: sums of integers are exact in both."""
        result: F32 = self.reference(run, *inputs)
        return result


@register
@dataclass(frozen=True)
class Convolution(_OfImage):
    """out = scale * (weight over taps x taps pixels, zeros around) (+ residual), perhaps ReLU.

    Rounded to nearest even and saturated where the result is `i8`. The inner dimensions of the
    weight are input channels, lines and columns of taps, an odd number.
    """

    kind: ClassVar[str] = "convolution"

    x: Value
    weight: Weight
    scale: float
    stride: int = 1
    relu: bool = True
    residual: Value | None = None

    def check(self) -> None:
        """Channels fit the weight; lines and columns are those of x, each `stride`th."""
        lines, columns, inputs = self.x.dims
        channels, *taps = self.weight.inner
        self.require(channels == inputs, f"x has {inputs.size} channels, not {channels.size}")
        self.require(len(taps) == 2 and taps[0].size == taps[1].size, "taps are not a square")
        self.require(taps[0].size % 2 == 1, f"{taps[0].size} taps have no middle")
        sides = (fewer(dim, self.stride) for dim in (lines, columns))
        self.require(self.out.dims == (*sides, *self.weight.out), "the result has other dimensions")
        if self.residual is not None:
            self.require(self.residual.dims == self.out.dims, "the residual has other dimensions")

    @property
    def taps(self) -> int:
        """Taps of a side."""
        return self.weight.inner[-1].size

    def products_per_row(self, context: int) -> int:
        """Those of all pixels."""
        return self.out.width * self.weight.shape[1]

    def reference(self, run: Run, x: F32, residual: F32 | None = None) -> F32:
        """Exact sums, then float32."""
        reach = self.taps // 2
        windows = _windows(x, (reach, reach), self.taps, self.stride)
        flat = np.ascontiguousarray(windows).reshape(-1, self.weight.shape[1])
        sums = integer_dot(flat, run.weight(self.weight))
        value = sums.reshape(*windows.shape[:3], -1).astype(np.float32) * np.float32(self.scale)
        if residual is not None:
            value = value + residual
        if self.relu:
            value = np.maximum(value, np.float32(0))
        return _rounded(value) if self.out.dtype == "i8" else value


@register
@dataclass(frozen=True)
class Maximum(_OfImage):
    """out = the maximum over 3 x 3 pixels of each second line and column, for values above 0."""

    kind: ClassVar[str] = "maximum"

    x: Value

    def check(self) -> None:
        """Lines and columns are even, and halved."""
        lines, columns, channels = self.x.dims
        self.require(lines.size % 2 == columns.size % 2 == 0, "lines and columns must be even")
        wanted = (fewer(lines, 2), fewer(columns, 2), channels)
        self.require(self.out.dims == wanted, "the result has other dimensions")

    def reference(self, run: Run, x: F32) -> F32:
        """A maximum rounds nothing."""
        largest: F32 = _windows(x, (1, 0), 3, 2).max(axis=(4, 5))
        return largest


@register
@dataclass(frozen=True)
class PixelMean(_OfImage):
    """out = the mean of all pixels, rounded to int8."""

    kind: ClassVar[str] = "pixel_mean"

    x: Value

    def check(self) -> None:
        """One pixel is left."""
        lines, columns, channels = self.x.dims
        wanted = (Dim(lines.name, 1), Dim(columns.name, 1), channels)
        self.require(self.out.dims == wanted, "the result has other dimensions")

    def reference(self, run: Run, x: F32) -> F32:
        """Exact sums, then float32."""
        sums: F64 = x.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
        pixels = self.x.dims[0].size * self.x.dims[1].size
        return _rounded(sums.astype(np.float32) * np.float32(1.0 / pixels))


def fewer(dim: Dim, stride: int) -> Dim:
    """The dimension with each `stride`th item left."""
    return Dim(dim.name, -(-dim.size // stride))


def _windows(x: F32, around: tuple[int, int], taps: int, stride: int) -> F32:
    """Windows [images, lines, columns, channels, taps, taps] of x with zeros before and behind."""
    padded = np.pad(x, ((0, 0), around, around, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def _rounded(value: F32) -> F32:
    """To nearest even, saturated."""
    return np.rint(value).clip(-128, 127)
