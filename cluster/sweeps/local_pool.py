"""Points on processes of this host, each with its own range, so that it can use what it knows.

A process returns what it has done after a moment, and gets the rest of its range again; when it
has none left it takes half of the longest range of the others. One that dies is replaced; a point
that kills two is a row with that reason, which is not kept.
"""

import gc
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.sweeps.evaluation import FAILED, Evaluator, Finding
from cluster.sweeps.grid import Point

MOMENT_S = 0.5  # what is lost at most, beside one point of each process, when all are killed
MOST_GIVEN = 256
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
DIED = "its process died twice, as when memory runs out"


def here(points: Sequence[Point], evaluator: Evaluator) -> Iterator[list[Finding]]:
    """The same in this process."""
    left = list(points)
    while left:
        found = evaluator.some(left, MOMENT_S)
        left = left[len(found) :]
        yield found


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    left: list[Point] = field(default_factory=list)
    given: int = 0  # points that it works on now; 0 is none


class LocalPool:
    """Worker processes; use it in a `with`."""

    def __init__(self, workers: int, cache: Path) -> None:
        self.cache = cache
        self._suspects: set[int] = set()  # points whose process has died once
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        context: Any = multiprocessing.get_context(METHOD)
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.cache), daemon=True)
        with _without_main():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def results(self, points: Sequence[Point]) -> Iterator[list[Finding]]:
        """Findings of all points, in lists as they come."""
        each = -(-len(points) // len(self._workers))
        for number, worker in enumerate(self._workers):
            worker.left = list(points[number * each : (number + 1) * each])
        while True:
            for worker in self._workers:
                self._give(worker)
            busy = {worker.pipe: worker for worker in self._workers if worker.given}
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                try:
                    found = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    found = self._replace(worker)
                if isinstance(found, Exception):
                    raise found
                done = {finding.number for finding in found}
                worker.left = [point for point in worker.left if point.number not in done]
                worker.given = 0
                yield found

    def _give(self, worker: _Worker) -> None:
        """Some of its range to one that waits; of another's where it has none."""
        if worker.given:
            return
        if not worker.left:
            longest = max(self._workers, key=lambda other: len(other.left) - other.given)
            free = len(longest.left) - longest.given
            if free > 1 or (free and longest.given):
                cut = len(longest.left) - -(-free // 2)
                worker.left, longest.left = longest.left[cut:], longest.left[:cut]
        if worker.left:
            alone = worker.left[0].number in self._suspects
            worker.given = 1 if alone else min(MOST_GIVEN, -(-len(worker.left) // 2))
            with suppress(ConnectionError):  # it has died: its result will say so
                worker.pipe.send(worker.left[: worker.given])

    def _replace(self, worker: _Worker) -> list[Finding]:
        """A new process for one that has died, and the row of a point that has killed two."""
        worker.process.join()
        fresh = self._start()
        worker.process, worker.pipe = fresh.process, fresh.pipe
        first = worker.left[0].number
        if worker.given == 1 and first in self._suspects:
            return [Finding(first, {"status": FAILED, "reason": DIED}, kept=False)]
        self._suspects |= {point.number for point in worker.left[: worker.given]}
        return []

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()


def _serve(pipe: Connection, cache: Path) -> None:
    """What a worker does: points in, findings out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    gc.freeze()
    evaluator = Evaluator(cache)
    while True:
        try:
            pipe.send(evaluator.some(pipe.recv(), MOMENT_S))
        except (EOFError, ConnectionError):
            return
        except Exception as error:
            pipe.send(error)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes inside without the script that asked: it would run again in each of them."""
    name = "__main__"
    before = sys.modules[name]
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        sys.modules[name] = before
