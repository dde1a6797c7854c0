"""All-reduce by teams whose sums go to everybody: each rank adds up what the teams have.

As in `teams` a rank of each team adds up a block. Its sum crosses to each other team over the cable
by which all of them have it first, whoever is at its end: that rank hands it to its neighbours as
it comes. So nothing waits until sums of teams are one sum to be sent on, and all cables between two
teams are as good, wherever the owners of a block are.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.collectives.trunks import Crossing, Loads, Trunk, trunks
from topology.errors import BadCollective
from topology.fabric import Ints
from topology.firstfit import first_start
from topology.routes import Paths, paths

MOST_RANKS = 64  # of a group: deals of wider ones take seconds


class Crossed(NamedTuple):
    """A block on its way from the rank that adds it up to one of another team."""

    rank: int
    other: int
    block: int
    turn: int
    way: Trunk


@algorithm("relays", "all_reduce")
def relays(job: Job) -> Messages:
    """`teams`, of which all ranks get each sum and add them up."""
    size = job.team_ranks
    if job.ranks % size or not size < job.ranks <= MOST_RANKS:
        problem = f"'relays' needs 2 to {MOST_RANKS // size} whole teams of {size}"
        raise BadCollective(job.operation, f"{problem}, not {job.ranks} ranks", "use direct")
    count = job.ranks // size
    draft = Draft(job, size * job.stripes, result_slot=1 + count)
    deal = _Deal(job, draft.block_vectors)
    slots = [1 + team for team in range(count)]  # of the sums of each team

    def each(step: Callable[[int, Ints], None], some: Sequence[int]) -> None:
        """A step for what comes from each team, of some ranks."""
        for slot in slots:
            mine = [n for n, rank in enumerate(some) if rank // size == slot - 1]
            step(slot, np.array(mine, np.int64))

    def around(ranks: Ints, blocks: Ints) -> tuple[Ints, Ints, Ints]:
        """Each rank and its block, as often as there are others of its team, with these."""
        rank, block = np.repeat(ranks, size - 1), np.repeat(blocks, size - 1)
        shift = np.tile(np.arange(1, size), len(ranks))
        return rank, rank // size * size + (rank + shift) % size, block

    owner, owned = np.array(deal.owners).T
    source, end, crossed, turn = np.array([one[:4] for one in deal.crossed]).T

    def add_up(slot: int, mine: Ints) -> None:
        rank, other, block = around(owner[mine], owned[mine])
        draft.send(other, rank, block, add=True, by_rank=True, dst_slot=slot)

    def cross(slot: int, mine: Ints) -> None:
        ways = [deal.crossed[n].way for n in mine.tolist()]
        start = np.cumsum([0, *map(len, ways)])
        via = Paths(start, np.array([edge for way in ways for edge in way]))
        ends = source[mine], end[mine], crossed[mine]
        draft.send(*ends, src_slot=slot, dst_slot=slot, via=via, turn=turn[mine])

    def hand_on(slot: int, rank: Ints, block: Ints) -> None:
        draft.send(*around(rank, block), src_slot=slot, dst_slot=slot)

    each(add_up, owner.tolist())
    each(cross, source.tolist())
    each(lambda slot, mine: hand_on(slot, owner[mine], owned[mine]), owner.tolist())
    each(lambda slot, mine: hand_on(slot, end[mine], crossed[mine]), source.tolist())
    onto = () if job.onto is None else (job.onto,)
    draft.combine((*onto, *slots), 1 + count)
    return draft.messages()


class _Deal:
    """Who adds up each block in each team, and over which cables its sum goes to other teams.

    `owners` are (rank, block). Block by block each team takes the rank by which all others are over
    with its sum first, with all that was dealt before on the cables.
    """

    def __init__(self, job: Job, vectors: Ints) -> None:
        self.job, self.size, self.loads = job, job.team_ranks, Loads(job.fabric)
        self.count = job.ranks // self.size
        self.owners, self.crossed = list[tuple[int, int]](), list[Crossed]()
        fabric, rank = job.fabric, {chip: rank for rank, chip in enumerate(job.chips)}
        tail, head = fabric.tail.tolist(), fabric.head.tolist()
        self.trunks = {
            pair: [(rank[tail[way[0]]], rank[head[way[-1]]], way) for way in some]
            for pair, some in trunks(fabric, job.chips, self.size, direct=True).items()
        }
        pairs = [(one, other) for one in range(job.ranks) for other in self._team(one // self.size)]
        edges = fabric.edges_between(*np.array(job.chips)[np.array(pairs)].T).tolist()
        self.inside = dict(zip(pairs, edges, strict=True))  # -1 where there is no edge
        for block, size in enumerate(vectors.tolist()):
            for team in range(self.count) if size else ():
                best = min(self._team(team), key=lambda rank: self._over(rank, block, size))
                self._over(best, block, size, take=True)

    def _team(self, number: int) -> range:
        """Ranks of a team."""
        return range(number * self.size, (number + 1) * self.size)

    def _star(self, rank: int, inward: bool) -> list[int]:
        """Edges to a rank from the others of its team, or from it to them."""
        others = self._team(rank // self.size)
        pairs = ((other, rank) if inward else (rank, other) for other in others)
        return [edge for pair in pairs if (edge := self.inside[pair]) >= 0]

    def _over(self, rank: int, block: int, vectors: int, take: bool = False) -> tuple[int, int]:
        """When teams have what a rank has added up: the last of others, and the sum over them."""
        team, ends = rank // self.size, list[int]()
        made = self.loads.there(self._star(rank, True), vectors, 0, take)
        for shift in range(1, self.count):
            end, other, way, crossing = self._quickest(
                rank, (team + shift) % self.count, made, vectors
            )
            ends.append(end)
            if take:
                self.loads.take(crossing)
                self._handed_on(other, vectors, _begun(crossing, vectors), take)
                self.crossed.append(Crossed(rank, other, block, crossing.turn, way))
        if take:
            self.owners.append((rank, block))
            self._handed_on(rank, vectors, made, take)
        return max(ends), sum(ends)

    def _quickest(
        self, rank: int, team: int, made: int, vectors: int
    ) -> tuple[int, int, Trunk, Crossing]:
        """When all of a team have a sum at the earliest, over whom, and on which way to that."""
        ways = []
        for first, last, trunk in self.trunks.get((rank // self.size, team), ()):
            way = trunk if first == rank else (self.inside[rank, first], *trunk)
            ways += [(last, way)] if way[0] >= 0 else []
        found = []
        for last, way in ways or [self._far(rank, team)]:
            crossing = self.loads.quickest([(way, made)], vectors)
            end = self._handed_on(last, vectors, _begun(crossing, vectors))
            found.append((end, last, way, crossing))
        return min(found, key=lambda one: one[0])

    def _far(self, rank: int, team: int) -> tuple[int, Trunk]:
        """The like of a rank in a team that no cable leads to, and a shortest way there."""
        like = team * self.size + rank % self.size
        ends = (np.array([self.job.chips[one]]) for one in (rank, like))
        return like, tuple(paths(self.job.fabric, *ends).edges.tolist())

    def _handed_on(self, rank: int, vectors: int, begin: int, take: bool = False) -> int:
        """When all neighbours have what a rank has from a cycle on; it is read once for them."""
        edges, loads = self._star(rank, False), self.loads
        pace = max((loads.pace[edge] for edge in edges), default=0)
        hops = [(loads.taken[edge, 0], 0, vectors * pace) for edge in edges]
        start = first_start(hops, begin)
        far = max((loads.latency[edge] for edge in edges), default=0)
        for cable, _, need in hops if take else ():
            cable.take(start, need)
        return int(start + vectors * pace + far)


def _begun(crossing: Crossing, vectors: int) -> int:
    """When the first of so many vectors is over."""
    need = crossing.hops[-1][2]
    return crossing.over - need + need // vectors
