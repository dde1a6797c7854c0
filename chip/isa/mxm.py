"""MXM: a plane pair holds one 320 x 320 fp16 tile; weights load as columns. [ISCA20]

LW fills the pair's weight buffer, IW installs the buffer into the array, ABC streams activations
through it, ACC adds the products to an accumulator and may emit it. The buffer is empty after IW:
columns that were not loaded are zero in the installed tile.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.isa.op import op
from chip.numerics import Weights16

SET, ADD = 0, 1
Vectors = npt.NDArray[np.float32]


@op("mxm.lw", "mxm.lw", "column:col a:in.w16", "LW")
def lw(column: int, a: Any) -> None:
    """Load eight fp16 columns, starting at `column`, from 16 streams into the weight buffer."""


@op("mxm.iw", "mxm.iw", "columns:int", "IW")
def iw(columns: int) -> None:
    """Install the buffer, in which `columns` columns are loaded, into the array."""


@op("mxm.abc", "mxm.abc", "a:in.f16", "ABC", timing="mxm.abc")
def abc(a: npt.NDArray[np.float16], weights: Weights16) -> Vectors:
    """One dot product per column: exact products, the sum over the lanes rounded once to fp32."""
    return weights.dot(a)


@op("mxm.acc", "mxm.acc", "mode:int slot:slot out:dst.f32", "ACC", timing="mxm.acc")
def acc(accumulators: Vectors, mode: int, slots: npt.NDArray[np.int64], a: Vectors) -> Vectors:
    """Set (mode 0) or add to (mode 1) an accumulator with the product that arrives.

    The new value is emitted on `out`, if that is a stream.
    """
    if mode == ADD:
        a = accumulators[slots] + a
    accumulators[slots] = a
    return a
