"""What the launches of a chip may change in its SRAM, in blocks of words: taken out and put back.

Constants are not part of it, as no program may write to them, and nothing lives on between launches
outside the SRAM: weights are installed, and accumulators set, by the launch that uses them.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.errors import ChipError
from chip.linker import Linked, Span
from chip.program import Region
from chip.sram import GROUP, Sram

BLOCK_WORDS = 64
DIGEST_BYTES = 16
Block = tuple[int, int, bytes]  # slice, first word, contents [words x lanes]


def spans(linked: Linked) -> Iterator[Span]:
    """All a launch can change: by direct writes, in scatter regions, by the host's inputs."""
    yield from linked.written
    yield from linked.scattered
    for region in linked.program.inputs.values():
        yield from _region_spans(region)


def _region_spans(region: Region) -> Iterator[Span]:
    if region.words:
        for index in range(region.index, region.index + region.slices):
            yield index, region.address, region.address + region.words - 1


class Changes:
    """The changeable words of one SRAM. A block counts as changed until `take` has returned it."""

    def __init__(self, sram: Sram) -> None:
        self._sram = sram
        self._words: dict[int, npt.NDArray[np.bool_]] = {}
        self._known: dict[tuple[int, int], bytes] = {}

    def watch(self, found: Iterable[Span]) -> None:
        """Add to what may change."""
        for index, first, last in found:
            if index not in self._words:
                self._words[index] = np.zeros(self._sram.spec.slice_words, np.bool_)
            self._words[index][first : last + 1] = True

    def take(self) -> list[Block]:
        """The blocks that differ from what they were at the last call; from zero at the first."""
        changed = []
        for index, first, plane in self._blocks():
            if (index, first) in self._known or plane.any():
                data = plane.tobytes()
                digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
                if self._known.get((index, first)) != digest:
                    self._known[index, first] = digest
                    changed.append((index, first, data))
        return changed

    def restore(self, blocks: Iterable[Block]) -> None:
        """Make all changeable words those of `blocks`, and zero elsewhere; raises ChipError."""
        places = {(index, first): plane for index, first, plane in self._blocks()}
        for (index, first), plane in places.items():
            plane[:] = 0
            self._sram.written(index, slice(first, first + len(plane)))
        self._known = {}
        for index, first, data in blocks:
            if (index, first) not in places or places[index, first].size != len(data):
                raise ChipError(f"a checkpoint's slice {index}, word {first} is not of this run")
            plane = places[index, first]
            plane[:] = np.frombuffer(data, np.uint8).reshape(plane.shape)
            self._sram.written(index, slice(first, first + len(plane)))
            digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            self._known[index, first] = digest

    def _blocks(self) -> Iterator[tuple[int, int, Array]]:
        """(slice, first word, view [words, lanes]) of each run of changeable words, cut short."""
        for index, words in sorted(self._words.items()):
            edges = np.flatnonzero(np.diff(words, prepend=False, append=False)).reshape(-1, 2)
            plane = self._sram.group(index)[:, :, index % GROUP]
            for start, stop in edges.tolist():
                for first in range(start, stop, BLOCK_WORDS):
                    yield index, first, plane[first : min(first + BLOCK_WORDS, stop)]
