"""SXM: moves elements between lanes. A lane map is a table of the program. [ISCA20]

Maps and shifts act on whole elements of an aligned stream group: each of its byte streams moves
alike. North is towards higher lanes. Rotate and Transpose work on bytes inside each 16-lane
superlane, and drive a group of streams at once; wider elements go plane by plane.
"""

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.isa.op import op

Vectors = Array
Map = npt.NDArray[np.int64]
FIELDS = "dtype:dtype map:map a:src out:dst"
SHIFT = "dtype:dtype count:int a:src out:dst"
ZERO = 0xFFFF  # entry of a distribute map that fills its lane with zero


@op("sxm.permute", "sxm", FIELDS, "Permute map", "sxm.permute", map_kind="permutation")
def permute(map: Map, a: Vectors) -> Vectors:
    """out[lane] = a[map[lane]]; the map is a bijection over all lanes."""
    return np.take(a, map, axis=1)


@op("sxm.distribute", "sxm", FIELDS, "Distribute map", "sxm.distribute", map_kind="superlane")
def distribute(map: Map, a: Vectors) -> Vectors:
    """out[lane] = a[map[lane]] inside each 16-lane superlane; the map may replicate or zero."""
    superlanes = a.reshape(len(a), -1, len(map))
    out = np.take(superlanes, np.where(map == ZERO, 0, map), axis=2)
    out[:, :, map == ZERO] = 0
    return out.reshape(a.shape)


@op("sxm.shift_up", "sxm", SHIFT, "Shift up N", timing="sxm.shift")
def shift_up(count: int, a: Vectors) -> Vectors:
    """out[lane] = a[lane - count]; the lowest `count` lanes are zero."""
    out = np.zeros_like(a)
    out[:, count:] = a[:, : a.shape[1] - count]
    return out


@op("sxm.shift_down", "sxm", SHIFT, "Shift down N", timing="sxm.shift")
def shift_down(count: int, a: Vectors) -> Vectors:
    """out[lane] = a[lane + count]; the highest `count` lanes are zero."""
    out = np.zeros_like(a)
    out[:, : a.shape[1] - count] = a[:, count:]
    return out


@op(
    "sxm.select",
    "sxm",
    "dtype:dtype map:map a:src b:src out:dst",
    "Select",
    "sxm.select",
    map_kind="choice",
)
def select(map: Map, a: Vectors, b: Vectors) -> Vectors:
    """out[lane] = b[lane] where map[lane] is 1, a[lane] where it is 0; merges shifted vectors."""
    return np.where(map == 1, b, a)


@op("sxm.rotate3", "sxm", "a:in.u8 out:out.b9", "Rotate n=3", timing="sxm.rotate")
def rotate3(a: Vectors) -> Vectors:
    """All nine rotations of a 3 x 3 window, on nine streams.

    The window is the first nine lanes of each superlane, row by row; stream 3 i + j has it moved i
    rows up and j columns left, round and round. The other lanes are zero.
    """
    return _rotations(a, 3)


@op("sxm.rotate4", "sxm", "a:in.u8 out:out.b16", "Rotate n=4", timing="sxm.rotate")
def rotate4(a: Vectors) -> Vectors:
    """All sixteen rotations of a 4 x 4 window, on sixteen streams.

    The window is a superlane, row by row; stream 4 i + j has it moved i rows up and j columns left.
    """
    return _rotations(a, 4)


@op("sxm.transpose", "sxm", "a:in.b16 out:out.b16", "Transpose sg16", timing="sxm.transpose")
def transpose(a: Vectors) -> Vectors:
    """16 x 16 bytes of a group of 16 streams and each superlane: out stream s, lane l = in l, s."""
    tiles = a.reshape(len(a), -1, 16, 16)
    return tiles.swapaxes(2, 3).reshape(a.shape)


def _rotations(a: Vectors, n: int) -> Vectors:
    superlanes = a.reshape(len(a), -1, 16)
    window = superlanes[:, :, : n * n].reshape(*superlanes.shape[:2], n, n)
    out = np.zeros((*superlanes.shape, n * n), np.uint8)
    for i, j in np.ndindex(n, n):
        moved = np.roll(window, (-i, -j), (2, 3))
        out[:, :, : n * n, n * i + j] = moved.reshape(*window.shape[:2], -1)
    return out.reshape(*a.shape, n * n)
