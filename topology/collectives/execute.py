"""Carry out a timed collective on real data, vector by vector, and check that time allows it.

Every read must happen when the data is there, every write when nobody has yet to read what it
replaces; both are checked for each single vector against its own departure and arrival cycle.
"""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topology.collectives.job import RESIDUAL
from topology.collectives.messages import Send
from topology.collectives.result import Batch, Collective, LocalAdd
from topology.errors import CausalityError
from topology.fabric import Ints

Data = NDArray[Any]


class Execution:
    """Buffers of all ranks and, per vector, since when it is there and when it was last read."""

    def __init__(self, collective: Collective, inputs: Data) -> None:
        self.collective, self.job = collective, collective.messages.job
        self.slots: dict[int, Data] = {0: inputs.copy()}
        self.there: dict[int, Ints] = {}
        self.last_read: dict[int, Ints] = {}

    def run(self) -> None:
        """Execute all steps; raises CausalityError."""
        for step in self.collective.steps:
            if isinstance(step, Batch):
                self._move(step)
            else:
                self._add_locally(step)

    def slot(self, number: int) -> tuple[Data, Ints, Ints]:
        """Return data [P, vectors, width] and the cycles [P, vectors] of a slot.

        What a scratch slot holds at first adds nothing: -0.0, as only that leaves all sums alone.
        """
        data = self.slots.setdefault(number, np.full_like(self.slots[0], -0.0))
        early = np.full(data.shape[:2], self.collective.release_cycle, np.int64)
        there = self.there.setdefault(number, early)
        return data, there, self.last_read.setdefault(number, early.copy())

    def _move(self, batch: Batch) -> None:
        fabric, send = self.collective.fabric, batch.send
        start = self.collective.block_start
        p, q = fabric.pace_arrays()
        vectors = start[send.block + send.blocks] - start[send.block]
        message = np.repeat(np.arange(len(send.src)), vectors)
        k = np.arange(len(message)) - np.repeat(np.cumsum(vectors) - vectors, vectors)
        leaves, counted = self._on_cable(send, k)
        pace = batch.pace[message]
        departs = batch.start_cycle[message] - (-leaves * p[pace] // q[pace])
        arrives = batch.start_cycle[message] - (-counted * p[pace] // q[pace])
        arrives += batch.latency_cycles[message]
        src, dst = send.src[message], send.dst[message]
        from_vector = start[send.block][message] + k
        to_vector = start[send.dst_block][message] + k
        data, there, last_read = self.slot(send.src_slot)
        self._demand(departs >= there[src, from_vector], src, from_vector, departs, "not there yet")
        values = data[src, from_vector]
        np.maximum.at(last_read, (src, from_vector), departs)
        data, there, last_read = self.slot(send.dst_slot)
        unread = arrives >= last_read[dst, to_vector]
        self._demand(unread, dst, to_vector, arrives, "overwritten before it is sent")
        if send.by_rank:
            self._add_by_rank(send, src, dst, to_vector, values)
        elif send.add:
            np.add.at(data, (dst, to_vector), values)
        else:
            data[dst, to_vector] = values
        arrives = arrives + self.job.add_cycles * send.add
        np.maximum.at(there, (dst, to_vector), arrives)

    def _on_cable(self, send: Send, k: Ints) -> tuple[Ints, Ints]:
        """Of vectors of messages, those on the cable that first hold some of each, and all of it.

        Units are added as a whole, and rounded as a whole.
        """
        unit, sums = self.job.unit_vectors, self.job.sums
        begin, end = k - k % unit, k - k % unit + unit
        if send.src_slot in self.collective.messages.narrow:
            return sums.on_cables(begin + 1) - 1, sums.on_cables(end) - 1
        return k, end - 1 if send.add else k

    def _rounded(self, slot: int, values: Data) -> Data:
        """Values as a slot holds them."""
        return self.job.sums.rounded(values) if slot in self.collective.messages.narrow else values

    def _add_by_rank(self, send: Send, src: Ints, dst: Ints, vector: Ints, values: Data) -> None:
        """Sum up what senders and receiver have, in the order of ranks."""
        own, since, _ = self.slot(send.src_slot)
        target = np.zeros(own.shape[:2], bool)
        target[dst, vector] = True
        total = np.full_like(own, -0.0)
        _, there, _ = self.slot(send.dst_slot)
        for slot in [] if send.onto is None else [send.onto]:
            total[target] = self.slot(slot)[0][target]
        for rank in range(len(own)):
            total[rank, target[rank]] += own[rank, target[rank]]
            sent = src == rank
            total[dst[sent], vector[sent]] += values[sent]
        self.slots[send.dst_slot][target] = self._rounded(send.dst_slot, total[target])
        there[target] = np.maximum(there[target], since[target])

    def _add_locally(self, step: LocalAdd) -> None:
        combine = step.combine
        values, every, _ = zip(*(self.slot(slot) for slot in combine.terms), strict=True)
        since = np.maximum.reduce(every)
        vectors = np.diff(self.collective.block_start)
        ready = np.repeat(step.ready_cycle, vectors, axis=1)
        rank, vector = np.nonzero(np.ones(since.shape, bool))
        fine = (since <= ready).ravel()
        self._demand(fine, rank, vector, ready.ravel(), "not there yet for a local addition")
        data, there, _ = self.slot(combine.out)
        data[:] = self._rounded(combine.out, reduce(np.add, values))
        there[:] = since + (self.job.add_cycles if len(values) > 1 else 0)
        if combine.own_block_only:
            data[~own_shares(self.collective)] = -0.0

    def _demand(
        self, fine: NDArray[np.bool_], rank: Ints, vector: Ints, cycle: Ints, problem: str
    ) -> None:
        if not fine.all():
            at = int((~fine).argmax())
            chip = self.collective.chips[int(rank[at])]
            raise CausalityError(chip, int(vector[at]), int(cycle[at]), problem)


def execute(collective: Collective, inputs: Data, residual: Data | None = None) -> Data:
    """Return the buffers of all ranks after the collective, shape [P, vectors, width].

    `inputs` has the same shape; for an all-gather only each rank's own share of it counts, for a
    broadcast only the root's. `residual` is what each rank adds to the sum, if the job has one.
    Raises CausalityError if the timing does not allow the movement.
    """
    execution = Execution(collective, counted(collective, inputs))
    if residual is not None:
        execution.slots[RESIDUAL] = residual
    execution.run()
    return execution.slots[collective.messages.result_slot]


def counted(collective: Collective, inputs: Data) -> Data:
    """Return the inputs with zeros for all that the operation does not look at."""
    data = inputs.copy()
    if collective.operation == "all_gather":
        data[~own_shares(collective)] = 0
    elif collective.operation in ("broadcast", "point_to_point"):
        data[np.arange(len(data)) != collective.messages.job.root] = 0
    return data


def own_shares(collective: Collective) -> NDArray[np.bool_]:
    """Return [P, vectors]: which vectors are each rank's own share of the buffer."""
    owner = np.arange(len(collective.block_start) - 1) // collective.messages.shares
    owner = np.repeat(owner, np.diff(collective.block_start))
    mine: NDArray[np.bool_] = owner[None, :] == np.arange(len(collective.chips))[:, None]
    return mine


def expected(collective: Collective, inputs: Data) -> Data:
    """Return what NumPy says each rank should hold; judge it only where `defined` is true."""
    if collective.operation in ("all_reduce", "reduce_scatter", "reduce"):
        return np.broadcast_to(inputs.sum(axis=0), inputs.shape)
    if collective.operation == "all_gather":
        flat = inputs[own_shares(collective)]
        return np.broadcast_to(flat, inputs.shape)
    if collective.operation == "all_to_all":
        ranks = len(inputs)
        parts = inputs.reshape(ranks, ranks, -1, *inputs.shape[2:])
        return parts.swapaxes(0, 1).reshape(inputs.shape)
    return np.broadcast_to(inputs[collective.messages.job.root], inputs.shape)


def defined(collective: Collective) -> NDArray[np.bool_]:
    """Return [P, vectors]: where the operation promises a result."""
    if collective.operation == "reduce_scatter":
        return own_shares(collective)
    everywhere = np.ones((len(collective.chips), collective.vectors), bool)
    if collective.operation == "reduce":
        everywhere[np.arange(len(everywhere)) != collective.messages.job.root] = False
    return everywhere
