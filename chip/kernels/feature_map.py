"""int8 images in SRAM: the upper half of the lines rests east, the lower half west.

A half has a border of zeros, one pixel wide, and at the cut the nearest line of the other half, so
that a 3 x 3 convolution finds all its inputs on its own side. A block of channels takes one slice.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from chip.kernels.layout import Blocks
from chip.kernels.memory import INNER_SLICES
from chip.program import Region
from chip.schedule import Buffer
from chip.spec import EAST, WEST, ChipSpec

CHANNEL_GROUP = 16  # int8 columns that one LW brings


def channels(total: int, lanes: int) -> Blocks:
    """Cut channels into the fewest blocks of whole weight groups, as evenly as can be."""
    count = -(-total // lanes)
    width = -(-total // (count * CHANNEL_GROUP)) * CHANNEL_GROUP
    return Blocks(total, count, width)


@dataclass
class Rooms:
    """Hands out words of the inner slices, from the emptiest bank of a side."""

    spec: ChipSpec
    used: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def take(self, name: str, side: int, rows: int, avoid: set[int], dtype: str = "i8") -> Buffer:
        """A buffer of `rows` vectors outside the slices of `avoid`.

        Wider types take an aligned group of slices.
        """
        width = {"i8": 1, "i32": 4, "f32": 4}[dtype]
        first = side * self.spec.hemisphere_slices
        places = [
            (max(self.used[first + at + n, bank] for n in range(width)), first + at, bank)
            for at in range(0, INNER_SLICES, width)
            for bank in range(self.spec.slice_banks)
            if not {first + at + n for n in range(width)} & avoid
        ]
        level, index, bank = min(places)
        assert level + rows <= self.spec.bank_words, f"{name} does not fit"
        for n in range(width):
            self.used[index + n, bank] = level + rows
        address = bank * self.spec.bank_words + level
        self.buffers[name] = Buffer(name, Region(index, address, rows, dtype))
        return self.buffers[name]


@dataclass(frozen=True)
class FeatureMap:
    """`height` x `width` pixels; `halves[side][block]` are its buffers.

    `copies` are others with the same content, for the second plane of a side, if there are any.
    """

    name: str
    height: int
    width: int
    channels: Blocks
    halves: tuple[tuple[Buffer, ...], tuple[Buffer, ...]]
    copies: tuple[tuple[Buffer, ...], tuple[Buffer, ...]] | None = None

    def all_of(self, side: int, block: int) -> list[Buffer]:
        """The buffers of a block: one, or two with the same content."""
        both = (self.halves, self.copies) if self.copies else (self.halves,)
        return [found[side][block] for found in both]

    def lines(self, side: int) -> range:
        """Lines that rest on a side."""
        return half_lines(self.height, side)

    @property
    def pitch(self) -> int:
        """Rows from one line to the next."""
        return self.width + 2

    def row(self, side: int, y: int, x: int) -> int:
        """Row of a pixel in its half; y and x may be one outside."""
        return (y - self.lines(side).start + 1) * self.pitch + x + 1

    @property
    def slices(self) -> set[int]:
        """Slices that it rests in."""
        halves = (*self.halves, *(self.copies or ()))
        return {buffer.region.index for half in halves for buffer in half}


def half_lines(height: int, side: int) -> range:
    """Lines of the upper (east) or lower half; the upper has the middle one."""
    cut = -(-height // 2)
    return range(cut) if side == EAST else range(cut, height)


def feature_map(
    rooms: Rooms,
    name: str,
    size: tuple[int, int],
    cut: Blocks,
    avoid: set[int],
    residual: FeatureMap | None = None,
    twice: bool = False,
) -> FeatureMap:
    """Room for an image of `size` (height, width), beside the slices of `avoid`, or for two copies.

    A block also keeps clear of the block of the residual that is added to it.
    """
    height, width = size
    halves = []
    for side in (EAST, WEST):
        rows = (len(half_lines(height, side)) + 2) * (width + 2)
        mine = []
        for block in range(cut.count):
            near = {residual.halves[side][block].region.index} if residual else set()
            mine.append(rooms.take(f"{name}.{side}.{block}", side, rows, avoid | near))
        halves.append(tuple(mine))
    found = FeatureMap(name, height, width, cut, (halves[0], halves[1]))
    if not twice:
        return found
    other = feature_map(rooms, f"{name}.copy", size, cut, avoid | found.slices, residual)
    return replace(found, copies=other.halves)
