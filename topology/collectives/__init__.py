"""Collectives on any graph of chips, over any subset of them, as timed sends, receives and adds.

>>> from topology import node
>>> all_reduce(node(), num_bytes=320 * 8, algorithm="direct").cycles
540
"""

from collections.abc import Sequence

import networkx as nx

from topology.collectives import (
    agents,
    direct,
    halving,
    hierarchical,
    homes,
    relays,
    rings,
    teams,
    trees,
)
from topology.collectives.auto import check_size, fastest
from topology.collectives.bounds import lower_bound_cycles
from topology.collectives.engine import Engine
from topology.collectives.execute import counted, defined, execute, expected
from topology.collectives.job import Job
from topology.collectives.messages import Combine, Draft, Messages, Send
from topology.collectives.registry import ALGORITHMS, OPERATIONS, algorithm, check_rounds, find
from topology.collectives.result import Batch, Collective, LocalAdd, Transfer
from topology.collectives.sums import FP32, SUM_FORMATS, sum_format
from topology.errors import BadCollective, NoRoute
from topology.families.graphs import NODE_CHIPS

__all__ = [
    "ALGORITHMS",
    "OPERATIONS",
    "SUM_FORMATS",
    "Batch",
    "Collective",
    "Combine",
    "Draft",
    "Engine",
    "Job",
    "LocalAdd",
    "Messages",
    "Send",
    "Transfer",
    "agents",
    "algorithm",
    "all_reduce",
    "collective",
    "counted",
    "defined",
    "direct",
    "execute",
    "expected",
    "halving",
    "hierarchical",
    "homes",
    "point_to_point",
    "relays",
    "rings",
    "teams",
    "trees",
]


def collective(
    operation: str,
    graph: nx.Graph,
    num_bytes: int,
    algorithm: str = "auto",
    chips: Sequence[int] | None = None,
    root: int | None = None,
    chunks: int | None = None,
    release_cycles: Sequence[int] | None = None,
    add_cycles: int = 0,
    unit_vectors: int = 1,
    residual: bool = False,
    team_ranks: int = NODE_CHIPS,
    sums_between: str = FP32,
) -> Collective:
    """Return the timed collective; `num_bytes` is the size of one chip's full buffer.

    `chips` is the group (default: all, in id order; the order is the rank order), `root` a chip of
    it (default: the first), `chunks` the number of blocks per share, `release_cycles` the cycle at
    which each rank's data is there. Blocks are whole units of `unit_vectors`; with a `residual`
    each rank adds what it has besides its part of the sum; `teams` are of `team_ranks`. Buffers are
    of fp32; sums that travel between nodes are rounded to `sums_between`, one of SUM_FORMATS.
    Raises BadCollective, NoRoute.
    """
    group = tuple(sorted(graph) if chips is None else chips)
    _check_group(operation, graph, group, num_bytes)
    sum_format(operation, sums_between)
    if root is not None and root not in group:
        raise BadCollective(operation, f"root chip {root} is not in the group", "name one of it")
    job = Job(
        operation,
        graph,
        group,
        num_bytes,
        group.index(root) if root is not None else 0,
        chunks,
        tuple(release_cycles) if release_cycles is not None else None,
        add_cycles=add_cycles,
        unit_vectors=unit_vectors,
        residual=residual,
        team_ranks=team_ranks,
        sums_between=sums_between,
    )
    if algorithm == "auto":
        algorithm, engine = fastest(job)
    else:
        listed = find(operation, algorithm)
        check_rounds(job, algorithm)
        check_size(job, algorithm)
        engine = Engine(listed(job))
    return engine.finish(algorithm, lower_bound_cycles(job))


def all_reduce(
    graph: nx.Graph,
    num_bytes: int,
    algorithm: str = "auto",
    chips: Sequence[int] | None = None,
    chunks: int | None = None,
    release_cycles: Sequence[int] | None = None,
    add_cycles: int = 0,
) -> Collective:
    """Return the timed sum of all chips' buffers, which every chip of the group ends up with."""
    return collective(
        *("all_reduce", graph, num_bytes, algorithm, chips, None, chunks),
        *(release_cycles, add_cycles),
    )


def point_to_point(
    graph: nx.Graph,
    src: int,
    dst: int,
    num_bytes: int,
    algorithm: str = "auto",
    release_cycle: int = 0,
) -> Collective:
    """Return the timed transfer of one buffer from chip src to chip dst."""
    return collective(
        *("point_to_point", graph, num_bytes, algorithm, (src, dst)),
        release_cycles=(release_cycle, release_cycle),
    )


def _check_group(operation: str, graph: nx.Graph, group: tuple[int, ...], num_bytes: int) -> None:
    if operation not in OPERATIONS:
        raise BadCollective(operation, "unknown operation", f"use one of {', '.join(OPERATIONS)}")
    if num_bytes < 1:
        raise BadCollective(operation, f"{num_bytes} bytes", "give at least 1 byte")
    if len(group) < 2 or len(set(group)) != len(group):
        raise BadCollective(operation, f"group of {len(group)} chips", "name 2 or more, each once")
    for chip in group:
        if chip not in graph:
            raise NoRoute(graph.graph.get("name", "graph"), group[0], chip)
