"""What a launch leaves behind on a chip, as the bytes of which a digest is taken.

The words written are taken run by run. A run is the words `low` to `high` of all the slices of a
group of four that were written from `low` to `high`; where these are all four, it is taken as it
lies in memory.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from chip.sram import GROUP, Bytes, Sram, Words

Planes = list[int]  # of the four slices of a group


class Written:
    """Where a program writes on one chip."""

    def __init__(self, sram: Sram, spans: Iterable[tuple[int, int, int]]) -> None:
        """`spans` are (slice, first word, last word)."""
        members: dict[tuple[int, int, int], Planes] = {}
        for index, low, high in sorted(spans):
            members.setdefault((index // GROUP, low, high), []).append(index % GROUP)
        self._sram = sram
        self._runs = [
            (sram.group(group * GROUP)[low : high + 1], planes)
            for (group, low, high), planes in members.items()
        ]

    def left_behind(
        self,
        packets: Iterable[bytes],
        scattered: Iterable[tuple[int, int, Words]],
        cycles: Sequence[int],
    ) -> bytes:
        """The packets, a copy of the words that were written, and the cycles.

        `scattered` are (first slice, slices, words) of those whose addresses are data.
        """
        runs = [_planes(words, planes) for words, planes in self._runs]
        together: dict[tuple[int, int], list[Words]] = {}
        for index, count, words in scattered:
            together.setdefault((index, count), []).append(words)
        for (index, count), found in sorted(together.items()):
            words = np.unique(np.concatenate(found))
            runs += [
                _planes(self._sram.group(first)[words], planes)
                for first, planes in _groups(index, count)
            ]
        return b"".join([*packets, *(run.data for run in runs), str(cycles).encode()])


def _groups(index: int, count: int) -> list[tuple[int, Planes]]:
    """The groups of some slices: the first slice of each, and which of its four are meant."""
    inside: dict[int, Planes] = {}
    for number in range(index, index + count):
        inside.setdefault(number - number % GROUP, []).append(number % GROUP)
    return list(inside.items())


def _planes(words: Bytes, planes: Planes) -> Bytes:
    return words if len(planes) == GROUP else np.ascontiguousarray(words[:, :, planes])
