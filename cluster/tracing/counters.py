"""Counters of a timeline: how many queues of a chip are at work, and what its SRAM moves."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cluster.tracing.events import Counter

WINDOWS = 256  # at most, of a chip from its first instruction to its last
SHORTEST_CYCLES = 16


class Busy(NamedTuple):
    """A unit of a chip at work from a cycle to another: cycles of its queues, and bytes of SRAM."""

    chip: int
    unit: str
    first: int
    end: int
    queue_cycles: int
    sram_bytes: int


def counters(found: Iterable[Busy]) -> list[Counter]:
    """Busy queues, and SRAM bytes per cycle, of each chip: means over windows of equal length.

    What a kernel does is spread evenly over its time. The areas are exact: value times cycles, all
    windows added, is what was done.
    """
    by_chip: dict[int, list[Busy]] = defaultdict(list)
    for one in found:
        by_chip[one.chip].append(one)
    every = []
    for chip, mine in sorted(by_chip.items()):
        queues = [(one.first, one.end, one.queue_cycles) for one in mine]
        words = [(one.first, one.end, one.sram_bytes) for one in mine if one.sram_bytes]
        every.append(Counter(chip, "busy queues", "", _means(queues)))
        if words:
            every.append(Counter(chip, "SRAM bytes per cycle", "B", _means(words)))
    return every


def _means(spread: Sequence[tuple[int, int, int]]) -> list[tuple[int, float]]:
    """(cycle, mean from there on) of amounts that are spread over [first, end) each."""
    first, end = min(one[0] for one in spread), max(one[1] for one in spread)
    size = max(SHORTEST_CYCLES, -(-(end - first) // WINDOWS))
    edges = np.arange(first, end + size, size)
    # The amount done by each edge is a sum of ramps.
    starts, ends, amounts = (np.array(column, np.float64) for column in zip(*spread, strict=True))
    done = np.zeros(len(edges))
    for start, stop, amount in zip(starts, ends, amounts, strict=True):
        done += amount * np.clip((edges - start) / (stop - start), 0.0, 1.0)
    means = np.diff(done) / size
    found: list[tuple[int, float]] = []
    for cycle, value in zip(edges.tolist(), [*means.tolist(), 0.0], strict=True):
        shown = round(value, 3)
        if not found or found[-1][1] != shown:
            found.append((cycle, shown))
    return found
