"""Any list of packets as one static, conflict-free schedule.

Each packet is one run over its minimal route that moves through without waiting. Packets are
placed longest route first within the order given; each starts at the first cycle at which all
cables of its route are free at the right offsets, gaps left by earlier packets included.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.errors import LinkConflict
from topology.fabric import Fabric, Ints, compiled
from topology.routes import paths, scrambled


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
    cable = scrambled(np.asarray(src), np.asarray(dst), np.arange(len(src)))[packet]
    cable %= fabric.cables[found.edges].astype(np.uint64)
    channel = fabric.first_channel[found.edges] + cable.astype(np.int64)
    latency = fabric.latency_cycles[found.edges]
    before = np.concatenate(([0], np.cumsum(latency)))
    offset = before[:-1] - before[found.start[packet]]
    p, q = fabric.pace_arrays()
    slowest = np.zeros(len(src), np.int64)
    np.maximum.at(slowest, packet, fabric.pace[found.edges])
    busy = -(-np.asarray(vectors) * p[slowest] // q[slowest])
    tail = -(-(np.asarray(vectors) - 1) * p[slowest] // q[slowest])
    start = _first_fit(channel.tolist(), offset.tolist(), found.start.tolist(), busy.tolist(), hops)
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


def _first_fit(
    channel: list[int], offset: list[int], first: list[int], busy: list[int], hops: Ints
) -> Ints:
    """Place packets one by one, long routes first; a cable keeps its gaps and its end."""
    start = np.zeros(len(busy), np.int64)
    gaps: dict[int, list[tuple[int, int]]] = {}  # (end, begin) of free spans before the end
    ended: dict[int, int] = {}
    for i in np.argsort(-hops, kind="stable").tolist():
        need, begin = busy[i], 0
        span = range(first[i], first[i + 1])
        settled = False
        while not settled:
            settled = True
            for hop in span:
                wanted = begin + offset[hop]
                free = _first_free(gaps, ended, channel[hop], wanted, need)
                if free > wanted:
                    begin, settled = free - offset[hop], False
        for hop in span:
            _take(gaps, ended, channel[hop], begin + offset[hop], need)
        start[i] = begin
    return start


def _first_free(
    gaps: dict[int, list[tuple[int, int]]], ended: dict[int, int], channel: int, at: int, need: int
) -> int:
    end = ended.get(channel, 0)
    if at >= end:
        return at
    spans = gaps.get(channel)
    if spans:
        for gap_end, gap_begin in spans[bisect_right(spans, (at + need - 1, 1 << 62)) :]:
            begin = max(gap_begin, at)
            if begin + need <= gap_end:
                return begin
    return end


def _take(
    gaps: dict[int, list[tuple[int, int]]], ended: dict[int, int], channel: int, at: int, need: int
) -> None:
    end = ended.get(channel, 0)
    if at >= end:
        if at > end:
            gaps.setdefault(channel, []).append((at, end))
        ended[channel] = at + need
        return
    spans = gaps[channel]
    index = bisect_right(spans, (at + need - 1, 1 << 62))
    gap_end, gap_begin = spans.pop(index)
    if gap_begin < at:
        insort(spans, (at, gap_begin))
    if at + need < gap_end:
        insort(spans, (gap_end, at + need))
