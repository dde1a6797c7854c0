"""Which algorithm can do which operation: `@algorithm` registers, `find` looks up."""

from collections.abc import Callable

from topology.collectives.job import Job
from topology.collectives.messages import Messages
from topology.errors import BadCollective

Algorithm = Callable[[Job], Messages]

OPERATIONS = (
    "all_reduce",
    "reduce_scatter",
    "all_gather",
    "broadcast",
    "reduce",
    "all_to_all",
    "point_to_point",
)
ALGORITHMS: dict[str, dict[str, Algorithm]] = {operation: {} for operation in OPERATIONS}
_ROUNDING: set[tuple[str, str]] = set()


def algorithm(
    name: str, *operations: str, rounds: bool = False
) -> Callable[[Algorithm], Algorithm]:
    """Register a function that lists messages; it raises BadCollective where it cannot.

    One that `rounds` has sums of nodes, which can be rounded before they travel to others.
    """

    def register(function: Algorithm) -> Algorithm:
        for operation in operations:
            ALGORITHMS[operation][name] = function
            if rounds:
                _ROUNDING.add((operation, name))
        return function

    return register


def find(operation: str, name: str) -> Algorithm:
    """Return the algorithm; raises BadCollective that lists what there is."""
    known = ALGORITHMS[operation]
    if name not in known:
        raise BadCollective(
            operation, f"unknown algorithm '{name}'", f"use auto or one of {', '.join(known)}"
        )
    return known[name]


def suited(job: Job) -> dict[str, Algorithm]:
    """Algorithms for a job by name: those that round sums between nodes, if it wants that."""
    known = ALGORITHMS[job.operation]
    if not job.sums.narrow:
        return known
    found = {name: one for name, one in known.items() if (job.operation, name) in _ROUNDING}
    if not found:
        problem = f"has no sums between nodes to be {job.sums_between}"
        raise BadCollective(job.operation, problem, "use all_reduce, or leave them fp32")
    return found


def check_rounds(job: Job, name: str) -> None:
    """Raise BadCollective unless an algorithm can round sums between nodes as a job wants it."""
    if name not in suited(job):
        problem = f"'{name}' has no sums between nodes to be {job.sums_between}"
        raise BadCollective(job.operation, problem, f"use {', '.join(suited(job))}")
