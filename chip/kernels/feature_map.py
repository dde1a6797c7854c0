"""int8 images in SRAM: the upper half of the lines rests east, the lower half west, in bands.

A large image has two bands of lines on a side, one for each plane there, so that planes read and
write slices of their own; a small one has a band that two copies are made of. A band has a border
of zeros, one pixel wide, and at a cut the nearest line of the next band, so that a 3 x 3
convolution finds all its inputs in it. A block of channels takes one slice.
"""

from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass, field
from itertools import pairwise

from chip.isa.mxm import PLANES
from chip.kernels.layout import Blocks
from chip.program import WEIGHT_SLICES, Region
from chip.schedule import Buffer
from chip.spec import EAST, WEST, ChipSpec

CHANNEL_GROUP = 16  # int8 columns that one LW brings
BANDED_LINES = 8  # of an image with a band for each plane


def channels(total: int, lanes: int) -> Blocks:
    """Cut channels into the fewest blocks of whole weight groups, as evenly as can be."""
    count = -(-total // lanes)
    width = -(-total // (count * CHANNEL_GROUP)) * CHANNEL_GROUP
    return Blocks(total, count, width)


@dataclass
class Rooms:
    """Hands out words of the slices that weights leave free, from the emptiest bank of a side."""

    spec: ChipSpec
    used: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def take(self, name: str, side: int, rows: int, avoid: Set[int], dtype: str = "i8") -> Buffer:
        """A buffer of `rows` vectors outside the slices of `avoid`.

        Wider types take an aligned group of slices.
        """
        width = {"i8": 1, "i32": 4, "f32": 4}[dtype]
        first = side * self.spec.hemisphere_slices
        places = [
            (max(self.used[first + at + n, bank] for n in range(width)), first + at, bank)
            for at in range(0, self.spec.hemisphere_slices - WEIGHT_SLICES, width)
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
class Band:
    """Lines of an image on a side; `copies[copy][block]` are buffers, all copies with one content.

    Rows go by line and column, from one line and one column before the first.
    """

    side: int
    lines: range
    width: int
    copies: tuple[tuple[Buffer, ...], ...]

    @property
    def pitch(self) -> int:
        """Rows from one line to the next."""
        return self.width + 2

    def row(self, y: int, x: int) -> int:
        """Row of a pixel; y and x may be one outside."""
        return (y - self.lines.start + 1) * self.pitch + x + 1

    @property
    def slices(self) -> set[int]:
        """Slices that it rests in."""
        return {buffer.region.index for copy in self.copies for buffer in copy}


@dataclass(frozen=True)
class FeatureMap:
    """`height` x `width` pixels in bands from top to bottom.

    In a word are the channels of `beside` neighbours in a line, side by side; the last of three is
    the one behind. Whether bands have lines of the next ones around them, `bordered` says.
    """

    name: str
    height: int
    width: int
    channels: Blocks
    bands: tuple[Band, ...]
    beside: int = 1
    bordered: bool = False

    def of_side(self, side: int) -> tuple[Band, ...]:
        """The bands of a side, from top to bottom."""
        return tuple(band for band in self.bands if band.side == side)

    def band_of(self, line: int) -> Band:
        """The band that computes a line."""
        return next(band for band in self.bands if line in band.lines)

    @property
    def slices(self) -> set[int]:
        """Slices that it rests in."""
        return set().union(*(band.slices for band in self.bands))


def half_lines(height: int, side: int) -> range:
    """Lines of the upper (east) or lower half; the upper has the middle one."""
    cut = -(-height // 2)
    return range(cut) if side == EAST else range(cut, height)


def band_lines(height: int, side: int, cuts: int = 1) -> tuple[range, ...]:
    """Lines of each band of a side; `cuts` times as many as planes read."""
    mine, count = half_lines(height, side), cuts * (PLANES if height >= BANDED_LINES else 1)
    bounds = [mine.start + -(-len(mine) * n // count) for n in range(count + 1)]
    return tuple(range(a, b) for a, b in pairwise(bounds) if a < b)


@dataclass(frozen=True)
class Wanted:
    """An image to be given room, of `size` (height, width): see `FeatureMap`.

    A band for both planes has a copy for each. One that is read by the SXM alone, in `cuts` times
    as many bands, has a copy for each place in a word.
    """

    name: str
    size: tuple[int, int]
    channels: Blocks
    beside: int = 1
    bordered: bool = False
    cuts: int = 0


def feature_map(rooms: Rooms, wanted: Wanted, avoid: Set[int]) -> FeatureMap:
    """Room for an image, outside the slices of `avoid`."""
    (height, width), cuts = wanted.size, wanted.cuts
    found: list[Band] = []
    for side in (EAST, WEST):
        lines = band_lines(height, side, max(1, cuts))
        copies, taken = (
            wanted.beside if cuts else PLANES if height < BANDED_LINES else 1,
            set(avoid),
        )
        for number, mine in enumerate(lines):
            rows = (len(mine) + 2) * (width + 2)
            made = []
            for copy in range(copies):
                names = [
                    f"{wanted.name}.{side}{number}.{copy}.{n}" for n in range(wanted.channels.count)
                ]
                made.append(tuple(rooms.take(one, side, rows, taken) for one in names))
                taken |= {buffer.region.index for buffer in made[-1]}
            found.append(Band(side, mine, width, tuple(made)))
    image = wanted.name, height, width, wanted.channels
    return FeatureMap(*image, tuple(found), wanted.beside, wanted.bordered)
