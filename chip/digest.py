"""The digest of a run: SHA-256 over the programs and, after every launch, what it left behind.

Hashing goes on beside the next launch, in a thread of its own, where there is more than one to
compute with: whoever reads a digest waits for it.
"""

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from chip.core import Array, Launch
from chip.jit import thread_count


class Digests(Mapping[int, bytes]):
    """The digest of each chip after a launch. Pickled, it is a dictionary."""

    def __init__(self, launches: Mapping[int, Launch]) -> None:
        """Begin to hash what the launches have left behind."""
        self._chips = tuple(launches)
        self._found: dict[int, bytes] | Future[dict[int, bytes]] = (
            _hashes(launches)
            if thread_count() < 2
            else _beside(os.getpid()).submit(_hashes, launches)
        )

    def __getitem__(self, chip: int) -> bytes:
        if isinstance(self._found, Future):
            self._found = self._found.result()
        return self._found[chip]

    def __iter__(self) -> Iterator[int]:
        return iter(self._chips)

    def __len__(self) -> int:
        return len(self._chips)

    def __reduce__(self) -> tuple[type[dict[int, bytes]], tuple[dict[int, bytes]]]:
        return dict, (dict(self),)


def _hashes(launches: Mapping[int, Launch]) -> dict[int, bytes]:
    return {chip: launch.digest for chip, launch in launches.items()}


@functools.cache
def _beside(_process: int) -> ThreadPoolExecutor:
    """The thread of this process that hashes: that of a parent does not survive a fork."""
    return ThreadPoolExecutor(1, "lpu-digest")


class RunDigest:
    """Equal for equal programs and inputs, whatever machine ran them."""

    def __init__(self, launches: Iterable[Mapping[int, bytes]]) -> None:
        """Take in the program bytes of every launch, by chip; launches come in order of name."""
        self._hash = hashlib.sha256()
        for programs in launches:
            for _, program in sorted(programs.items()):
                self._hash.update(program)
        self._last: tuple[Mapping[int, Mapping[str, Array]], Mapping[int, bytes], int] | None = None

    def fold(
        self,
        outputs: Mapping[int, Mapping[str, Array]],
        digests: Mapping[int, bytes],
        end_cycle: int,
    ) -> None:
        """Add one launch: each chip's digest and outputs (logits), by chip, and the cycles."""
        self._fold_last()
        self._last = outputs, digests, end_cycle  # its digests may not be there yet

    def _fold_last(self) -> None:
        if self._last is None:
            return
        outputs, digests, end_cycle = self._last
        self._last = None
        for chip in sorted(digests):
            self._hash.update(digests[chip])
            for _, values in sorted(outputs.get(chip, {}).items()):
                self._hash.update(np.ascontiguousarray(values).data)
        self._hash.update(str(end_cycle).encode())

    def hexdigest(self) -> str:
        """Return the digest so far."""
        self._fold_last()
        return self._hash.hexdigest()
