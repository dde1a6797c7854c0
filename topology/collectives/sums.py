"""What sums are rounded to before they leave a node; added up they are in fp32 all the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from topology.errors import BadCollective
from topology.fabric import Ints

FP32 = "fp32"


@dataclass(frozen=True)
class SumFormat:
    """How a sum of fp32 travels: as how many of its four bytes, rounded to which type of NumPy.

    Rounding is to the nearest, ties to even; what is too large for the type becomes an infinity.
    """

    bytes_each: int
    dtype: DTypeLike

    @property
    def narrow(self) -> bool:
        """Whether it has fewer bytes than the sum."""
        return self.bytes_each < SUM_BYTES

    def on_cables(self, vectors: Ints) -> Ints:
        """Vectors that cross a cable for so many of a buffer of fp32."""
        return -(-vectors * self.bytes_each // SUM_BYTES)

    def rounded(self, data: NDArray[Any]) -> NDArray[Any]:
        """The values as they are after the way, in the type that they had before."""
        if not self.narrow:
            return data
        with np.errstate(over="ignore"):
            return data.astype(self.dtype).astype(data.dtype)


SUM_BYTES = 4
SUM_FORMATS = {FP32: SumFormat(4, np.float32), "fp16": SumFormat(2, np.float16)}


def sum_format(operation: str, name: str) -> SumFormat:
    """The format of a name; raises BadCollective that lists what there is."""
    if name not in SUM_FORMATS:
        problem = f"sums between nodes cannot be {name}"
        raise BadCollective(operation, problem, f"use one of {', '.join(SUM_FORMATS)}")
    return SUM_FORMATS[name]
