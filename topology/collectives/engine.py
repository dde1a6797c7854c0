"""Time the messages of a collective: each starts at the first cycle at which its data is there
and every cable of its route is free; nothing waits on the way (virtual cut-through).

Data readiness is tracked per (slot, rank, block) by the arrival of its first and of its last
vector. A run at the link's pace may follow the run that feeds it vector by vector: it is enough
that neither its first nor its last vector is early, because arrivals are convex in between.
"""

import numpy as np

from topology.collectives.legs import Legs, all_different, rows, set_rows
from topology.collectives.messages import Combine, Ends, Messages, Send
from topology.collectives.result import Batch, Collective, LocalAdd
from topology.fabric import Ints
from topology.firstfit import first_fit
from topology.routes import paths

_ROUTES_KEPT = 64  # ends whose routes are remembered, oldest forgotten all at once


class Engine:
    """Times the steps of one list of messages, in order."""

    def __init__(self, messages: Messages) -> None:
        job = self.job = messages.job
        self.messages, self.fabric = messages, job.fabric
        self.block_start = messages.block_start
        self.block_vectors: Ints = np.diff(messages.block_start)
        self.blocks = len(self.block_vectors)
        sizes = np.unique(self.block_vectors)
        self._equal_vectors = int(sizes[0]) if len(sizes) == 1 else None
        self.chips = np.array(job.chips, np.int64)
        self.steps: list[Batch | LocalAdd] = []
        self.free: Ints = (
            np.zeros(self.fabric.channels, np.int64)
            if job.busy_until is None
            else job.busy_until.copy()
        )
        self._p, self._q = self.fabric.pace_arrays()
        self._ready: dict[int, tuple[Ints, Ints]] = {}
        self._routes: dict[Ends, Legs] = {}
        self._same_sizes: dict[tuple[int, int], Ints] = {}
        self._unnoted = 0  # last arrival of messages that no later step looks up
        self.one_cable = bool(self.fabric.cables.max(initial=1) == 1)
        self._whole_pace = bool((self._q == 1).all())
        self._plain = bool(
            len(self._p) == 1 and self.block_vectors.all() and job.release_cycles is None
        )
        for step in messages.steps:
            self._send(step) if isinstance(step, Send) else self._combine(step)

    def ready(self, slot: int) -> tuple[Ints, Ints]:
        """Return [P, blocks] cycles at which the first and the last vector of a block is there."""
        if slot not in self._ready:
            release = np.zeros(len(self.chips), np.int64)
            if self.job.release_cycles is not None:
                release[:] = self.job.release_cycles
            first = np.repeat(release[:, None], self.blocks, axis=1)
            self._ready[slot] = first, first.copy()
        return self._ready[slot]

    def _send(self, send: Send) -> None:
        """Time one step.

        Where the list itself says when data is there, looking that up and noting it is left out,
        which is most of the time of long rings; `execute` checks it all the same.
        """
        src, dst, block, blocks = send.src, send.dst, send.block, send.blocks
        sizes = vectors = self._sizes(block, blocks)
        narrow = send.src_slot in self.messages.narrow
        if narrow:
            vectors = self.job.sums.on_cables(sizes)
        route = self._routed(send.ends) if send.via is None else Legs(self.fabric, send.via, dst)
        channel = route.edges if self.one_cable else route.channels(self.fabric, send.turn)
        p, q = self._pace_of(route)
        earliest = np.full(len(src), self.end_cycle if send.barrier else 0)
        if self._plain and send.follows is not None:
            earliest = np.maximum(earliest, self._landed(*send.follows, send.whole))
        elif narrow:
            earliest = np.maximum(earliest, self._fed(send, sizes, p, q))
        elif not (self._plain and send.from_start):
            there = self._earliest(send.src_slot, src, block, blocks, p, q, send.whole)
            earliest = np.maximum(earliest, there)
        busy = vectors * p if self._whole_pace else -(-vectors * p // q)
        start = self._place(earliest, busy, route, channel)
        landed = start + route.latency + (self.job.add_cycles if send.add else 0)
        if send.noted or not self._plain:
            if send.by_rank:
                self._take_own(send)
            whole_unit = self._unit_wait(p, q, narrow) if send.add else 0
            pace = self._progress(block, blocks, p, q)
            if narrow:
                pace = 0, (-(-(vectors - 1) * p // q))[:, None]
            self._arrive(send, landed, whole_unit, pace, route.dst_differ)
        else:
            tail = self._tail(vectors, p, q)
            last = landed.max() + tail if isinstance(tail, int) else (landed + tail).max()
            self._unnoted = max(self._unnoted, int(last))
        self.steps.append(
            Batch(
                send, vectors, start, route.start, channel, route.offset, route.latency, route.pace
            )
        )

    def _take_own(self, send: Send) -> None:
        """A sum by rank also waits for what its own chip adds, and for what it begins with."""
        at = send.dst, send.dst_block
        for slot in {send.src_slot, send.src_slot if send.onto is None else send.onto}:
            if slot != send.dst_slot:
                for mine, other in zip(self.ready(send.dst_slot), self.ready(slot), strict=True):
                    mine[at] = np.maximum(mine[at], other[at])

    def _landed(self, step: int, order: Ints, whole: bool) -> Ints:
        """Return when a message may be passed on that an earlier step brings."""
        batch = self.steps[step]
        assert isinstance(batch, Batch)
        p, q, add = int(self._p[0]), int(self._q[0]), batch.send.add
        since = batch.latency_cycles + (self.job.add_cycles if add else 0)
        if whole or add:
            since = since + (self._tail(batch.vectors, p, q) if whole else self._unit_wait(p, q))
        landed: Ints = (batch.start_cycle + since)[order]
        return landed

    def _unit_wait(self, p: Ints | int, q: Ints | int, narrow: bool = False) -> Ints | int:
        """Return cycles from the first to the last vector of a unit, which is added as a whole."""
        unit = self.job.unit_vectors
        if narrow:
            unit = int(self.job.sums.on_cables(np.array(unit)))
        return -(-(unit - 1) * p // q)

    def _fed(self, send: Send, sizes: Ints, p: Ints | int, q: Ints | int) -> Ints:
        """Return the first starts of messages of fewer vectors than what they are made of.

        What comes of a unit leaves once all of it is there, the last one behind all others.
        """
        first, last = (ready[send.src, send.block] for ready in self.ready(send.src_slot))
        before = self.job.sums.on_cables(np.maximum(sizes - self.job.unit_vectors, 0) + 1) - 1
        guard = int(bool((self._q > 1).any()))  # as in `_earliest`
        return np.asarray(np.maximum(first, last - (-(-before * p // q))) + guard)

    def _tail(self, vectors: Ints, p: Ints | int, q: Ints | int) -> Ints | int:
        """Return cycles from the first to the last vector of each message."""
        if self._equal_vectors is not None and len(self._p) == 1:
            return -(-(int(vectors[0]) - 1) * int(p) // int(q))
        return np.asarray(-(-(vectors - 1) * p // q))

    def _combine(self, step: Combine) -> None:
        """Let every rank fill a slot with the sum (or copy) of other slots.

        Out of place on purpose: what is added up may still be waiting to be sent. A copy is no
        movement (whoever adds into `out` first reads `left`), a sum costs `add_cycles`.
        """
        there = [self.ready(slot) for slot in step.terms]
        added = self.job.add_cycles if len(there) > 1 else 0
        first, last = (np.maximum.reduce([*some]) + added for some in zip(*there, strict=True))
        self._ready[step.out] = first, last
        self.steps.append(LocalAdd(step, last.copy()))

    @property
    def end_cycle(self) -> int:
        """The last arrival anywhere, or the release if nothing moves."""
        release = min(self.job.release_cycles) if self.job.release_cycles else 0
        used = self.block_vectors > 0
        ends = [
            int(last.max(axis=0)[used].max(initial=release)) for _, last in self._ready.values()
        ]
        return max(*ends, self._unnoted, release)

    def finish(self, algorithm: str, lower_bound_cycles: int) -> Collective:
        """Return the collective; its end is the last arrival anywhere."""
        job = self.job
        release = min(job.release_cycles) if job.release_cycles else 0
        return Collective(
            self.messages, algorithm, tuple(self.steps), release, self.end_cycle, lower_bound_cycles
        )

    def _routed(self, ends: Ends) -> Legs:
        """Return the minimal routes; ends that steps share need no new search."""
        if ends not in self._routes:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            found = paths(self.fabric, self.chips[ends.src], self.chips[ends.dst])
            self._routes[ends] = Legs(self.fabric, found, ends.dst)
        return self._routes[ends]

    def _sizes(self, block: Ints, blocks: int) -> Ints:
        if self._equal_vectors is not None:  # many batches share one array of sizes
            key = len(block), blocks
            if key not in self._same_sizes:
                self._same_sizes[key] = np.full(len(block), self._equal_vectors * blocks)
            return self._same_sizes[key]
        return self.block_start[block + blocks] - self.block_start[block]

    def _pace_of(self, route: Legs) -> tuple[Ints | int, Ints | int]:
        if len(self._p) == 1:
            return int(self._p[0]), int(self._q[0])
        return self._p[route.pace], self._q[route.pace]

    def _earliest(
        self,
        slot: int,
        src: Ints,
        block: Ints,
        blocks: int,
        p: Ints | int,
        q: Ints | int,
        whole: bool,
    ) -> Ints:
        """Return the first start at which no vector of a message leaves before it is there."""
        first, last = self.ready(slot)
        if whole and blocks == 1:
            complete: Ints = last[src, block]
            return complete
        there = rows(last, src, block, blocks)
        if whole:
            return np.asarray(there.max(axis=1))
        # Rounding of a shifted or differently paced run can bring a vector one cycle forward.
        guard = int((blocks > 1 or len(self._p) > 1) and bool((self._q > 1).any()))
        head, tail = self._progress(block, blocks, p, q)
        early = np.maximum(rows(first, src, block, blocks) - head, there - tail)
        start: Ints = early.max(axis=1) if blocks > 1 else early[:, 0]
        return start + guard if guard else start

    def _progress(
        self, block: Ints, blocks: int, p: Ints | int, q: Ints | int
    ) -> tuple[Ints | int, Ints | int]:
        """Return cycles from the start of a message to the first and last vector of each block.

        Shape [messages, blocks], or one row if all messages are alike.
        """
        if self._equal_vectors is not None and len(self._p) == 1:
            shift = np.arange(blocks) * self._equal_vectors
            return -(-shift * p // q), -(-(shift + max(self._equal_vectors - 1, 0)) * p // q)
        span = block[:, None] + np.arange(blocks)
        shift = self.block_start[span] - self.block_start[block][:, None]
        if isinstance(p, np.ndarray) and isinstance(q, np.ndarray):
            p, q = p[:, None], q[:, None]
        size = np.maximum(self.block_vectors[span], 1)
        return -(-shift * p // q), -(-(shift + size - 1) * p // q)

    def _arrive(
        self,
        send: Send,
        landed: Ints,
        whole_unit: Ints | int,
        pace: tuple[Ints | int, Ints | int],
        differ: bool,
    ) -> None:
        """Note that blocks are there later: `pace` after the start comes their first, last vector.

        `differ` says that no rank gets two messages.
        """
        dst, block, blocks = send.dst, send.dst_block, send.blocks
        first, last = self.ready(send.dst_slot)
        head, tail = pace
        begun, landed = (landed + whole_unit)[:, None], landed[:, None]
        for ready, arrival in ((first, begun + head), (last, landed + tail)):
            if differ:
                set_rows(ready, dst, block, blocks, arrival)
            else:
                span = block[:, None] + np.arange(blocks)
                where = dst[:, None] * self.blocks + span
                np.maximum.at(ready.reshape(-1), where.ravel(), arrival.ravel())

    def _place(self, earliest: Ints, busy: Ints, route: Legs, channel: Ints) -> Ints:
        """Return the starts, and mark the cables of every route busy."""
        differ = (
            route.channels_differ
            if self.one_cable
            else all_different(channel, self.fabric.channels)
        )
        if not differ:
            if route.start is None:
                return self._queue(earliest, busy, channel)
            # Who can start first goes first, and of those who has the longest way to go.
            order = np.lexsort((-np.diff(route.start), earliest))
            return first_fit(order, earliest, busy, route.start, channel, route.offset, self.free)
        if route.start is None:
            start = np.maximum(earliest, self.free[channel])
            self.free[channel] = start + busy
        else:
            bound = np.maximum.reduceat(self.free[channel] - route.offset, route.start[:-1])
            start = np.maximum(earliest, bound)
            per_hop = np.repeat(start + busy, np.diff(route.start))
            self.free[channel] = per_hop + route.offset
        return start

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
        start: Ints = np.empty_like(begin)
        start[order] = begin
        np.maximum.at(self.free, channel, begin + busy_sorted)
        return start
