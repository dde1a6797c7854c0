"""Channels between two processes of one host: slots in memory that both see. Who waits, sleeps.

Nothing of it has a name: the reader opens the files of the writer by their numbers. So nothing is
left behind, whoever dies.
"""

import mmap
import os
import sys
from dataclasses import dataclass
from io import FileIO

LENGTH_BYTES = 8  # at the beginning of a slot
GO, END = b"+", b"-"
Pipe = tuple[FileIO, FileIO]


class ChannelClosed(Exception):
    """What a channel raises that was closed, also for those who wait at it."""


@dataclass(frozen=True)
class RingHandle:
    """Where a reader finds a ring: process and file numbers of its writer, and the slots."""

    process: int
    memory: int
    full: tuple[int, int]
    free: tuple[int, int]
    slot_bytes: int


class ShmRing:
    """One direction between two processes: first in, first out, through a number of slots.

    `full` and `free` are pipes (to read, to write) with a byte for each slot that is so.
    """

    def __init__(self, memory: FileIO, full: Pipe, free: Pipe, slot_bytes: int) -> None:
        self._memory = mmap.mmap(memory.fileno(), 0)
        self._file, self._full, self._free = memory, full, free
        self._slot_bytes, self._next = slot_bytes, 0

    def write(self, message: bytes) -> None:
        """Put a message in; wait while all slots are taken."""
        _await(self._free)
        at, size = self._turn(), len(message)
        self._memory[at : at + LENGTH_BYTES + size] = size.to_bytes(LENGTH_BYTES, "big") + message
        self._full[1].write(GO)

    def read(self) -> bytes:
        """Take the next message out; wait for it."""
        _await(self._full)
        at = self._turn()
        start = at + LENGTH_BYTES
        size = int.from_bytes(self._memory[at:start], "big")
        message = self._memory[start : start + size]
        self._free[1].write(GO)
        return message

    def close(self) -> None:
        """Make both ends fail, also those that wait."""
        self._full[1].write(END)
        self._free[1].write(END)

    def handle(self) -> RingHandle:
        """Where its reader finds this."""
        full, free = ((ends[0].fileno(), ends[1].fileno()) for ends in (self._full, self._free))
        return RingHandle(os.getpid(), self._file.fileno(), full, free, self._slot_bytes)

    def _turn(self) -> int:
        at = self._next
        self._next = (at + self._slot_bytes) % len(self._memory)
        return at


def _await(pipe: Pipe) -> None:
    if pipe[0].read(1) != GO:
        raise ChannelClosed("a channel between actors was closed")


def can_be_shared() -> bool:
    """Whether this system has what rings are made of."""
    return sys.platform == "linux"


def make_ring(slots: int, message_bytes: int) -> ShmRing:
    """A ring to write to."""
    slot_bytes = LENGTH_BYTES + message_bytes
    memory = FileIO(os.memfd_create("lpu-ring"), "r+b")
    memory.truncate(slots * slot_bytes)
    full, free = _pipe(*os.pipe()), _pipe(*os.pipe())
    free[1].write(GO * slots)
    return ShmRing(memory, full, free, slot_bytes)


def join_ring(handle: RingHandle) -> ShmRing:
    """The ring behind a handle, to read from; raises OSError if its writer is gone."""
    folder = f"/proc/{handle.process}/fd"
    full, free = (
        _pipe(*(f"{folder}/{number}" for number in ends)) for ends in (handle.full, handle.free)
    )
    return ShmRing(FileIO(f"{folder}/{handle.memory}", "r+b"), full, free, handle.slot_bytes)


def _pipe(read: str | int, write: str | int) -> Pipe:
    return FileIO(read, "rb"), FileIO(write, "wb")
