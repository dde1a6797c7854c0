"""Routes from some chips to as many others that share no cable, short ones first.

Whoever has the same to send as its neighbours may send to any of the other side. Then routes need
not meet where minimal ones would: between two racks of many that are joined by a single cable, all
but one go by way of others. As elsewhere nothing is adaptive: they follow from the graph alone.
"""

import numpy as np
from numpy.typing import NDArray

from topology.fabric import Fabric, Ints

Hops = NDArray[np.int8]
FURTHER_HOPS = 8  # than the shortest at most: in longer ones latency outweighs what queues cost


class DisjointRoutes:
    """Finds them on one fabric, length by length: a blocking flow of each, not always the best."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self._back = np.lexsort((fabric.tail, fabric.head))  # each edge's way back, as there is one
        self._heads: list[int] = fabric.head.tolist()
        self._row: list[int] = fabric.row.tolist()

    def between(self, sources: Ints, sinks: Ints) -> list[list[int]] | None:
        """Channels of a route to each sink, each from a source of its own.

        None if not all sinks are reached so; there are as many sources.
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
                    used = fabric.cables[edges] - free[edges]
                    found[sink] = (fabric.first_channel[edges] + used).tolist()
                    free[edges] -= 1
                    left.discard(sink)
                    starts.remove(chip)
            ends = [chip for chip in ends if chip in left]
        return [found[chip] for chip in sinks.tolist()]

    def _hops_to(self, ends: list[int], starts: list[int], free: Ints) -> Hops:
        """Hops from chips to the nearest end over free cables, as far as the nearest start; or -1.

        Of the chips that are as far as that only starts are looked at.
        """
        fabric = self.fabric
        near = np.full(fabric.chips, -1, np.int8)
        near[ends] = level = 0
        fresh = np.array(ends)
        leaving = self._leaving(np.array(starts))
        while len(fresh):
            level += 1
            last = leaving[(near[fabric.head[leaving]] == level - 1) & (free[leaving] > 0)]
            if len(last):
                near[fabric.tail[last]] = level
                break
            edges = self._leaving(fresh)
            edges = edges[(near[fabric.head[edges]] < 0) & (free[self._back[edges]] > 0)]
            near[fabric.head[edges]] = level
            fresh = np.flatnonzero(near == level)
        return near

    def _leaving(self, chips: Ints) -> Ints:
        """The edges from some chips."""
        row = self.fabric.row
        count = row[chips + 1] - row[chips]
        first = np.repeat(row[chips] - np.cumsum(count) + count, count)
        return first + np.arange(len(first))

    def _descend(self, chip: int, near: Hops, free: Ints, left: set[int]) -> list[int]:
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
            edge = self._nearer(at, near, free)
            if edge is None:
                near[at] = -1
                here.pop()
                del edges[-1:]
            else:
                edges.append(edge)
                here.append(self._heads[edge])
        return []

    def _nearer(self, chip: int, near: Hops, free: Ints) -> int | None:
        """The first free edge from a chip to one that is a hop nearer."""
        wanted = near[chip] - 1
        for edge in range(self._row[chip], self._row[chip + 1]) if wanted >= 0 else ():
            if near[self._heads[edge]] == wanted and free[edge] > 0:
                return edge
        return None
