"""`auto`: time every algorithm that fits and keep the fastest; and how much work each one is."""

from topology.collectives.engine import Engine
from topology.collectives.job import Job
from topology.collectives.registry import suited
from topology.errors import BadCollective

# `auto` is meant to answer in seconds: what would take longer is left out if anything else is left.
MAX_SECONDS = 1.5
# A message takes about 100 bytes while it is timed: more than this would not fit 4 GiB.
MAX_MESSAGES = 30_000_000
# Seconds per message, measured on one core of a small machine: on arrays, and where messages of
# several hops compete and are placed one by one (per hop).
_ON_ARRAYS, _ONE_BY_ONE = 0.5e-6, 9e-6


def fastest(job: Job) -> tuple[str, Engine]:
    """Return the name and the timing of the fastest algorithm; ties go to the first registered."""
    known = suited(job)
    seconds = {name: estimated_seconds(job, name) for name in known}
    names = [name for name in seconds if seconds[name] <= MAX_SECONDS]
    best: tuple[int, str, Engine] | None = None
    for name in names or [min(seconds, key=seconds.__getitem__)]:
        try:
            check_size(job, name)
            engine = Engine(known[name](job))
        except BadCollective:
            if len(names) < 2:
                raise
            continue
        if best is None or engine.end_cycle < best[0]:
            best = engine.end_cycle, name, engine
    if best is None and job.sums.narrow:
        problem = f"no chips of one node add up what goes to another, to be {job.sums_between}"
        raise BadCollective(job.operation, problem, "leave sums fp32")
    if best is None:
        raise BadCollective(job.operation, "no algorithm applies to this group", "name one")
    return best[1], best[2]


def check_size(job: Job, name: str) -> None:
    """Raise BadCollective if an algorithm would need more messages than memory holds."""
    messages = estimated_messages(job, name)
    if messages > MAX_MESSAGES:
        problem = f"'{name}' needs about {messages / 1e6:,.0f} million messages on this group"
        remedy = "use fewer chips or chunks, or an all_reduce by tree, tiled or hierarchical"
        raise BadCollective(job.operation, problem, remedy)


def estimated_messages(job: Job, name: str) -> float:
    """Return about how many messages an algorithm sends."""
    ranks, shares = job.ranks, job.ranks * job.stripes
    rooted = job.operation in ("broadcast", "reduce", "point_to_point")
    tiles = min(job.chunks or shares, 400_000 / ranks, job.vectors)
    return float(
        {
            "direct": job.stripes * ranks if rooted else 2 * ranks * shares,
            "exchange": ranks * shares,
            "teams": ranks * job.stripes * (2 * job.team_ranks + ranks // job.team_ranks),
            "agents": ranks * job.stripes * (2 * job.team_ranks + ranks // job.team_ranks),
            "homes": ranks * job.stripes * (2 * job.team_ranks + 2),
            "relays": ranks * job.stripes * job.team_ranks * (1 + ranks // job.team_ranks),
            "gates": 2 * ranks * job.stripes * (job.team_ranks + ranks),
            "scatter": ranks * shares,
            "ring": 4 * ranks * shares,
            "ring-stepwise": 2 * ranks * shares,
            "dimension": ranks * shares,
            "halving-doubling": ranks * ranks,  # blocks it keeps track of
            "halving": ranks * ranks,
            "doubling": ranks * ranks,
            "hierarchical": 3 * len(job.fabric.tail) * min(16, job.vectors),
            "tiled": ranks * shares if job.operation in _SHARED else 2 * ranks * tiles,
        }.get(name, 2 * ranks * job.stripes)
    )


def estimated_seconds(job: Job, name: str) -> float:
    """Return about how long it takes to time an algorithm."""
    messages = estimated_messages(job, name)
    linked = len(job.fabric.head) >= job.ranks * (job.ranks - 1)  # only then all hops are single
    if name in _ANYWHERE and not linked:
        degree = max(len(job.fabric.head) / max(len(job.fabric.alive), 1), 1.1)
        hops = max(2.0, float(len(job.fabric.alive) ** (1 / degree)))
        return messages * hops * _ONE_BY_ONE
    steps = 2 * job.ranks * 1e-4 if name in ("ring", "ring-stepwise") else 0.0
    return messages * _ON_ARRAYS * (3 if name == "tiled" else 1) + steps


_SHARED = ("reduce_scatter", "all_gather")
# Those that send over routes of several hops.
_ANYWHERE = (
    "direct", "exchange", "scatter", "teams", "gates", "agents", "relays", "tree", "spread",
)  # fmt: skip
