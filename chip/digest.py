"""The digest of a run: SHA-256 over the programs and, after every launch, what it left behind.

Hashing goes on beside the next launch, in a thread of its own, where there is more than one to
compute with: whoever reads a digest waits for it.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from chip.core import Array, Launch
from chip.jit import thread_count

Found = TypeVar("Found")


@functools.cache
def _beside(_process: int) -> ThreadPoolExecutor:
    """The thread of this process that hashes: that of a parent does not survive a fork."""
    return ThreadPoolExecutor(1, "lpu-digest")


def _begin(hashed: Callable[[], Found]) -> Future[Found]:
    """Hash beside what follows, after all that has begun before; at once with one thread."""
    if thread_count() > 1:
        return _beside(os.getpid()).submit(hashed)
    done: Future[Found] = Future()
    done.set_result(hashed())
    return done


class Digests(Mapping[int, bytes]):
    """The digest of each chip after a launch. Pickled, it is a dictionary."""

    def __init__(self, launches: Mapping[int, Launch]) -> None:
        """Begin to hash what the launches have left behind."""
        self._chips = tuple(launches)
        self._found = _begin(lambda: {chip: one.digest for chip, one in launches.items()})

    def __getitem__(self, chip: int) -> bytes:
        return self._found.result()[chip]

    def __iter__(self) -> Iterator[int]:
        return iter(self._chips)

    def __len__(self) -> int:
        return len(self._chips)

    def __reduce__(self) -> tuple[type[dict[int, bytes]], tuple[dict[int, bytes]]]:
        return dict, (dict(self),)


class Hash:
    """SHA-256 of what it is given, piece by piece."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, pieces: Callable[[], Iterable[bytes | Array]]) -> None:
        """Take in pieces, which nobody may change any more; waits for those of the last call."""

        def take_in() -> None:
            for piece in pieces():
                data = piece if isinstance(piece, bytes) else np.ascontiguousarray(piece).data
                self._hash.update(data)

        self._wait()
        self._last = _begin(take_in)

    def hexdigest(self) -> str:
        """Return the digest so far."""
        self._wait()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()


class RunDigest(Hash):
    """Equal for equal programs and inputs, whatever machine ran them."""

    def __init__(self, launches: Iterable[Mapping[int, bytes]]) -> None:
        """Take in the program bytes of every launch, by chip; launches come in order of name."""
        super().__init__()
        for programs in launches:
            for _, program in sorted(programs.items()):
                self._hash.update(program)

    def fold(
        self,
        outputs: Mapping[int, Mapping[str, Array]],
        digests: Mapping[int, bytes],
        end_cycle: int,
    ) -> None:
        """Add one launch: each chip's digest and outputs (logits), by chip, and the cycles."""

        def pieces() -> Iterator[bytes | Array]:
            for chip in sorted(digests):
                yield digests[chip]
                yield from (values for _, values in sorted(outputs.get(chip, {}).items()))
            yield str(end_cycle).encode()

        self.update(pieces)
