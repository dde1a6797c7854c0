"""Weights as int8 with a scale for each output channel, and where the scales rest on a chip."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.kernels.shape import Matrix
from cluster.model.spec import F32, LayerWeights

Int8 = npt.NDArray[np.int8]
LEVELS = np.float32(127)


def quantised(matrix: F32) -> tuple[Int8, F32]:
    """Rows [out, in] as int8 and their scales [out]: row = q * scale, to nearest even.

    >>> quantised(np.float32([[254, -127], [0, 0]]))[0].tolist()
    [[127, -64], [0, 0]]
    """
    scales: F32 = np.abs(matrix).max(axis=1) / LEVELS
    safe = np.where(scales > 0, scales, np.float32(1))
    return np.rint(matrix / safe[:, None]).astype(np.int8), scales


def quantised_layer(layer: LayerWeights) -> tuple[LayerWeights, LayerWeights]:
    """The layer with int8 matrices, and one whose matrices hold, at each weight, its scale."""
    weights: dict[str, Any] = {}
    scales: dict[str, Any] = {}
    for field in fields(layer):
        matrix = getattr(layer, field.name)
        if matrix is not None and matrix.ndim == 2:
            weights[field.name], channels = quantised(matrix)
            scales[field.name] = np.broadcast_to(channels[:, None], matrix.shape)
    return replace(layer, **weights), replace(layer, **scales)


def scale_rows(scales: F32, layout: Matrix, width: int, lanes: int) -> F32:
    """Scales [out] as rows [output blocks, lanes], in the lanes in which the outputs arrive."""
    rows, at = np.zeros((layout.outputs, lanes), np.float32), 0
    for start, count, column in layout.runs:
        for block in range(start, start + count):
            mine = scales[block * width : (block + 1) * width]
            rows[at, column : column + len(mine)] = mine
            at += 1
    return rows
