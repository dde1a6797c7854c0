"""Routes from some chips to as many others that share no cable, short ones first.

Whoever has the same to send as its neighbours may send to any of the other side. Then routes need
not meet where minimal ones would: between two racks of many that are joined by a single cable, all
but one go by way of others. As elsewhere nothing is adaptive: they follow from the graph alone.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from topology.fabric import Fabric, Ints

FURTHER_HOPS = 8  # than the shortest: what such detours would take is longer than most queues


class DisjointRoutes:
    """Finds them on one fabric."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self._back = np.lexsort((fabric.tail, fabric.head))  # each edge's way back, as there is one
        self._heads: list[int] = fabric.head.tolist()
        self._row: list[int] = fabric.row.tolist()

    def between(self, sources: Ints, sinks: Ints) -> list[list[int]] | None:
        """Channels of a route to each sink, each from a source of its own; None if there are none.

        A blocking flow for each length, the shortest first: deterministic, seldom the best.
        """
        fabric = self.fabric
        free = fabric.cables.copy()
        found: dict[int, list[int]] = {}
        starts, ends = sources.tolist(), sinks.tolist()
        most = None
        while ends:
            near = self._hops_to(ends, starts, free)
            reached = [chip for chip in starts if near[chip] >= 0]
            least = min((int(near[chip]) for chip in reached), default=0)
            most = most or least + FURTHER_HOPS
            if not 0 < least <= most:
                return None
            left = set(ends)
            for chip in reached:
                if near[chip] != least:
                    continue
                edges = self._descend(chip, near, free, left)
                if edges:
                    sink = self._heads[edges[-1]]
                    free[edges] -= 1
                    found[sink] = (fabric.first_channel[edges] + free[edges]).tolist()
                    left.discard(sink)
                    starts.remove(chip)
            ends = [chip for chip in ends if chip in left]
        return [found[chip] for chip in sinks.tolist()]

    def _hops_to(self, ends: list[int], starts: list[int], free: Ints) -> NDArray[np.int8]:
        """Hops from each chip to the nearest end over free cables, as far as the nearest start."""
        fabric = self.fabric
        near = np.full(fabric.chips, -1, np.int8)
        near[ends] = 0
        fresh, level = np.array(ends), 0
        wanted = np.array(starts)
        while len(fresh) and (near[wanted] < 0).all():
            level += 1
            count = fabric.row[fresh + 1] - fabric.row[fresh]
            first = np.repeat(fabric.row[fresh] - np.cumsum(count) + count, count)
            edges = first + np.arange(count.sum())
            edges = edges[(near[fabric.head[edges]] < 0) & (free[self._back[edges]] > 0)]
            fresh = np.unique(fabric.head[edges])
            near[fresh] = level
        return near

    def _descend(
        self, chip: int, near: NDArray[np.int8], free: Ints, left: set[int]
    ) -> list[int]:
        """Edges of a route that comes nearer with each hop; [] if there is none any more.

        Chips that lead nowhere are struck out of `near`.
        """
        edges: list[int] = []
        here = [chip]
        while here:
            at = here[-1]
            if near[at] == 0:
                if at in left:
                    return edges
                near[at] = -1
            for edge in self._nearer(at, near, free):
                edges.append(edge)
                here.append(self._heads[edge])
                break
            else:
                near[at] = -1
                here.pop()
                if edges:
                    edges.pop()
        return []

    def _nearer(self, chip: int, near: NDArray[np.int8], free: Ints) -> Iterator[int]:
        wanted = near[chip] - 1
        if wanted < 0:
            return
        for edge in range(self._row[chip], self._row[chip + 1]):
            if near[self._heads[edge]] == wanted and free[edge] > 0:
                yield edge
