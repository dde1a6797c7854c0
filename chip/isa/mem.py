"""MEM: the SRAM slices. Addresses are words of 320 B, one 16-B word in each of 20 tiles. [ISCA20]

The loop counters of an instruction (n, interval, step) are the published Repeat together with the
MEM address generator (Countdown, Step, Iterations).
"""

import numpy as np
import numpy.typing as npt

from chip.errors import ChipError
from chip.isa.op import op
from chip.sram import Sram

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]


@op("mem.read", "mem.r", "address:addr out:out.u8", "Read a,s", "mem.read", role="read")
def read(sram: Sram, index: int, address: Words) -> Bytes:
    """Drive the word at `address` onto a stream."""
    return sram.read(index, address)


@op("mem.write", "mem.w", "address:addr a:in.u8", "Write a,s", role="write")
def write(sram: Sram, index: int, address: Words, a: Bytes) -> None:
    """Store the vector passing on a stream at `address`."""
    sram.write(index, address, a)


@op(
    "mem.gather",
    "mem.r",
    "base:int words:int map:in.u16 out:out.u8",
    "Gather s,map",
    "mem.gather",
    role="gather",
)
def gather(sram: Sram, index: int, base: int, words: int, map: npt.NDArray[np.uint16]) -> Bytes:
    """Read, in each tile, the word `base` + the tile's address on the map stream (its first lane).

    The region of `words` lies in one bank, or in one constant region, if need be in two banks: it
    takes the port of each then. An address outside it is an error, never a wrap.
    """
    return sram.read_tiles(index, _checked(sram, index, base, words, map))


@op(
    "mem.scatter", "mem.w", "base:int words:int map:in.u16 a:in.u8", "Scatter s,map", role="scatter"
)
def scatter(
    sram: Sram, index: int, base: int, words: int, map: npt.NDArray[np.uint16], a: Bytes
) -> None:
    """Write, in each tile, the word `base` + the tile's address on the map stream (its first lane).

    The region of `words` lies in one bank; an address outside it is an error, never a wrap.
    """
    sram.write_tiles(index, _checked(sram, index, base, words, map), a)


def _checked(sram: Sram, index: int, base: int, words: int, map: npt.NDArray[np.uint16]) -> Words:
    offsets = map[:, :: sram.spec.superlane_lanes].astype(np.int64)
    check_indirect(index, base, words, offsets)
    return offsets + base


def check_indirect(index: int, base: int, words: int, offsets: Words) -> None:
    """Raise ChipError if an address from a map stream leaves its region."""
    if offsets.max(initial=0) >= words:
        raise ChipError(
            f"slice {index}: indirect address {int(offsets.max())} is outside the region of "
            f"{words} words at {base}; the map stream must stay inside the region"
        )
