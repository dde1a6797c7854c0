"""Any list of packets as one static, conflict-free schedule.

Each packet is one run over its minimal route that moves through without waiting. Packets are
placed longest route first within the order given; each starts at the first cycle at which all
cables of its route are free at the right offsets, gaps left by earlier packets included.
"""

from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.errors import LinkConflict
from topology.fabric import Fabric, Ints, compiled
from topology.firstfit import first_fit
from topology.routes import paths, spread_over


@dataclass(frozen=True)
class Traffic:
    """Timed packets: packet i crosses channel[first[i]:first[i + 1]], departing at `departs`."""

    fabric: Fabric
    vectors: Ints
    start_cycle: Ints
    arrival_cycle: Ints  # of the last vector
    first: Ints
    channel: Ints
    departs: Ints  # per hop
    busy_cycles: Ints  # per hop

    @property
    def cycles(self) -> int:
        """Until the last vector is there."""
        return int(self.arrival_cycle.max(initial=0))

    @property
    def hops(self) -> int:
        """Cable crossings of all packets."""
        return len(self.channel)

    @property
    def lower_bound_cycles(self) -> int:
        """The busiest cable's own transfers, which no schedule of these routes can shorten."""
        load = np.bincount(self.channel, self.busy_cycles, self.fabric.channels)
        return int(load.max(initial=0))

    def check(self) -> None:
        """Raise LinkConflict if two packets are on a cable at once."""
        order = np.lexsort((self.departs, self.channel))
        channel, start = self.channel[order], self.departs[order]
        end = start + self.busy_cycles[order]
        clash = (channel[1:] == channel[:-1]) & (start[1:] < end[:-1])
        if clash.any():
            at = int(clash.argmax()) + 1
            packet = np.searchsorted(self.first, order[at - 1 : at + 1], "right") - 1
            edge = int(self.fabric.channel_edge[channel[at]])
            cable = int(channel[at] - self.fabric.first_channel[edge])
            ends = int(self.fabric.tail[edge]), int(self.fabric.head[edge])
            owners = f"packet {packet[1]}", f"packet {packet[0]}"
            raise LinkConflict(ends[0], ends[1], cable, int(start[at]), *owners)


def schedule(graph: nx.Graph, src: Ints, dst: Ints, vectors: Ints) -> Traffic:
    """Return the schedule of packets src[i] -> dst[i]; those within one chip take no time."""
    fabric = compiled(graph)
    found = paths(fabric, src, dst)
    hops = found.hops
    packet = np.repeat(np.arange(len(src)), hops)
    cable = spread_over(fabric.cables[found.edges], packet, found.edges)
    channel = fabric.first_channel[found.edges] + cable
    latency = fabric.latency_cycles[found.edges]
    before = np.concatenate(([0], np.cumsum(latency)))
    offset = before[:-1] - before[found.start[packet]]
    p, q = fabric.pace_arrays()
    slowest = np.zeros(len(src), np.int64)
    np.maximum.at(slowest, packet, fabric.pace[found.edges])
    busy = -(-np.asarray(vectors) * p[slowest] // q[slowest])
    tail = -(-(np.asarray(vectors) - 1) * p[slowest] // q[slowest])
    order = np.argsort(-hops, kind="stable")  # short routes fit into the gaps of long ones
    earliest, free = np.zeros(len(src), np.int64), np.zeros(fabric.channels, np.int64)
    start = first_fit(order, earliest, busy, found.start, channel, offset, free)
    return Traffic(
        fabric=fabric,
        vectors=np.asarray(vectors),
        start_cycle=start,
        arrival_cycle=start + np.diff(before[found.start]) + np.where(hops > 0, tail, 0),
        first=found.start,
        channel=channel,
        departs=start[packet] + offset,
        busy_cycles=busy[packet],
    )
