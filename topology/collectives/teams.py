"""All-reduce by teams: sums of neighbours are exchanged, not what each of them has.

A team is a node of the published topologies: inside it all chips are linked, between two of them
there are a few cables. Every rank of a team owns a block. Between teams the owners' sums cross,
dealt over the cables of the two teams, and over detours where there are chips outside of the group.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from math import ceil

import numpy as np

from topology.collectives.direct import pairs
from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.errors import BadCollective
from topology.fabric import Fabric, Ints
from topology.firstfit import Cable, first_start
from topology.routes import Paths, paths

Trunk = tuple[int, ...]  # edges from a chip of a team to one of another
MOST_TRUNKS = 8  # between two teams
PASSED_CYCLES = 45  # that a chip adds to a latency at most, as vectors go from edge to edge


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
    rank = owner // job.stripes
    src, dst = here * size + rank, there * size + rank
    via, turn = _dealt(job, src, dst, draft.block_vectors[owner], owner % job.stripes)
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


def _dealt(job: Job, src: Ints, dst: Ints, vectors: Ints, stripe: Ints) -> tuple[Paths, Ints]:
    """Routes over the trunks of each two teams, and which of parallel cables.

    Minimal routes where two teams have no trunk, or chips of a team no link.
    """
    fabric, chips = job.fabric, np.array(job.chips)
    minimal = paths(fabric, chips[src], chips[dst])
    routes = [minimal.edges[a:b] for a, b in zip(minimal.start, minimal.start[1:], strict=False)]
    turn = np.arange(len(src))
    known = trunks(fabric, job.chips, job.team_ranks)
    load, pace = _Load(fabric), ceil(fabric.paces[0])
    ready = stripe * pace * job.unit_vectors
    teams = src // job.team_ranks, dst // job.team_ranks
    ends = chips[src].tolist(), chips[dst].tolist()
    for message in np.lexsort((turn, stripe)).tolist():
        pair = int(teams[0][message]), int(teams[1][message])
        ways = [
            way
            for trunk in known.get(pair, ())
            if (way := _through(fabric, ends[0][message], trunk, ends[1][message]))
        ]
        if len(ways) == len(known.get(pair, ())) > 0:
            size = int(vectors[message]), int(ready[message])
            routes[message], turn[message] = load.best(ways, *size)
    start = np.cumsum([0, *map(len, routes)])
    return Paths(start, np.concatenate(routes)), turn


def trunks(
    fabric: Fabric, chips: Sequence[int], team_ranks: int
) -> dict[tuple[int, int], list[Trunk]]:
    """Ways from each team of a group to each other: cables that join them, and detours.

    Those lead past chips outside of the group, of which there are only such as may be used, and
    share no cable. Of as short ones the nearest behind the group's first chip come first. Where
    all teams are joined, chips near all of them will do: equal groups have those in common.
    """
    team = np.full(fabric.chips, -1)
    team[list(chips)] = np.arange(len(chips)) // team_ranks
    here, there = team[fabric.tail], team[fabric.head]
    found: dict[tuple[int, int], list[Trunk]] = {}
    for edge in np.flatnonzero((here >= 0) & (there >= 0) & (here != there)).tolist():
        found.setdefault((int(here[edge]), int(there[edge])), []).append((edge,))
    detours: dict[tuple[int, int], list[Trunk]] = {}
    count = len(chips) // team_ranks
    least = count - 1 if len(found) == count * (count - 1) else 1  # teams that a detour must reach
    tails, heads, of = fabric.tail.tolist(), fabric.head.tolist(), team.tolist()
    for first in np.flatnonzero((here >= 0) & (there < 0)).tolist():
        ways: dict[int, list[Trunk]] = {}
        for last in range(*fabric.row[heads[first] : heads[first] + 2].tolist()):
            behind = range(0)
            if of[heads[last]] < 0:
                behind = range(*fabric.row[heads[last] : heads[last] + 2].tolist())
            for way in ((first, last), *((first, last, more) for more in behind)):
                ways.setdefault(of[heads[way[-1]]], []).append(way)
        others = ways.keys() - {-1, of[tails[first]]}
        if len(others) >= least:
            for other in others:
                detours.setdefault((of[tails[first]], other), []).extend(ways[other])
    _share_out(fabric, chips[0], detours, found)
    return found


def _share_out(
    fabric: Fabric,
    origin: int,
    detours: dict[tuple[int, int], list[Trunk]],
    found: dict[tuple[int, int], list[Trunk]],
) -> None:
    """Add detours to what is found between each two teams, one for those with the fewest first."""
    heads, taken = fabric.head.tolist(), set[int]()

    def nearness(trunk: Trunk) -> tuple[int, ...]:
        return len(trunk), *((heads[edge] - origin) % fabric.chips for edge in trunk)

    left = {pair: iter(sorted(detours[pair], key=nearness)) for pair in detours}
    while left:
        pair = min(left, key=lambda one: (len(found.get(one, ())), one))
        way = next((way for way in left[pair] if taken.isdisjoint(way)), None)
        if way is not None:
            taken.update(way)
            found.setdefault(pair, []).append(way)
        if way is None or len(found[pair]) >= MOST_TRUNKS:
            del left[pair]


def _through(fabric: Fabric, src: int, trunk: Trunk, dst: int) -> Trunk:
    """Edges of src -> trunk -> dst, or none if a chip has no link to the trunk."""
    ends = int(fabric.tail[trunk[0]]), int(fabric.head[trunk[-1]])
    legs = [(src, ends[0])] * (src != ends[0]), [(ends[1], dst)] * (ends[1] != dst)
    before, after = (
        [int(fabric.edges_between(*map(np.array, leg))) for leg in one] for one in legs
    )
    return () if -1 in (*before, *after) else (*before, *trunk, *after)


class _Load:
    """When cables are free, and over which of them vectors are there first."""

    def __init__(self, fabric: Fabric) -> None:
        self.latency, self.cables = fabric.latency_cycles.tolist(), fabric.cables.tolist()
        self.pace = [ceil(fabric.paces[pace]) for pace in fabric.pace.tolist()]
        self.taken: dict[tuple[int, int], Cable] = defaultdict(lambda: Cable(0))

    def best(self, ways: Sequence[Trunk], vectors: int, ready: int) -> tuple[Ints, int]:
        """The way on which so many vectors are there first, and which of parallel cables."""
        found = []
        for number, way in enumerate(ways):
            offsets = [0, *accumulate(self.latency[edge] for edge in way)]
            needs = [vectors * self.pace[edge] for edge in way]
            for turn in range(max(self.cables[edge] for edge in way)):
                cables = [self.taken[edge, turn % self.cables[edge]] for edge in way]
                hops = list(zip(cables, offsets[:-1], needs, strict=True))
                start = first_start(hops, ready)
                over = start + offsets[-1] + PASSED_CYCLES * len(way)
                found.append((over, number, turn, start, hops))
        _, number, turn, start, hops = min(found, key=lambda one: one[:3])
        for cable, offset, need in hops:
            cable.take(start + offset, need)
        return np.array(ways[number]), turn
