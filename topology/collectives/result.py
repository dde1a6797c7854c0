"""What a collective is once it is timed: its messages, each with its departure cycle.

A message goes in one run: vector k leaves at start + ceil(k * pace), crosses every hop of its route
by virtual cut-through, and is usable (added, if it is an addition) `latency` cycles after it left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import networkx as nx
import numpy as np

from topology.collectives.legs import all_different
from topology.collectives.messages import Combine, Messages, Send
from topology.errors import LinkConflict
from topology.fabric import Fabric, Ints
from topology.timetable import Timetable


@dataclass(frozen=True)
class Batch:
    """The messages of a step with their times; arrays have an entry per message."""

    send: Send
    vectors: Ints
    start_cycle: Ints
    hop_start: Ints | None  # channels of message i: channel[hop_start[i]:hop_start[i + 1]]
    channel: Ints  # with hop_start None: the one channel of each message
    hop_offset: Ints  # cycles from the start to the departure on each channel
    latency_cycles: Ints  # start to first arrival
    pace: Ints  # index into fabric.paces


@dataclass(frozen=True)
class LocalAdd:
    """A step that every rank does for itself, and when the last vector of it is there."""

    combine: Combine
    ready_cycle: Ints  # [P, blocks]


class Transfer(NamedTuple):
    """One message, spelled out for people and for code that lowers to sends and receives."""

    step: int
    src: int  # chips
    dst: int
    path: tuple[int, ...]
    cables: tuple[int, ...]  # per hop
    start_cycle: int
    arrival_cycle: int  # of vector 0 at dst
    cycles_per_vector: Fraction
    vectors: int
    src_vector: int  # first vector in the buffer of src
    dst_vector: int
    add: bool
    src_slot: int
    dst_slot: int


@dataclass(frozen=True)
class Collective:
    """A timed collective: exact departures and arrivals of every vector, conflict-free."""

    messages: Messages
    algorithm: str
    steps: Sequence[Batch | LocalAdd]
    release_cycle: int
    end_cycle: int
    lower_bound_cycles: int

    @property
    def operation(self) -> str:
        """What was asked for, e.g. all_reduce."""
        return self.messages.job.operation

    @property
    def graph(self) -> nx.Graph:
        """The chips and links it runs on."""
        return self.messages.job.graph

    @property
    def fabric(self) -> Fabric:
        """Array form of the graph."""
        return self.messages.job.fabric

    @property
    def chips(self) -> tuple[int, ...]:
        """The group, by rank."""
        return self.messages.job.chips

    @property
    def bytes(self) -> int:
        """Size of one chip's full buffer as asked for."""
        return self.messages.job.bytes

    @property
    def block_start(self) -> Ints:
        """First vector of each block, and the end: [blocks + 1]."""
        return self.messages.block_start

    @property
    def vectors(self) -> int:
        """Vectors in one buffer."""
        return int(self.block_start[-1])

    @property
    def cycles(self) -> int:
        """From release to the last arrival (and addition)."""
        return self.end_cycle - self.release_cycle

    @property
    def seconds(self) -> float:
        """`cycles` at the profile's clock."""
        return self.cycles / float(self.graph.graph["profile"].clock_hz)

    @property
    def message_count(self) -> int:
        """Number of messages (vector runs at their source)."""
        return sum(len(batch.vectors) for batch in self.batches)

    @property
    def batches(self) -> list[Batch]:
        """The steps that use links."""
        return [step for step in self.steps if isinstance(step, Batch)]

    @property
    def algbw_bytes_per_s(self) -> float:
        """Buffer bytes per second."""
        return self.bytes / self.seconds if self.cycles else 0.0

    @property
    def busbw_bytes_per_s(self) -> float:
        """`algbw` times the operation's traffic factor, as nccl-tests define it."""
        p = len(self.chips)
        factor = {"all_reduce": 2 * (p - 1) / p, "broadcast": 1.0, "reduce": 1.0}
        other = 1.0 if self.operation == "point_to_point" else (p - 1) / p
        return self.algbw_bytes_per_s * factor.get(self.operation, other)

    def channel_vectors(self) -> Ints:
        """Return the vectors that each directed cable of the fabric carries."""
        total = np.zeros(self.fabric.channels, np.int64)
        for batch in self.batches:
            carried = batch.vectors
            if batch.hop_start is not None:
                carried = np.repeat(carried, np.diff(batch.hop_start))
            np.add.at(total, batch.channel, carried)
        return total

    def link_utilisation(self) -> dict[str, float]:
        """Return mean and maximum share of the time in which the used cables transfer."""
        carried = self.channel_vectors()
        paces = np.array([float(p) for p in self.fabric.paces])
        busy = carried * paces[self.fabric.pace[self.fabric.channel_edge]] / max(self.cycles, 1)
        used = busy[carried > 0]
        if not len(used):
            return {"mean": 0.0, "max": 0.0, "used_cables": 0, "mean_all": 0.0}
        return {
            "mean": float(used.mean()),
            "max": float(used.max()),
            "used_cables": len(used),
            "mean_all": float(busy.mean()),
        }

    def transfers(self) -> Iterator[Transfer]:
        """Yield every message in the order of the algorithm's steps."""
        fabric = self.fabric
        for step, batch in enumerate(self.steps):
            if not isinstance(batch, Batch):
                continue
            send = batch.send
            for i in range(len(send.src)):
                lo, hi = (i, i + 1)
                if batch.hop_start is not None:
                    lo, hi = batch.hop_start[i : i + 2]
                channels = batch.channel[lo:hi]
                edges = fabric.channel_edge[channels]
                src = self.chips[send.src[i]]
                yield Transfer(
                    step=step,
                    src=src,
                    dst=self.chips[send.dst[i]],
                    path=(src, *map(int, fabric.head[edges])),
                    cables=tuple(map(int, channels - fabric.first_channel[edges])),
                    start_cycle=int(batch.start_cycle[i]),
                    arrival_cycle=int(batch.start_cycle[i] + batch.latency_cycles[i]),
                    cycles_per_vector=fabric.paces[batch.pace[i]],
                    vectors=int(batch.vectors[i]),
                    src_vector=int(self.block_start[send.block[i]]),
                    dst_vector=int(self.block_start[send.dst_block[i]]),
                    add=send.add,
                    src_slot=send.src_slot,
                    dst_slot=send.dst_slot,
                )

    def timetable(self) -> Timetable:
        """Return a Timetable with every run booked one by one (slow; `check` is the fast test)."""
        table = Timetable(self.graph)
        for number, t in enumerate(self.transfers()):
            cycle = t.start_cycle
            for hop, (u, v) in enumerate(zip(t.path, t.path[1:], strict=False)):
                owner = f"{self.operation} {self.algorithm} #{number} {t.src}->{t.dst}"
                table.book(u, v, cycle, t.vectors, owner, t.cables[hop], t.cycles_per_vector)
                cycle += table.latency_cycles(u, v)
        return table

    def _in_order(self, batches: list[Batch]) -> bool:
        """Return whether, batch after batch, every run starts when its cable's last has ended.

        That proves there is no conflict; if it does not hold, there may still be none.
        """
        ended = np.zeros(self.fabric.channels, np.int64)
        once: tuple[Ints, bool] | None = None
        for batch in batches:
            if once is None or once[0] is not batch.channel:
                once = batch.channel, all_different(batch.channel, self.fabric.channels)
            start = _hop_departures(batch)
            if not once[1] or (start < ended[batch.channel]).any():
                return False
            ended[batch.channel] = start + _hop_busy(batch, self.fabric)
        return True

    def check(self) -> None:
        """Raise LinkConflict if any two runs overlap on a cable; all runs at once, on arrays."""
        batches = self.batches
        if not batches or self._in_order(batches):
            return
        channel = np.concatenate([b.channel for b in batches])
        start = np.concatenate([_hop_departures(b) for b in batches])
        end = start + np.concatenate([_hop_busy(b, self.fabric) for b in batches])
        order = np.lexsort((start, channel))
        channel, start, end = channel[order], start[order], end[order]
        clash = (channel[1:] == channel[:-1]) & (start[1:] < end[:-1])
        if clash.any():
            at = int(clash.argmax()) + 1
            edge = int(self.fabric.channel_edge[channel[at]])
            raise LinkConflict(
                int(self.fabric.tail[edge]),
                int(self.fabric.head[edge]),
                int(channel[at] - self.fabric.first_channel[edge]),
                int(start[at]),
                f"{self.operation} run {int(order[at])}",
                f"{self.operation} run {int(order[at - 1])}",
            )


def _hop_departures(batch: Batch) -> Ints:
    if batch.hop_start is None:
        return batch.start_cycle
    return np.repeat(batch.start_cycle, np.diff(batch.hop_start)) + batch.hop_offset


def _hop_busy(batch: Batch, fabric: Fabric) -> Ints:
    if len(fabric.paces) == 1:
        one_p, one_q = fabric.paces[0].as_integer_ratio()
        busy = -(-batch.vectors * one_p // one_q)
    else:
        p, q = fabric.pace_arrays()
        busy = -(-batch.vectors * p[batch.pace] // q[batch.pace])
    return busy if batch.hop_start is None else np.repeat(busy, np.diff(batch.hop_start))
