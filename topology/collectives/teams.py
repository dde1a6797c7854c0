"""All-reduce by teams: sums of neighbours are exchanged, not what each of them has.

A team is a node of the published topologies: inside it all chips are linked, between two of them
there are a few cables. Every rank of a team owns a block. Between teams the owners' sums cross,
dealt over the cables of the two teams so that all carry alike.
"""

import numpy as np

from topology.collectives.direct import pairs
from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.errors import BadCollective
from topology.fabric import Fabric, Ints
from topology.routes import Paths, paths


@algorithm("teams", "all_reduce")
def teams(job: Job) -> Messages:
    """`direct` inside teams of neighbours, whose owners of a block exchange their sums."""
    size, count = job.team_ranks, job.ranks // job.team_ranks
    if job.ranks % size or count < 2:
        problem = f"'teams' needs several whole teams of {size}, not {job.ranks} ranks"
        raise BadCollective(job.operation, problem, "use direct")
    draft = Draft(job, size * job.stripes, result_slot=2)
    here, there, stripe = pairs(size, job.stripes)
    first = np.repeat(np.arange(count) * size, len(here))
    inside, other, stripe = np.tile(here, count), np.tile(there, count), np.tile(stripe, count)
    mine, block = first + inside, other * job.stripes + stripe
    draft.send(mine, first + other, block, add=True, by_rank=True, dst_slot=1)
    here, there, owner = pairs(count, size * job.stripes)
    full = draft.block_vectors[owner] > 0
    here, there, owner = here[full], there[full], owner[full]
    rank = owner // job.stripes
    src, dst = here * size + rank, there * size + rank
    via, turn = _dealt(job, src, dst, draft.block_vectors[owner])
    draft.send(
        *(src, dst, owner),
        add=True,
        by_rank=True,
        onto=job.onto,
        src_slot=1,
        dst_slot=2,
        via=via,
        turn=turn,
    )
    block = inside * job.stripes + stripe
    draft.send(mine, first + other, block, src_slot=2, dst_slot=2)
    return draft.messages()


def _dealt(job: Job, src: Ints, dst: Ints, vectors: Ints) -> tuple[Paths, Ints]:
    """Routes over the cables of each two teams in turn, and which of parallel ones.

    Minimal routes where two teams have no cable, or chips of a team no link.
    """
    fabric, chips = job.fabric, np.array(job.chips)
    minimal = paths(fabric, chips[src], chips[dst])
    routes = [minimal.edges[a:b] for a, b in zip(minimal.start, minimal.start[1:], strict=False)]
    turn = np.arange(len(src))
    gates = _gates(job)
    pair = src // job.team_ranks * job.ranks + dst // job.team_ranks
    for number in np.unique(pair).tolist():
        mine = np.flatnonzero(pair == number)
        between = gates.get(divmod(number, job.ranks), ())
        ways = {
            (message, gate): way
            for message in mine.tolist()
            for gate in between
            if (way := _through(fabric, int(chips[src[message]]), gate, int(chips[dst[message]])))
        }
        if len(ways) == len(mine) * len(between) > 0:
            for message, gate, cable in _even(ways, vectors, fabric.cables):
                routes[message], turn[message] = np.array(ways[message, gate]), cable
    start = np.cumsum([0, *map(len, routes)])
    return Paths(start, np.concatenate(routes)), turn


def _gates(job: Job) -> dict[tuple[int, int], list[int]]:
    """Edges from each team of the group to each other."""
    fabric = job.fabric
    team = np.full(fabric.chips, -1)
    team[list(job.chips)] = np.arange(job.ranks) // job.team_ranks
    here, there = team[fabric.tail], team[fabric.head]
    found: dict[tuple[int, int], list[int]] = {}
    for edge in np.flatnonzero((here >= 0) & (there >= 0) & (here != there)).tolist():
        found.setdefault((int(here[edge]), int(there[edge])), []).append(edge)
    return found


def _through(fabric: Fabric, src: int, gate: int, dst: int) -> tuple[int, ...]:
    """Edges of src -> gate -> dst, or none if a chip has no link to the gate."""
    ends = int(fabric.tail[gate]), int(fabric.head[gate])
    legs = [(src, ends[0])] * (src != ends[0]), [(ends[1], dst)] * (ends[1] != dst)
    before, after = (
        [int(fabric.edges_between(*map(np.array, leg))) for leg in one] for one in legs
    )
    return () if -1 in (*before, *after) else (*before, gate, *after)


def _even(
    ways: dict[tuple[int, int], tuple[int, ...]], vectors: Ints, cables: Ints
) -> list[tuple[int, int, int]]:
    """A gate and a cable for each message, which goes where the load is least.

    The shortest ways come first, so that who has a cable of its own takes it.
    """
    load = {(gate, cable): 0 for _, gate in ways for cable in range(int(cables[gate]))}
    shortest: dict[int, int] = {}
    for (message, _), way in ways.items():
        shortest[message] = min(shortest.get(message, len(way)), len(way))
    found = []
    for message in sorted(shortest, key=lambda one: (shortest[one], one)):
        gate, cable = min(load, key=lambda one: (load[one], len(ways[message, one[0]]), one))
        load[gate, cable] += int(vectors[message])
        found.append((message, gate, cable))
    return found
