"""What a launch leaves behind on a chip, as the bytes of which a digest is taken.

The words written are taken run by run. A run is the words `low` to `high` of all the slices of a
group of four that were written from `low` to `high`; where these are all four, it is taken as it
lies in memory.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from chip.sram import GROUP, Bytes, Sram, Words

Written = tuple[tuple[int, int, int], ...]


def left_behind(
    sram: Sram,
    packets: Iterable[bytes],
    written: Written,
    scattered: Iterable[tuple[int, int, Words]],
    cycles: Sequence[int],
) -> bytes:
    """The packets, a copy of the words that were written, and the cycles.

    `written` are (slice, first word, last word), `scattered` (first slice, slices, words).
    """
    runs = [*_written(sram, written), *_scattered(sram, scattered)]
    return b"".join([*packets, *(run.data for run in runs), str(cycles).encode()])


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
