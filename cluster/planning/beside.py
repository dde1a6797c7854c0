"""One of several processes that plan the same, each beginning with other costs.

They share a store of costs and nothing else. Whoever comes first to a cost makes it, others wait
and read it: so a plan is the same with any number of them, and one that dies is not missed.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any


class Busy(Exception):
    """Somebody else makes this cost."""


@dataclass
class Beside:
    """One of `count` processes, which are of a `family`; the others are started by number 0."""

    count: int
    number: int = 0
    family: int = field(default_factory=os.getpid)
    begin: Callable[[], None] | None = None  # is called before anything is made
    _ahead: bool = False  # whether what somebody else makes is to be left to them
    _locks: Any = None

    @contextlib.contextmanager
    def making(self, path: Path) -> Iterator[None]:
        """Hold the file of a cost that is to be made; raises Busy ahead of time, waits otherwise.

        Locks are given back when a process ends, however it does.
        """
        if self.begin:
            self.begin()
        place = int(sha256(f"{self.family} {path.name}".encode()).hexdigest()[:15], 16)
        try:
            self._locks = self._locks or path.with_name("making").open("ab")
            how = fcntl.LOCK_EX | (fcntl.LOCK_NB if self._ahead else 0)
            fcntl.lockf(self._locks, how, 1, place)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) and self._ahead:
                raise Busy from None
            yield  # a file system without locks: what two make is the same
            return
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)

    def ahead(self, calls: Sequence[Callable[[], object]]) -> None:
        """Make costs that will be asked for in this order, from the back, if not number 0."""
        if self.number == 0 or self._ahead:
            return
        first = len(calls) * self.number // (self.count - 1)
        self._ahead = True
        try:
            for call in (*calls[:first][::-1], *calls[first:][::-1]):
                with contextlib.suppress(Exception):  # which is raised when somebody asks
                    call()
        finally:
            self._ahead = False
