"""Channels: what carries packets from one group of chips to another, message by message.

Each group runs its batches of a launch in order, so every channel carries a fixed sequence of
messages; how many can be under way at once, and how large they are, is known before anything runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from chip.core import Array
from chip.errors import ProgramError
from chip.group import Batch, Packet
from chip.wire import pack_value, unpack_value
from cluster.machines.ray.shm_ring import ChannelClosed, ShmRing

Pair = tuple[int, int]  # from one group, or batch, to another
MESSAGE_BYTES = 64  # around a packet, or a message, at most


class Slot(Protocol):
    """Holds one message. Ray's shared-memory channel is one."""

    def write(self, value: Any, timeout: float | None = None) -> None:
        """Put a message in; wait until the one before has been read."""

    def read(self, timeout: float | None = None) -> Any:
        """Take the message out; wait for it."""

    def close(self) -> None:
        """Make both ends fail, also those that wait."""


class Channel:
    """One direction between two groups: first in, first out, through a fixed number of slots."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots, self._next = tuple(slots), 0

    def write(self, message: bytes) -> None:
        """Put a message in; wait while all slots are taken."""
        self._turn().write(message)

    def read(self) -> bytes:
        """Take the next message out; wait for it. What is no message raises."""
        found = self._turn().read()
        if isinstance(found, Exception):  # how one of Ray passes on an error
            raise found
        if not isinstance(found, bytes):
            raise ProgramError(f"a channel brought {type(found).__name__}, not a message")
        return found

    def close(self) -> None:
        """Make both ends fail, also those that wait."""
        for slot in self._slots:
            slot.close()

    def _turn(self) -> Slot:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        return slot


@dataclass(frozen=True)
class Need:
    """Slots that a channel needs lest anyone wait for ever, and bytes of its largest message."""

    slots: int
    message_bytes: int


def needs(
    launches: Mapping[str, Sequence[Batch]], packet_bytes: Mapping[str, Mapping[Packet, int]]
) -> dict[Pair, Need]:
    """What each pair of groups that talk needs, over all launches.

    Run batch after batch, a channel holds so many messages at most. With as many slots that order
    can be run; and as each group's own order is fixed, no other comes to a stop either.
    """
    found: dict[Pair, Need] = {}
    for name, batches in launches.items():
        found = merged(found, _needs(batches, packet_bytes[name]))
    return found


def merged(some: Mapping[Pair, Need], more: Mapping[Pair, Need]) -> dict[Pair, Need]:
    """What serves both."""
    found = dict(some)
    for pair, need in more.items():
        before = found.get(pair, Need(0, 0))
        size = max(before.message_bytes, need.message_bytes)
        found[pair] = Need(max(before.slots, need.slots), size)
    return found


def _needs(batches: Sequence[Batch], packet_bytes: Mapping[Packet, int]) -> dict[Pair, Need]:
    group_of = {batch.index: batch.group for batch in batches}
    under_way: dict[Pair, list[Pair]] = {}  # in the channel, in order
    slots: dict[Pair, int] = {}
    sizes: dict[Pair, int] = {}
    taken: set[Pair] = set()
    for batch in batches:
        for source, _ in batch.inbox:
            waiting = under_way[group_of[source], batch.group]
            while (source, batch.index) not in taken:
                taken.add(waiting.pop(0))  # what comes before it, the reader puts aside
        for target, packets in batch.outbox:
            pair = batch.group, group_of[target]
            under_way.setdefault(pair, []).append((batch.index, target))
            slots[pair] = max(slots.get(pair, 0), len(under_way[pair]))
            size = sum(packet_bytes[packet] + MESSAGE_BYTES for packet in packets)
            sizes[pair] = max(sizes.get(pair, 0), size + MESSAGE_BYTES)
    return {pair: Need(slots[pair], sizes[pair]) for pair in slots}


class Mailbox:
    """The channels of one group, and messages that came before they were wanted."""

    def __init__(self) -> None:
        self.incoming: dict[int, Channel | ShmRing] = {}
        self.outgoing: dict[int, Channel | ShmRing] = {}
        self._early: dict[Pair, list[Array]] = {}

    def fetch(self, sender: int, source: int, target: int, count: int) -> list[Array]:
        """The `count` packets of group `sender`'s batch `source` for our batch `target`."""
        while (source, target) not in self._early:
            key, packets = unpack_packets(_open(self.incoming, sender).read())
            self._early[key] = packets
        bundle = self._early.pop((source, target))
        if len(bundle) != count:
            raise ProgramError(f"{len(bundle)} packets came where {count} were expected")
        return bundle

    def send(self, receiver: int, source: int, target: int, bundle: Sequence[Array]) -> int:
        """Send packets of our batch `source` to group `receiver`'s batch `target`; the bytes."""
        data = pack_value([source, target, list(bundle)])
        _open(self.outgoing, receiver).write(data)
        return len(data)

    def close(self) -> None:
        """Close all channels, also for those who wait at them; forget what came early."""
        for channel in (*self.incoming.values(), *self.outgoing.values()):
            channel.close()
        self.incoming, self.outgoing, self._early = {}, {}, {}


def _open(channels: Mapping[int, Channel | ShmRing], group: int) -> Channel | ShmRing:
    """The channel of a group; raises ChannelClosed where a launch begins after all were closed."""
    if group not in channels:
        raise ChannelClosed(f"no channel to group {group} is open")
    return channels[group]


def unpack_packets(data: bytes) -> tuple[Pair, list[Array]]:
    """((source, target), packets) of a message; raises ProgramError if it is none."""
    found = unpack_value(data)
    if isinstance(found, list) and len(found) == 3:
        source, target, packets = found
        right = type(source) is int and type(target) is int and isinstance(packets, list)
        if right and all(isinstance(packet, np.ndarray) for packet in packets):
            return (source, target), packets
    raise ProgramError("a message between chips does not consist of packets")
