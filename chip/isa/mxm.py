"""MXM: two planes of 320 x 320 int8 on each side; weights load as columns. [ISCA20]

LW fills a weight buffer, IW installs the buffer into the array, ABC streams activations through
it, ACC adds the products to an accumulator and may emit it. The buffer is empty after IW: columns
that were not loaded are zero in the installed tile.

In an 8-bit format each plane holds a tile of its own and takes a vector every cycle. In fp16 the
two planes of a side hold one tile together and take a vector every two cycles; the pair has the
queues and the accumulators of the first plane. Queues 0 and 1 are the first planes of the east
and of the west side, 2 and 3 the second planes; one LW and one IW queue serve a side. These are
the six queues of a side (which is which is an assumption).
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.isa.op import op
from chip.numerics import Weights8, Weights16, WeightsF8, canonical

SET, ADD = 0, 1
PLANES = 2  # of a side
Vectors = Array


class Tile(Protocol):
    """Columns of weights, prepared for products."""

    def dot(self, x: Vectors, /) -> Vectors: ...


PREPARE: dict[str, Callable[[Vectors], Tile]] = {
    "f16": Weights16,
    "i8": Weights8,
    "e4m3": partial(WeightsF8, "e4m3"),
    "e5m2": partial(WeightsF8, "e5m2"),
}


@op("mxm.lw", "mxm.lw", "format:format column:col a:in.w16", "LW", role="loads")
def lw(format: int, column: int, a: Vectors) -> None:
    """Load columns, from `column` on, off 16 streams into a weight buffer: 8 of fp16, or 16.

    In an 8-bit format the columns of the second plane follow those of the first, and after them
    those of the first again, so that a loop may fill the planes in turn.
    """


@op("mxm.iw", "mxm.iw", "format:format plane:plane columns:int", "IW", role="installs")
def iw(format: int, plane: int, columns: int) -> None:
    """Install the buffer of a plane (fp16: of the pair), which holds `columns`, into the array."""


@op("mxm.abc", "mxm.abc", "format:format a:in.format", "ABC", "mxm.abc", role="products")
def abc(a: Vectors, weights: Tile) -> Vectors:
    """One dot product per column, of up to 320 lanes: exact int32 sums of int8 products.

    Products of fp16 or fp8 are exact, too, and their sum is rounded once to fp32.
    """
    return weights.dot(a)


@op(
    "mxm.acc",
    "mxm.acc",
    "format:format mode:int slot:slot out:dst.sum",
    "ACC",
    "mxm.acc",
    role="sums",
)
def acc(accumulators: Vectors, mode: int, slots: npt.NDArray[np.int64], a: Vectors) -> Vectors:
    """Set (mode 0) or add to (mode 1) an accumulator with the product that arrives.

    Sums of fp16 and fp8 are fp32, rounded at each addition; sums of int8 are int32 and wrap. The
    new value is emitted on `out`, if that is a stream.
    """
    if mode == ADD:
        a = canonical(accumulators[slots] + a)
    accumulators[slots] = a
    return a
