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


def algorithm(name: str, *operations: str) -> Callable[[Algorithm], Algorithm]:
    """Register a function that lists messages; it raises BadCollective where it cannot."""

    def register(function: Algorithm) -> Algorithm:
        for operation in operations:
            ALGORITHMS[operation][name] = function
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
