"""SRAM of one chip: 88 slices of 8,192 words of 320 bytes.

Four neighbouring slices share one array [words, lanes, 4], so that a 16- or 32-bit vector, whose
byte planes rest in neighbouring slices, is a plain typed view. Groups are allocated when first
used, and the host's kernel backs only the pages that are touched: small ones, but for images of
weights. With huge ones, which NumPy asks for, chips that hold a few rows take four times as much.
"""

import mmap
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from chip.arrays import Array, DType
from chip.jit.layout import STATISTICS
from chip.spec import ChipSpec

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]
GROUP = 4
Places = tuple[tuple[int, int], ...]  # first slices of quads, and how much further on words are
HUGE_PAGE = 2 << 20  # bytes
Kept = TypeVar("Kept")


def _pages(size: int) -> mmap.mmap:
    """Zeros that cost nothing until they are written.

    Private ones: those that `mmap` makes by itself could be shared with a child, and of such
    memory Linux makes no huge pages unless it is told to for all programs.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # not Unix
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Sram:
    """Byte-addressed by (slice, word, lane); typed views by (first slice, type)."""

    def __init__(self, spec: ChipSpec) -> None:
        self.spec = spec
        # Indirect accesses (family, slice, addresses), noted while `chip.faults` wants them.
        self.indirect: list[tuple[str, int, Words]] | None = None
        self._groups: list[Bytes | None] = [None] * (-(-spec.slices // GROUP))
        self._memory: dict[int, mmap.mmap] = {}  # of each group
        self._statistics: dict[Places, npt.NDArray[np.void]] = {}
        # of each group of slices: what is known of words that have a fourth there, so far on
        self._known: dict[int, list[tuple[int, npt.NDArray[np.void]]]] = {}
        self._kept: dict[object, Any] = {}
        self._kept_words: dict[int, npt.NDArray[np.bool_]] = {}  # of each group

    def group(self, index: int) -> Bytes:
        """The array [words, lanes, 4] that holds slice `index`."""
        array = self._groups[index // GROUP]
        if array is None:
            shape = (self.spec.slice_words, self.spec.lanes, GROUP)
            memory = self._memory[index // GROUP] = _pages(shape[0] * shape[1] * GROUP)
            array = np.frombuffer(memory, np.uint8).reshape(shape)
            self._groups[index // GROUP] = array
        return array

    def _fill(self, index: int, words: slice) -> None:
        """Ask for huge pages where many words are about to be written."""
        row_bytes = self.spec.lanes * GROUP
        first = words.start * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        size = words.stop * row_bytes - first
        if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
            self.group(index)
            self._memory[index // GROUP].madvise(mmap.MADV_HUGEPAGE, first, size)

    def statistics(self, places: Places) -> npt.NDArray[np.void]:
        """What compiled products know of each word of weights whose fourths are at `places`.

        These are the first slices of quads, and how much further on the words are there. What is
        known are `Statistics`, whose `lanes` are 0 for words that were written since.
        """
        if places not in self._statistics:
            known = self._statistics[places] = np.zeros(self.spec.slice_words, STATISTICS)
            for index, further in places:
                self._known.setdefault(index // GROUP, []).append((further, known))
        return self._statistics[places]

    def written(self, index: int, words: slice | Words) -> None:
        """Forget what is known of words, as slice `index` has been written there."""
        marked = self._kept_words.get(index // GROUP)
        if marked is not None and marked[words].any():
            self._kept.clear()
            self._kept_words.clear()
        for further, known in self._known.get(index // GROUP, ()):
            if not further:
                known["lanes"][words] = 0
                continue
            there = np.arange(self.spec.slice_words)[words] - further
            known["lanes"][there[(there >= 0) & (there < len(known))]] = 0

    def kept(self, key: object, places: Places, words: Words, make: Callable[[], Kept]) -> Kept:
        """What `make` makes of words of some quads of slices, until one of them is written."""
        if key not in self._kept:
            for index, further in places:
                empty = np.zeros(self.spec.slice_words, np.bool_)
                self._kept_words.setdefault(index // GROUP, empty)[words + further] = True
            self._kept[key] = make()
        kept: Kept = self._kept[key]
        return kept

    def typed(self, index: int, dtype: DType) -> Array:
        """View [words, lanes] of the elements whose lowest byte plane is slice `index`.

        The slice must be a multiple of the element size.
        """
        return self.group(index).view(dtype)[:, :, index % GROUP // dtype.itemsize]

    def store(self, index: int, words: slice | Words, values: Array) -> None:
        """Write elements [n, lanes] whose lowest byte plane is slice `index`."""
        if isinstance(words, slice):
            self._fill(index, words)
        self.typed(index, values.dtype)[words] = values
        self.written(index, words)

    def read(self, index: int, address: Words) -> Bytes:
        """Words [n, lanes] of one slice."""
        words: Bytes = self.group(index)[address, :, index % GROUP]
        return words

    def write(self, index: int, address: Words, vectors: Bytes) -> None:
        self.group(index)[address, :, index % GROUP] = vectors
        self.written(index, address)

    def read_tiles(self, index: int, address: Words) -> Bytes:
        """Words [n, lanes] read at one address per tile [n, tiles], of all or the first tiles."""
        self._note("mem.r", index, address)
        tile = self.spec.superlane_lanes
        plane: Bytes = self.group(index)[:, :, index % GROUP]
        lanes = self._lanes()[: address.shape[1] * tile]
        words: Bytes = plane[np.repeat(address, tile, axis=1), lanes]
        return words

    def write_tiles(self, index: int, address: Words, vectors: Bytes) -> None:
        """Write words [n, lanes] at one address per tile, or of the first tiles; later ones win."""
        self._note("mem.w", index, address)
        tile = self.spec.superlane_lanes
        plane, lanes = self.group(index)[:, :, index % GROUP], self._lanes()[: vectors.shape[1]]
        for row, vector in zip(np.repeat(address, tile, axis=1), vectors, strict=True):
            plane[row, lanes] = vector
        self.written(index, np.unique(address))

    def scatter_columns(self, index: int, address: Words, rows: Array) -> None:
        """Write fp16 rows [pairs, n, lanes] into slice pairs from `index` on.

        `address` [pairs, n, tiles] is the word in each tile; later rows of a pair win.
        """
        if not (address == address[:, :, :1]).all():
            for pair, (words, vectors) in enumerate(zip(address, rows, strict=True)):
                planes = vectors.view(np.uint8).reshape(*vectors.shape, 2)
                for byte in (0, 1):
                    self.write_tiles(index + 2 * pair + byte, words, planes[..., byte])
            return
        for pair, vectors in enumerate(rows):
            for byte in (0, 1):
                self._note("mem.w", index + 2 * pair + byte, address[pair])
            self.store(index + 2 * pair, address[pair, :, 0], vectors)

    def _note(self, family: str, index: int, address: Words) -> None:
        if self.indirect is not None:
            self.indirect.append((family, index, np.array(address)))

    def _lanes(self) -> Words:
        return np.arange(self.spec.lanes)
