"""Time the messages of a collective: each starts at the first cycle at which its data is there
and every cable of its route is free; nothing waits on the way (virtual cut-through).

Data readiness is tracked per (slot, rank, block) by the arrival of its first and of its last
vector. A run at the link's pace may follow the run that feeds it vector by vector: it is enough
that neither its first nor its last vector is early, because arrivals are convex in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import networkx as nx
import numpy as np

from topology.collectives.result import Batch, Collective, LocalAdd
from topology.fabric import Fabric, Ints, compiled
from topology.routes import Paths, paths


@dataclass(frozen=True)
class Job:
    """What an algorithm is asked for; `chunks` None leaves the choice to the algorithm."""

    operation: str
    graph: nx.Graph
    chips: tuple[int, ...]
    bytes: int
    root: int = 0  # rank
    chunks: int | None = None
    release_cycles: tuple[int, ...] | None = None  # per rank; default 0
    busy_until: Ints | None = None  # per channel of the fabric; default 0
    add_cycles: int = 0
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def fabric(self) -> Fabric:
        """Array form of the graph."""
        return compiled(self.graph)

    @property
    def ranks(self) -> int:
        """Number of chips in the group."""
        return len(self.chips)

    @property
    def vectors(self) -> int:
        """Vectors in one buffer; the last one may be partly filled."""
        return -(-self.bytes // self.fabric.payload_bytes)

    @property
    def stripes(self) -> int:
        """Blocks to cut a share into so that all parallel cables are used."""
        return self.chunks or int(self.fabric.cables.max(initial=1))


class Engine:
    """Collects the timed steps of one collective; algorithms call `send` and `local_add`."""

    def __init__(self, job: Job, blocks: int, shares: int = 1) -> None:
        self.job, self.fabric, self.shares = job, job.fabric, shares
        self.block_start: Ints = np.arange(blocks + 1) * job.vectors // blocks
        self.block_vectors = np.diff(self.block_start)
        self.blocks = blocks
        self.chips = np.array(job.chips, np.int64)
        self.steps: list[Batch | LocalAdd] = []
        self.free: Ints = (
            np.zeros(self.fabric.channels, np.int64)
            if job.busy_until is None
            else job.busy_until.copy()
        )
        self._p, self._q = self.fabric.pace_arrays()
        self._ready: dict[int, tuple[Ints, Ints]] = {}
        self._route: tuple[Ints, Ints, "_Route"] | None = None
        self._one_cable = bool(self.fabric.cables.max(initial=1) == 1)

    def ready(self, slot: int) -> tuple[Ints, Ints]:
        """Return [P, blocks] cycles at which the first and the last vector of each block is there."""
        if slot not in self._ready:
            release = np.zeros(len(self.chips), np.int64)
            if self.job.release_cycles is not None:
                release[:] = self.job.release_cycles
            first = np.repeat(release[:, None], self.blocks, axis=1)
            self._ready[slot] = first, first.copy()
        return self._ready[slot]

    def send(
        self,
        src: Ints,
        dst: Ints,
        block: Ints,
        *,
        blocks: int = 1,
        add: bool = False,
        src_slot: int = 0,
        dst_slot: int = 0,
        dst_block: Ints | None = None,
        whole: bool = False,
        after: Ints | int = 0,
        via: Paths | None = None,
    ) -> Batch | None:
        """Time one batch: rank src[i] sends `blocks` blocks from block[i] on to rank dst[i].

        Messages read what was there before the batch. `whole` waits for the last vector of the
        data instead of following it; `after` is an earliest start; `via` prescribes the routes.
        """
        if blocks > 1 and not self._one_cable:  # let every block take its own cable
            src, dst = np.repeat(src, blocks), np.repeat(dst, blocks)
            span = np.tile(np.arange(blocks), len(block))
            dst_block = None if dst_block is None else np.repeat(dst_block, blocks) + span
            block, blocks = np.repeat(block, blocks) + span, 1
        vectors = self.block_start[block + blocks] - self.block_start[block]
        if not vectors.all():
            keep = np.flatnonzero(vectors)
            if not len(keep):
                return None
            src, dst, block, vectors = src[keep], dst[keep], block[keep], vectors[keep]
            dst_block = None if dst_block is None else dst_block[keep]
        to_block = block if dst_block is None else dst_block
        route = self._routed(src, dst) if via is None else _Route(self.fabric, via)
        channel = route.channels(self.fabric, block, self._one_cable)
        p, q = self._p[route.pace], self._q[route.pace]
        earliest = np.maximum(after, self._earliest(src_slot, src, block, blocks, p, q, whole))
        start = self._place(earliest, -(-vectors * p // q), route, channel)
        self._arrive(dst_slot, dst, to_block, blocks, start + route.latency, p, q, add)
        batch = Batch(
            *(src, dst, block, to_block, blocks, vectors, start, route.start, channel),
            *(route.offset, route.latency, route.pace, add, src_slot, dst_slot),
        )
        self.steps.append(batch)
        return batch

    def local_add(
        self, src_slot: int, dst_slot: int, add: bool = True, own_block_only: bool = False
    ) -> None:
        """Let every rank add (or copy) one slot into another; costs `add_cycles` if it adds."""
        cost = self.job.add_cycles if add else 0
        parts = zip(self.ready(src_slot), self.ready(dst_slot), strict=True)
        merged = tuple(np.maximum(a, b) + cost for a, b in parts)
        self._ready[dst_slot] = merged[0], merged[1]
        self.steps.append(LocalAdd(src_slot, dst_slot, merged[1], add, own_block_only))

    def finish(self, algorithm: str, lower_bound_cycles: int) -> Collective:
        """Return the collective; its end is the last arrival anywhere."""
        job = self.job
        release = min(job.release_cycles) if job.release_cycles else 0
        used = self.block_vectors > 0
        ends = [int(last[:, used].max(initial=release)) for _, last in self._ready.values()]
        return Collective(
            *(job.operation, algorithm, job.graph, self.fabric, job.chips, job.bytes, job.root),
            *(self.block_start, self.shares, self.steps, release, max(ends, default=release)),
            *(lower_bound_cycles, job.options),
        )

    def _routed(self, src: Ints, dst: Ints) -> "_Route":
        """Return the routes of rank pairs; the same arrays as last time need no new search."""
        known = self._route
        if known is None or known[0] is not src or known[1] is not dst:
            found = paths(self.fabric, self.chips[src], self.chips[dst])
            known = self._route = src, dst, _Route(self.fabric, found)
        return known[2]

    def _earliest(
        self, slot: int, src: Ints, block: Ints, blocks: int, p: Ints, q: Ints, whole: bool
    ) -> Ints:
        first, last = self.ready(slot)
        # Rounding of a shifted or differently paced run can bring a vector one cycle forward.
        guard = int((blocks > 1 or len(self._p) > 1) and bool((self._q > 1).any()))
        if blocks == 1:
            there = last[src, block]
            if whole:
                return there
            tail = (self.block_vectors[block] - 1) * p // q
            return np.maximum(first[src, block], there - tail) + guard
        span = block[:, None] + np.arange(blocks)
        there = last[src[:, None], span]
        if whole:
            return np.asarray(there.max(axis=1))
        shift = self.block_start[span] - self.block_start[block][:, None]
        p, q = p[:, None], q[:, None]
        head = first[src[:, None], span] - shift * p // q
        tails = there - (shift + self.block_vectors[span] - 1) * p // q
        return np.asarray(np.maximum(head, tails).max(axis=1) + guard)

    def _arrive(
        self, slot: int, dst: Ints, block: Ints, blocks: int, arrival: Ints, p: Ints, q: Ints,
        add: bool,
    ) -> None:
        first, last = self.ready(slot)
        cost = self.job.add_cycles if add else 0
        span = block[:, None] + np.arange(blocks)
        shift = self.block_start[span] - self.block_start[block][:, None]
        p, q = p[:, None], q[:, None]
        heads = arrival[:, None] + cost - (-shift * p // q)
        size = np.maximum(self.block_vectors[span], 1)
        tails = arrival[:, None] + cost - (-(shift + size - 1) * p // q)
        where = (dst[:, None] * self.blocks + span).ravel()
        np.maximum.at(first.reshape(-1), where, heads.ravel())
        np.maximum.at(last.reshape(-1), where, tails.ravel())

    def _place(self, earliest: Ints, busy: Ints, route: "_Route", channel: Ints) -> Ints:
        """Return the starts, and mark the cables of every route busy."""
        single = route.start is None
        if _all_different(channel, self.free):
            start = earliest
            if single:
                start = np.maximum(start, self.free[channel])
                self.free[channel] = start + busy
                return start
            bound = np.maximum.reduceat(self.free[channel] - route.offset, route.start[:-1])
            start = np.maximum(start, bound)
            per_hop = np.repeat(start + busy, np.diff(route.start))
            self.free[channel] = per_hop + route.offset
            return start
        if single:
            return self._queue(earliest, busy, channel)
        return self._one_by_one(earliest, busy, route, channel)

    def _queue(self, earliest: Ints, busy: Ints, channel: Ints) -> Ints:
        """Serve messages of one hop in order of readiness; all cables at once."""
        order = np.lexsort((earliest, channel))
        channel, busy_sorted = channel[order], busy[order]
        ahead = np.cumsum(busy_sorted) - busy_sorted
        fresh = np.r_[True, channel[1:] != channel[:-1]]
        group = np.cumsum(fresh) - 1
        ahead -= ahead[fresh][group]
        slack = np.maximum(earliest[order], self.free[channel]) - ahead
        # A running maximum that restarts with every cable: lift each cable above the one before.
        lift = group * (int(slack.max()) - int(slack.min()) + 1)
        begin = np.maximum.accumulate(slack + lift) - lift + ahead
        start = np.empty_like(begin)
        start[order] = begin
        np.maximum.at(self.free, channel, begin + busy_sorted)
        return start

    def _one_by_one(self, earliest: Ints, busy: Ints, route: "_Route", channel: Ints) -> Ints:
        used, local = np.unique(channel, return_inverse=True)
        assert route.start is not None
        free = self.free[used].tolist()
        bounds, at, offset = route.start.tolist(), local.tolist(), route.offset.tolist()
        ready, duration = earliest.tolist(), busy.tolist()
        start = [0] * len(ready)
        for i in np.argsort(earliest, kind="stable").tolist():
            lo, hi = bounds[i], bounds[i + 1]
            begin = ready[i]
            for hop in range(lo, hi):
                begin = max(begin, free[at[hop]] - offset[hop])
            end = begin + duration[i]
            for hop in range(lo, hi):
                free[at[hop]] = end + offset[hop]
            start[i] = begin
        self.free[used] = free
        return np.array(start, np.int64)


class _Route:
    """Routes of a batch with what timing needs of them; `start` None if all have one hop."""

    def __init__(self, fabric: Fabric, found: Paths) -> None:
        self.edges = found.edges
        hops = found.hops
        latency = fabric.latency_cycles[found.edges]
        self.start = None if (hops == 1).all() else found.start
        if self.start is None:
            self.offset, self.latency = np.zeros_like(latency), latency
            self.pace = fabric.pace[found.edges]
            return
        before = np.cumsum(latency) - latency
        self.offset = before - np.repeat(before[found.start[:-1]], hops)
        self.latency = np.add.reduceat(latency, found.start[:-1])
        self.pace = np.maximum.reduceat(fabric.pace[found.edges], found.start[:-1])

    def channels(self, fabric: Fabric, block: Ints, one_cable: bool) -> Ints:
        if one_cable:
            return self.edges
        per_hop = block if self.start is None else np.repeat(block, np.diff(self.start))
        cable: Ints = per_hop % fabric.cables[self.edges]
        return fabric.first_channel[self.edges] + cable


def _all_different(values: Ints, like: Ints) -> bool:
    seen = np.empty_like(like)
    number = np.arange(len(values))
    seen[values] = number
    return bool((seen[values] == number).all())
