"""A weight matrix of an encoder, as it rests on one side."""

from dataclasses import dataclass

from chip.kernels.layout import Blocks, blocks, halves
from chip.program import word_columns
from chip.schedule import Buffer

__all__ = ["Blocks", "Matrix", "Placed", "blocks", "halves", "runs_of"]


@dataclass(frozen=True)
class Matrix:
    """A weight matrix at rest on one side: runs of output blocks, each (first, count, column).

    Column data order: run, input block, output block, `words` words of columns: 8 of fp16, 16 of
    int8. The columns of a run enter the array at `column`.
    """

    name: str
    side: int
    inputs: int
    runs: tuple[tuple[int, int, int], ...]
    words: int
    dtype: str = "f16"

    @property
    def outputs(self) -> int:
        return sum(count for _, count, _ in self.runs)

    @property
    def vectors(self) -> int:
        return self.inputs * self.outputs * self.words * word_columns(self.dtype)


@dataclass(frozen=True)
class Placed:
    """A matrix and the buffer it rests in."""

    matrix: Matrix
    buffer: Buffer


def runs_of(outputs: range, limit: int, column: int = 0) -> tuple[tuple[int, int, int], ...]:
    """Cut output blocks into runs of at most `limit`, so that their sums fit the accumulators."""
    starts = range(outputs.start, outputs.stop, limit)
    return tuple((s, min(limit, outputs.stop - s), column) for s in starts)
