"""Ports and cycles of all cables of a graph, in arrays by the edges of its `Fabric`."""

from functools import cached_property
from itertools import chain
from math import ceil

import numpy as np

from cluster.compiler.wiring import digest_of
from topology.building import Ports
from topology.fabric import Fabric, Ints


class CableEnds:
    """At which ports cables end, and how long vectors take over them."""

    def __init__(self, fabric: Fabric, ports: Ports) -> None:
        self.fabric, self._ports = fabric, ports

    @cached_property
    def cables(self) -> Ints:
        """Ports at both ends, latency and cycles per vector of each channel [channels, 4]."""
        fabric = self.fabric
        pairs = zip(fabric.tail.tolist(), fabric.head.tolist(), strict=True)
        ports = chain.from_iterable(self._ports[a][b] for a, b in pairs)
        mine = np.fromiter(ports, np.int64, fabric.channels)
        back = np.lexsort((fabric.tail, fabric.head))  # each edge's way back, as there is one
        edge = fabric.channel_edge
        number = np.arange(fabric.channels) - fabric.first_channel[edge]
        theirs = mine[fabric.first_channel[back[edge]] + number]
        pace = np.array([ceil(pace) for pace in fabric.paces])[fabric.pace]
        return np.stack((mine, theirs, fabric.wire_cycles[edge], pace[edge]), axis=1)

    @cached_property
    def digest(self) -> str:
        """The same for graphs with the same chips and cables, in this process and others."""
        return digest_of(self.fabric.alive, self.fabric.tail, self.fabric.head, self.cables)

    @cached_property
    def first(self) -> Ints:
        """The same of the first cable of each edge [edges, 4]."""
        return self.cables[self.fabric.first_channel]

    @cached_property
    def kinds(self) -> Ints:
        """A number for each edge, the same for those whose cables end and last alike."""
        sizes = self.cables.max(axis=0, initial=0) + 1
        alike = np.unique(np.ravel_multi_index(self.cables.T, sizes), return_inverse=True)[1]
        found = alike[self.fabric.first_channel]
        several = np.flatnonzero(self.fabric.cables > 1).tolist()
        known: dict[tuple[int, ...], int] = {}
        for edge in several:
            first, count = self.fabric.first_channel[edge], self.fabric.cables[edge]
            mine = tuple(sorted(alike[first : first + count].tolist()))
            found[edge] = known.setdefault(mine, len(alike) + len(known))
        return found

    def rows(self, members: Ints, to_members: Ints, tails: Ints, heads: Ints) -> tuple[Ints, Ints]:
        """Hops between members over all cables of links [cables, 6], and the first of each link."""
        edges = self.fabric.edges_between(tails, heads)
        count = self.fabric.cables[edges]
        first = np.cumsum(count) - count
        which = np.repeat(np.arange(len(edges)), count)
        channel = self.fabric.first_channel[edges][which] + np.arange(len(which)) - first[which]
        port, to_port, latency, interval = self.cables[channel].T
        columns = members[which], port, to_members[which], to_port, latency, interval
        return np.stack(columns, axis=1), first
