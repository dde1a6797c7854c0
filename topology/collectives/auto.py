"""`auto`: time every algorithm that fits and keep the fastest."""

from topology.collectives.engine import Engine
from topology.collectives.job import Job
from topology.collectives.registry import ALGORITHMS
from topology.errors import BadCollective

# More messages than this are not worth timing when another algorithm applies: `auto` is meant to
# answer in seconds. Estimates below are upper bounds of messages times hops.
MAX_WORK = 3_000_000


def fastest(job: Job) -> tuple[str, Engine]:
    """Return the name and the timing of the fastest algorithm; ties go to the first registered."""
    best: tuple[int, str, Engine] | None = None
    for name, function in ALGORITHMS[job.operation].items():
        if _work(job, name) > MAX_WORK:
            continue
        try:
            engine = function(job)
        except BadCollective:
            continue
        if best is None or engine.end_cycle < best[0]:
            best = engine.end_cycle, name, engine
    if best is None:
        raise BadCollective(job.operation, "no algorithm applies to this group", "name one")
    return best[1], best[2]


def _work(job: Job, name: str) -> float:
    """Return about how many message hops an algorithm takes."""
    fabric, ranks = job.fabric, job.ranks
    # A pair that is not linked is at least two hops apart, in a sparse graph many more.
    mean_degree = max(len(fabric.head) / max(len(fabric.alive), 1), 1.1)
    far = 1 if mean_degree >= ranks - 1 else max(2.0, ranks ** (1 / mean_degree))
    shares = ranks * job.stripes
    return {
        "direct": 2 * ranks * shares * far,
        "exchange": ranks * ranks * job.stripes * far,
        "scatter": ranks * shares * far,
        "ring": 4 * ranks * shares,
        "ring-stepwise": 2 * ranks * shares,
        "dimension": ranks * shares,
        "tiled": 2 * ranks * min(shares, 400_000 / ranks, job.vectors),
    }.get(name, ranks * far)
