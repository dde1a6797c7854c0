"""Processes that plan the same beside this one, each beginning with other costs.

They share a store of costs and nothing else. Whoever comes first to a cost makes it, others wait
and read it: so a plan is the same with any number of them, and one that dies is not missed.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

# A fork knows all modules already, and keeps nothing of ours but the place it is told. Elsewhere
# system libraries do not bear it.
METHOD = "fork" if sys.platform == "linux" else "spawn"
MOST = 4  # processes that there is work for


class Busy(Exception):
    """Somebody else makes this cost."""


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Beside:
    """One of `count` processes, which are of a `family`; the others are started by number 0."""

    count: int
    number: int = 0
    family: int = field(default_factory=os.getpid)
    begin: Callable[[], None] = field(default=lambda: None)  # before anything is made
    _ahead: bool = False  # whether what somebody else makes is to be left to them
    _locks: Any = None

    @contextlib.contextmanager
    def making(self, path: Path) -> Iterator[None]:
        """Hold the file of a cost that is to be made; raises Busy ahead of time, waits otherwise.

        Locks are given back when a process ends, however it does.
        """
        self.begin()
        how = fcntl.LOCK_EX | (fcntl.LOCK_NB if self._ahead else 0)
        place = int(sha256(f"{self.family} {path.name}".encode()).hexdigest()[:15], 16)
        try:
            if self._locks is None:
                self._locks = path.with_name("making").open("ab")
            fcntl.lockf(self._locks, how, 1, place)
        except BlockingIOError:
            raise Busy from None
        except OSError:  # a file system without locks: what two make is the same
            yield
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


class Companions:
    """The other processes of a plan, started when they are wanted; use it in a `with`.

    `work` is called in each of them with its place among them.
    """

    def __init__(self, work: Callable[[Beside], object], count: int | None = None) -> None:
        alone = multiprocessing.current_process().daemon  # may have no children, nor need any
        most = 1 if alone else min(processors(), MOST)
        count = most if count is None else count
        self.mine = Beside(count, begin=self.start) if count > 1 else None
        self._work = work
        self._processes: list[Any] = []

    def start(self) -> None:
        """Start them, once."""
        assert self.mine is not None
        context: Any = multiprocessing.get_context(METHOD)
        for number in range(len(self._processes) + 1, self.mine.count):
            place = Beside(self.mine.count, number, self.mine.family)
            process = context.Process(target=_serve, args=(self._work, place), daemon=True)
            process.start()
            self._processes.append(process)

    def __enter__(self) -> "Companions":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _serve(work: Callable[[Beside], object], place: Beside) -> None:
    """Plan, until that is done or whoever asked has ended."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(place)
    finally:  # also with an error, which number 0 meets itself
        os._exit(0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
