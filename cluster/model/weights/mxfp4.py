"""MXFP4 (OCP Microscaling Formats 1.0): blocks of 32 values of 4 bits, which share a scale of 8."""

import numpy as np
from numpy.typing import NDArray

from cluster.model.graph.op import F32

BLOCKS, SCALES = "_blocks", "_scales"  # behind the name of a tensor
TYPE = "U8"  # of both
WIDTH = 32  # values of a block
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of E2M1
_BIAS = 127  # of the scales, E8M0
_VALUES = np.array([sign * m for sign in (1, -1) for m in _MAGNITUDES], np.float32)


def dequantised(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> F32:
    """Values [.., 32 n] of blocks [.., n, 16], the lower four bits of a byte first.

    Scales are [.., n]; one of 255, which is no number, gives infinity.

    >>> dequantised(np.full((1, 1, 16), 0x92, np.uint8), np.full((1, 1), 128, np.uint8))[0, :2]
    array([ 2., -1.], dtype=float32)
    """
    pairs = np.stack([blocks & 15, blocks >> 4], axis=-1)
    values = _VALUES[pairs].reshape(*blocks.shape[:-1], WIDTH)
    with np.errstate(over="ignore"):
        scaled: F32 = np.ldexp(values, scales[..., None].astype(np.int32) - _BIAS)
    return scaled.reshape(*blocks.shape[:-2], -1)
