"""The processes that plan beside this one; see `Beside`."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from cluster.planning.beside import Beside
from cluster.planning.cost_store import CostStore

# A fork has all modules, and takes nothing of ours but the work it is told. Elsewhere system
# libraries do not bear it.
METHOD = "fork" if sys.platform == "linux" else "spawn"
MOST = 4  # processes that there is work for
Work = Callable[[CostStore], object]


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def shared_store(
    folder: Path, work: Work, made: Callable[[], None] | None = None, count: int | None = None
) -> Iterator[CostStore]:
    """A store of costs that others fill, too, as they do the same `work` with it.

    They are started before the first cost that is not there, as many as there are processors,
    unless we have been started so ourselves; and are gone after it.
    """
    if count is None:
        count = 1 if multiprocessing.current_process().daemon else min(processors(), MOST)
    if count == 1:
        yield CostStore(folder, made)
        return
    processes: list[Any] = []
    start = partial(_start, processes, work, folder, count)
    try:
        yield CostStore(folder, made, Beside(count, begin=start))
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _start(processes: list[Any], work: Work, folder: Path, count: int) -> None:
    context: Any = multiprocessing.get_context(METHOD)
    for number in range(len(processes) + 1, count):
        place = Beside(count, number, os.getpid())
        process = context.Process(target=_serve, args=(work, folder, place), daemon=True)
        with suppress(OSError):  # without memory for more
            process.start()
            processes.append(process)


def _serve(work: Work, folder: Path, place: Beside) -> None:
    """Do the work, until it is done or whoever asked has ended."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(CostStore(folder, beside=place))
    finally:  # also with an error, which our parent meets itself
        os._exit(0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
