"""The routes of one batch of messages, and the tables of when each block is there."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from topology.fabric import Fabric, Ints
from topology.routes import Paths


class Legs:
    """Routes of a batch with what timing needs of them; `start` None if all have one hop."""

    def __init__(self, fabric: Fabric, found: Paths, dst: Ints) -> None:
        self.edges = found.edges
        self.channels_differ = all_different(self.edges, len(fabric.tail))
        self.dst_differ = all_different(dst, int(dst.max()) + 1)
        hops = found.hops
        latency = fabric.latency_cycles[found.edges]
        self.start = None if (hops == 1).all() else found.start
        if self.start is None:
            self.offset, self.latency = np.broadcast_to(np.int64(0), latency.shape), latency
            self.pace = fabric.pace[found.edges]
            return
        before = np.cumsum(latency) - latency
        self.offset = before - np.repeat(before[found.start[:-1]], hops)
        self.latency = np.add.reduceat(latency, found.start[:-1])
        self.pace = np.maximum.reduceat(fabric.pace[found.edges], found.start[:-1])

    def channels(self, fabric: Fabric, turn: Ints) -> Ints:
        """Return the channels of all hops: parallel cables take turns."""
        per_hop = turn if self.start is None else np.repeat(turn, np.diff(self.start))
        chosen: Ints = fabric.first_channel[self.edges] + per_hop % fabric.cables[self.edges]
        return chosen


def rows(ready: Ints, rank: Ints, block: Ints, blocks: int) -> Ints:
    """Return ready[rank, block:block + blocks] of every message, [messages, blocks]."""
    if blocks == 1:
        return ready[rank, block][:, None]
    found: Ints = sliding_window_view(ready, blocks, axis=1)[rank, block]
    return found


def set_rows(ready: Ints, rank: Ints, block: Ints, blocks: int, arrival: Ints) -> None:
    """Raise the same entries to `arrival`; no rank may occur twice."""
    if blocks == 1:
        ready[rank, block] = np.maximum(ready[rank, block], arrival[:, 0])
    else:
        window = sliding_window_view(ready, blocks, axis=1, writeable=True)
        window[rank, block] = np.maximum(window[rank, block], arrival)


def all_different(values: Ints, bound: int) -> bool:
    """Return whether no value below `bound` occurs twice."""
    seen = np.empty(bound, np.int64)
    number = np.arange(len(values))
    seen[values] = number
    return bool((seen[values] == number).all())
