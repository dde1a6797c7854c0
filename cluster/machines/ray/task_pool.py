"""Points of a sweep as tasks of a Ray cluster.

A task works for a moment on a list of points and returns what it has; the rest goes into another.
Ray runs a task again whose worker or host is gone, and what it would have returned is the same.
"""

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from cluster.errors import BadValue
from cluster.machines.ray import addresses, joining
from cluster.model.fetch import cache_folder
from cluster.sweeps.evaluation import FAILED, Evaluator, Finding
from cluster.sweeps.grid import Point

MOMENT_S = 1.0
MOST_GIVEN = 256  # points in one task
RETRIES = 8  # of a task whose worker or host dies, or finds its code away
CODE = Path(__file__).resolve().parents[3]
LOST = "the workers of Ray that had it died, as when memory runs out"


@cache
def _evaluator() -> Evaluator:
    return Evaluator(cache_folder())


def some(points: Sequence[Point]) -> list[Finding]:
    """What one task does, with what this worker knows from tasks before.

    Raises ImportError where a file of our code cannot be read: nodes of one host share the folder
    it is in, and when such a node starts Ray removes it and unpacks it anew, under all who use it.
    """
    try:
        return _evaluator().some(points, MOMENT_S)
    except OSError as error:
        if error.filename and Path(str(error.filename)).is_relative_to(CODE):
            raise ImportError(str(error)) from error
        raise


def task() -> Callable[[bytes], list[Any]]:
    """`some` of pickled points, for Ray to send by value: a worker reads none of our files before
    it runs, and what fails there is tried again, while what fails before is not."""

    def work(points: bytes) -> list[Any]:  # a name of ours would be one of our files
        import pickle
        import time

        try:
            from cluster.machines.ray.task_pool import some

            return some(pickle.loads(points))
        except ImportError:
            time.sleep(1)  # until the code is there again
            raise

    return work


class RayPool:
    """Tasks on the Ray at an address, or on that of the job we are in; use it in a `with`."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._ours = False

    def __enter__(self) -> "RayPool":
        if not ray.is_initialized():
            place = addresses.place(self.address, os.environ)
            if place is None:
                raise BadValue("--address", self.address, "is no Ray cluster to connect to")
            joining.calm()
            joining.join(place)
            self._ours = True
        return self

    def results(self, points: Sequence[Point]) -> Iterator[list[Finding]]:
        """Findings of all points, in lists as they come."""
        again: Any = {"max_retries": RETRIES, "retry_exceptions": [ImportError]}
        work = ray.remote(num_cpus=1, **again)(task())
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = max(1, int(resources.get("CPU", 1)))
        size = min(MOST_GIVEN, max(1, -(-len(points) // (4 * cpus))))
        waiting = deque(points[at : at + size] for at in range(0, len(points), size))
        busy: dict[Any, Sequence[Point]] = {}
        while waiting or busy:
            while waiting and len(busy) < 2 * cpus:
                given = waiting.popleft()
                busy[work.remote(pickle.dumps(given))] = given
            (done,), _ = ray.wait(list(busy), num_returns=1)
            given = busy.pop(done)
            found = _result(done, given)
            finished = {finding.number for finding in found}
            left = [point for point in given if point.number not in finished]
            if left:
                # A list whose workers died is taken apart, as one of its points may be the cause.
                waiting.extendleft([left] if found else [[point] for point in left])
            yield found

    def __exit__(self, *_: object) -> None:
        if self._ours:
            ray.shutdown()


def _result(done: Any, given: Sequence[Point]) -> list[Finding]:
    """What a task has found: nothing where its workers died, but for a single point."""
    try:
        found: list[Finding] = ray.get(done)
        return found
    except exceptions.RayTaskError as error:
        if not isinstance(error.cause, exceptions.RayError):
            raise error.cause from None
    except exceptions.RayError:
        pass
    lost = Finding(given[0].number, {"status": FAILED, "reason": LOST}, kept=False)
    return [lost] if len(given) == 1 else []
