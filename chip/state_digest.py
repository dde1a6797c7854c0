"""What a launch leaves behind on a chip, as one digest.

The words written are hashed run by run, and then the hashes: so threads can share the work. A run
is the words `low` to `high` of all the slices of a group of four that were written from `low` to
`high`; where these are all four, it is hashed as it lies in memory.
"""

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chip.jit import thread_count
from chip.sram import GROUP, Bytes, Sram, Words

Written = tuple[tuple[int, int, int], ...]
LARGE = 1 << 16  # bytes worth a thread


def digest(
    sram: Sram,
    packets: Iterable[bytes],
    written: Written,
    scattered: Iterable[tuple[int, int, Words]],
    cycles: Sequence[int],
) -> bytes:
    """SHA-256 over packets, the SHA-256 of each run of words, and the cycles.

    `written` are (slice, first word, last word), `scattered` (first slice, slices, words).
    """
    whole = hashlib.sha256()
    for packet in packets:
        whole.update(packet)
    runs = [*_written(sram, written), *_scattered(sram, scattered)]
    for found in _hashes(runs):
        whole.update(found)
    whole.update(str(cycles).encode())
    return whole.digest()


def _written(sram: Sram, written: Written) -> list[Bytes]:
    return [
        _planes(sram.group(group * GROUP)[low : high + 1], planes)
        for (group, low, high), planes in _runs(written)
    ]


@functools.lru_cache(maxsize=64)
def _runs(written: Written) -> list[tuple[tuple[int, int, int], list[int]]]:
    """Runs (group, first word, last word) and the slices of each; a program's are always equal."""
    members: dict[tuple[int, int, int], list[int]] = {}
    for index, low, high in sorted(written):
        members.setdefault((index // GROUP, low, high), []).append(index % GROUP)
    return list(members.items())


def _scattered(sram: Sram, scattered: Iterable[tuple[int, int, Words]]) -> list[Bytes]:
    return [
        _planes(sram.group(first).take(words, axis=0), planes)
        for index, count, words in sorted(scattered, key=lambda s: (s[0], *s[2].tolist()))
        for first, planes in _groups(index, count)
    ]


@functools.lru_cache(maxsize=64)
def _groups(index: int, count: int) -> list[tuple[int, list[int]]]:
    """The groups of some slices: the first slice of each, and which of its four are meant."""
    inside: dict[int, list[int]] = {}
    for number in range(index, index + count):
        inside.setdefault(number - number % GROUP, []).append(number % GROUP)
    return list(inside.items())


def _planes(words: Bytes, planes: list[int]) -> Bytes:
    return words if len(planes) == GROUP else np.ascontiguousarray(words[:, :, planes])


def _hashes(runs: list[Bytes]) -> list[bytes]:
    helpers = thread_count()
    large = [run for run in runs if run.nbytes >= LARGE]
    if helpers < 2 or len(large) < 2:
        return [_hash(run) for run in runs]
    found = iter(_pool(os.getpid(), helpers).map(_hash, large))  # hashlib lets go of the GIL
    small = [None if run.nbytes >= LARGE else _hash(run) for run in runs]
    return [next(found) if one is None else one for one in small]


def _hash(run: Bytes) -> bytes:
    return hashlib.sha256(run.data).digest()


@functools.cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of a parent do not survive a fork."""
    return ThreadPoolExecutor(threads, "lpu-digest")
