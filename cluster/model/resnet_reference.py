"""An int8 ResNet in plain NumPy, by im2col: the oracle of the emulated one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.kernels.resnet import Layer, ResNetShape, layers

I8 = npt.NDArray[np.int8]
Array = npt.NDArray[Any]


def random_weights(shape: ResNetShape, seed: int = 0) -> dict[str, I8]:
    """Weights [out, in, taps, taps] of every layer, uniform in -55..55 (a spread of 32)."""
    random = np.random.default_rng(seed)
    return {
        layer.name: random.integers(
            -55, 56, (layer.outputs, layer.inputs, layer.taps, layer.taps), np.int8
        )
        for layer in layers(shape)
    }


def random_image(shape: ResNetShape, seed: int = 1) -> I8:
    """An image [lines, columns, 3]."""
    side = 4 * shape.pixels
    return np.random.default_rng(seed).integers(-128, 128, (side, side, 3), np.int8)


def patches(image: I8) -> I8:
    """Patches [lines / 2, columns / 2, 147] of the first convolution, stride 2, 3 zeros around."""
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(0, 1))[::2, ::2]
    return np.ascontiguousarray(windows).reshape(*windows.shape[:2], -1)


def rounded(sums: Array, scale: float, relu: bool, residual: I8 | None = None) -> I8:
    """Scaled sums in fp32, the residual added, to nearest even, saturated."""
    value = sums.astype(np.float32) * np.float32(scale)
    if residual is not None:
        value = value + residual.astype(np.float32)
    if relu:
        value = np.maximum(value, np.float32(0))
    result: I8 = np.rint(value).clip(-128, 127).astype(np.int8)
    return result


def convolution(x: I8, weights: I8, stride: int) -> Array:
    """int32 sums [lines, columns, out] of a convolution with zeros around."""
    taps = weights.shape[-1]
    reach = taps // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(0, 1))
    rows = windows[::stride, ::stride]
    size = rows.shape[:2]
    flat = np.ascontiguousarray(rows).reshape(size[0] * size[1], -1).astype(np.float64)
    sums = flat @ weights.reshape(len(weights), -1).T.astype(np.float64)
    return sums.astype(np.int32).reshape(*size, -1)


def classify(shape: ResNetShape, weights: Mapping[str, I8], image: I8) -> npt.NDArray[np.float32]:
    """Logits [classes] of one image."""
    by_name = {layer.name: layer for layer in layers(shape)}

    def layer_of(name: str, x: I8, relu: bool = True, residual: I8 | None = None) -> I8:
        layer = by_name[name]
        sums = convolution(x, weights[name], layer.stride)
        return rounded(sums, layer.scale, relu, residual)

    x = _maximum(layer_of("stem", patches(image)))
    for stage, (blocks, _, _) in enumerate(shape.stages):
        for block in range(blocks):
            name = f"{stage}.{block}"
            kept = x if block else layer_of(f"{name}.d", x, relu=False)
            inner = layer_of(f"{name}.b", layer_of(f"{name}.a", x))
            x = layer_of(f"{name}.c", inner, residual=kept)
    pixels = x.shape[0] * x.shape[1]
    pooled = rounded(x.astype(np.int64).sum(axis=(0, 1)), 1.0 / pixels, relu=False)
    last: Layer = by_name["classes"]
    sums = weights["classes"].reshape(last.outputs, -1).astype(np.int32) @ pooled.astype(np.int32)
    logits: npt.NDArray[np.float32] = sums.astype(np.float32) * np.float32(last.scale)
    return logits


def _maximum(x: I8) -> I8:
    """The maximum over 3 x 3 windows, stride 2."""
    padded = np.pad(x, ((1, 0), (1, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    largest: I8 = windows.max(axis=(3, 4))
    return largest
