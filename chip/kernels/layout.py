"""How the elements of a value lie in rows of lanes: a row for each block of them and each token.

Block b of a value holds elements `first`.. of its span, in lanes from `column` on; other lanes are
zero. The rows of a buffer go by (block, token).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chip.program import word_columns

LANES = 320
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """Elements `first`.., `count` of them, in the lanes from `column` on."""

    first: int
    count: int
    column: int = 0


@dataclass(frozen=True)
class Layout:
    """The spans of a value's blocks; each block takes `width` lanes from its column on."""

    spans: tuple[Span, ...]
    width: int

    @property
    def blocks(self) -> int:
        """Rows of a token."""
        return len(self.spans)

    @property
    def total(self) -> int:
        """Elements of a token."""
        return sum(span.count for span in self.spans)

    def runs(self, blocks: range, limit: int) -> tuple[tuple[int, int, int], ...]:
        """(first block, count, column) of neighbours with one column, at most `limit` in each."""
        found: list[tuple[int, int, int]] = []
        for block in blocks:
            column = self.spans[block].column
            if found and found[-1][2] == column and found[-1][1] < limit:
                start, count, _ = found.pop()
                found.append((start, count + 1, column))
            else:
                found.append((block, 1, column))
        return tuple(found)

    def pieces(self, block: int, elements: range) -> tuple[Span, ...]:
        """Those of some elements that are in a block, as one span if there are any."""
        span = self.spans[block]
        first = max(span.first, elements.start)
        count = min(span.first + span.count, elements.stop) - first
        return (Span(first, count, span.column + first - span.first),) if count > 0 else ()

    def rows(self, values: npt.NDArray[np.generic]) -> F32:
        """Elements [up to total] as block rows [blocks, lanes], zero elsewhere."""
        found = np.zeros((self.blocks, LANES), np.float32)
        for row, span in zip(found, self.spans, strict=True):
            mine = values[span.first : span.first + span.count]
            row[span.column : span.column + len(mine)] = mine
        return found

    def elements(self, rows: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The elements [.., total] of block rows [.., blocks, lanes]."""
        parts = [
            rows[..., block, span.column : span.column + span.count]
            for block, span in enumerate(self.spans)
        ]
        return np.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class Blocks:
    """A dimension cut into `count` blocks of `width` lanes, the last of them partly padding."""

    total: int
    count: int
    width: int


def blocks(total: int, dtype: str = "f16") -> Blocks:
    """Cut `total` elements as evenly as words of columns allow, at most 320 lanes a block."""
    count, group = -(-total // LANES), word_columns(dtype)
    width = -(-total // (count * group)) * group
    return Blocks(total, count, width)


def even(total: int, dtype: str = "f16") -> Layout:
    """The layout of `blocks`."""
    cut = blocks(total, dtype)
    starts = range(0, cut.count * cut.width, cut.width)
    return Layout(tuple(Span(s, max(0, min(cut.width, total - s))) for s in starts), cut.width)


def grouped(heads: int, head_lanes: int, per_row: int) -> Layout:
    """Heads side by side, `per_row` of them in a row."""
    width = per_row * head_lanes
    starts = range(0, heads, per_row)
    return Layout(
        tuple(Span(s * head_lanes, min(per_row, heads - s) * head_lanes) for s in starts), width
    )


def one_by_one(columns: Sequence[int], head_lanes: int) -> Layout:
    """A row for each head, at a column of its own."""
    spans = (Span(n * head_lanes, head_lanes, column) for n, column in enumerate(columns))
    return Layout(tuple(spans), head_lanes)


def repeated(layout: Layout, times: int) -> Layout:
    """Values of one layout after each other."""
    starts = range(0, times * layout.total, layout.total)
    spans = (replace(s, first=start + s.first) for start in starts for s in layout.spans)
    return Layout(tuple(spans), layout.width)


def halves(count: int) -> tuple[range, range]:
    """Output blocks of the east and of the west array."""
    east = -(-count // 2)
    return range(east), range(east, count)
