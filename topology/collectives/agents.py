"""All-reduce by teams whose agents exchange sums: chips at the ends of the cables between them.

As in `teams` a rank of each team adds up a block, exchanges the sum with those of other teams, and
hands the whole to its own team. `teams` shares blocks out evenly, so that most sums pass a chip of
their own team before they come to a cable to the other one, and another behind it. Here those who
have such cables are the *agents* of a block: of two teams the ends of a cable, of more the chips
next to a node outside of the group that joins them all. Block by block is dealt to the agents that
are over with it first, with all that was dealt before on the cables.
"""

from collections.abc import Iterator
from functools import cache
from heapq import heapify, heapreplace

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.collectives.trunks import Crossing, Loads, Trunk, trunks
from topology.errors import BadCollective
from topology.fabric import Ints
from topology.routes import Paths, paths

MOST_RANKS = 64  # of a group: the agents of wider ones take seconds to find
LONGER_EDGES = 1  # of ways that are tried beside the shortest ones
FAR_EDGES = 1 << 10  # more than any way has
Agents = tuple[int, ...]  # a rank of each team
Sent = tuple[int, int, int, int]  # rank, other rank, block, turn


@algorithm("agents", "all_reduce", rounds=True)
def agents(job: Job) -> Messages:
    """`teams`, whose owners of a block are at the ends of cables.

    Without detours these few chips have more to do than others could take over.
    """
    size = job.team_ranks
    if job.ranks % size or not size < job.ranks <= MOST_RANKS:
        problem = f"'agents' needs 2 to {MOST_RANKS // size} whole teams of {size}"
        raise BadCollective(job.operation, f"{problem}, not {job.ranks} ranks", "use direct")
    draft = Draft(job, size * job.stripes, result_slot=2)
    draft.round_off(1)
    deals = [_Deal(job, draft.block_vectors, nearer) for nearer in (True, False)]
    dealt = [list(deal.dealt()) for deal in deals]
    deal, crossing = min(zip(deals, dealt, strict=True), key=lambda one: one[0].over)
    rank, block = (np.repeat(some, size - 1) for some in np.array(deal.owners).T)
    first, shift = rank // size * size, np.tile(np.arange(1, size), len(deal.owners))
    other = first + (rank - first + shift) % size
    draft.send(other, rank, block, add=True, by_rank=True, dst_slot=1)
    src, dst, crossed, turn = np.array([message for message, _ in crossing]).T
    start = np.cumsum([0, *(len(way) for _, way in crossing)])
    draft.send(
        *(src, dst, crossed),
        add=True,
        by_rank=True,
        onto=job.onto,
        src_slot=1,
        dst_slot=2,
        via=Paths(start, np.array([edge for _, way in crossing for edge in way])),
        turn=turn,
    )
    draft.send(rank, other, block, src_slot=2, dst_slot=2)
    return draft.messages()


class _Deal:
    """Who are the agents of each block, and on which ways they exchange what their teams have.

    `owners` are (rank, block), in the order in which they were dealt, `over` is when all have all.
    Ends of a cable may make way for `nearer` ranks of their teams.
    """

    def __init__(self, job: Job, vectors: Ints, nearer: bool) -> None:
        self.job, self.fabric = job, job.fabric
        self.vectors: list[int] = vectors.tolist()
        between = job.sums.on_cables(vectors).tolist()
        self.between: dict[int, int] = dict(zip(self.vectors, between, strict=True))
        self.size, self.count = job.team_ranks, job.ranks // job.team_ranks
        self.loads, self.owners, self.over = Loads(job.fabric), list[tuple[int, int]](), 0
        rank = {chip: rank for rank, chip in enumerate(job.chips)}
        tail, head = self.fabric.tail.tolist(), self.fabric.head.tolist()
        self.trunks = {
            pair: [(rank[tail[trunk[0]]], rank[head[trunk[-1]]], trunk) for trunk in some]
            for pair, some in trunks(job.fabric, job.chips, self.size, shared=True).items()
        }
        self.inside = dict(self._inside())
        self.ways, self.edges, self.star = cache(self._ways), cache(self._edges), cache(self._star)
        self.agents = list(self._agents(nearer))

    def _inside(self) -> Iterator[tuple[tuple[int, int], int]]:
        """The edge between each two ranks of a team, -1 where there is none."""
        pairs = [(one, other) for one in range(self.job.ranks) for other in self._others(one)]
        ends = np.array(self.job.chips)[np.array(pairs)].T
        yield from zip(pairs, self.fabric.edges_between(*ends).tolist(), strict=True)

    def _others(self, rank: int) -> Iterator[int]:
        """The others of its team."""
        first = rank // self.size * self.size
        return (one for one in range(first, first + self.size) if one != rank)

    # --- ways -------------------------------------------------------------------------------
    def _ways(self, rank: int, other: int, detours: bool = False) -> list[Trunk]:
        """The shortest ways to a rank of another team, or of them the `detours`."""
        pair, found = (rank // self.size, other // self.size), []
        for first, last, trunk in self.trunks.get(pair, ()):
            before = (self.inside[rank, first],) if first != rank else ()
            after = (self.inside[last, other],) if last != other else ()
            way = (*before, *trunk, *after)
            if -1 not in way and (len(trunk) > 1 or not detours):
                found.append(way)
        if not found and not detours:
            ends = (np.array([self.job.chips[one]]) for one in (rank, other))
            found = [tuple(paths(self.fabric, *ends).edges.tolist())]
        least = min(map(len, found), default=0)
        return [way for way in found if len(way) <= least + LONGER_EDGES]

    def _edges(self, rank: int, other: int, detours: bool) -> int:
        """Edges of the shortest ways from one to another and back."""
        found = (self.ways(*pair, detours) for pair in ((rank, other), (other, rank)))
        return sum(min(map(len, some), default=FAR_EDGES) for some in found)

    def _agents(self, nearer: bool) -> Iterator[Agents]:
        """Those to choose from: the ends of a trunk, and of other teams who is next to both.

        Ends of a detour have others beside them that are joined by detours, too.
        """
        found: dict[Agents, None] = {}
        for pair, some in self.trunks.items():
            for *ends, trunk in some if pair[0] < pair[1] else ():
                mine, detours = dict(zip(pair, ends, strict=True)), len(trunk) > 1
                for team in range(self.count):
                    if team not in pair:
                        mine[team] = self._nearest(team, mine, detours)
                found[tuple(mine[team] for team in range(self.count))] = None
                for team in pair[::-1] if nearer and not detours else ():
                    mine[team] = self._nearest(team, mine, detours)
                    found[tuple(mine[team] for team in range(self.count))] = None
        alike = (tuple(range(n, self.job.ranks, self.size)) for n in range(self.size))
        return iter(found or alike)

    def _nearest(self, team: int, agents: dict[int, int], detours: bool) -> int:
        """The rank of a team that is nearest to the agents of others, the farthest of them."""
        others = [rank for other, rank in agents.items() if other != team]

        def edges(rank: int) -> tuple[int, int]:
            each = [self.edges(one, rank, detours) for one in others]
            return max(each), sum(each)

        return min(range(team * self.size, (team + 1) * self.size), key=edges)

    # --- deals ------------------------------------------------------------------------------
    def dealt(self) -> Iterator[tuple[Sent, Trunk]]:
        """Messages between agents with their ways, block by block.

        Cables only get busier, so that what agents were over by once is the least they will be.
        """
        stripes, heap, last = self.job.stripes, list[tuple[int, int, int, int]](), 0
        blocks = sorted(
            range(len(self.vectors)), key=lambda one: (-self.vectors[one], one % stripes, one)
        )
        for block in blocks:
            if self.vectors[block] != last:
                last = self.vectors[block]
                heap = [(*self._over(one, last), n, block) for n, one in enumerate(self.agents)]
                heapify(heap)
            while heap[0][-1] != block:
                number = heap[0][2]
                heapreplace(heap, (*self._over(self.agents[number], last), number, block))
            agents = self.agents[heap[0][2]]
            heap[0] = (*heap[0][:-1], -1)
            yield from self._deal(agents, block)

    def _over(self, agents: Agents, vectors: int) -> tuple[int, int]:
        """When all ranks have the sum of a block, at the latest, and in the sum over teams."""
        made = {rank: self._gathered(rank, vectors) for rank in agents}
        ends = []
        for rank in agents:
            others = [one for one in agents if one != rank]
            came = (self._quickest(one, rank, made[one], vectors).over for one in others)
            ends.append(self.loads.there(self.star(rank, False), vectors, max(made[rank], *came)))
        return max(ends), sum(ends)

    def _deal(self, agents: Agents, block: int) -> Iterator[tuple[Sent, Trunk]]:
        """Give a block to some agents."""
        vectors = self.vectors[block]
        made = {rank: self._gathered(rank, vectors, take=True) for rank in agents}
        over = dict(made)
        for shift in range(1, self.count):
            for team, rank in enumerate(agents):
                other = agents[(team + shift) % self.count]
                best = self._quickest(rank, other, made[rank], vectors)
                self.loads.take(best)
                over[other] = max(over[other], best.over)
                yield (rank, other, block, best.turn), self.ways(rank, other)[best.number]
        for rank in agents:
            end = self.loads.there(self.star(rank, False), vectors, over[rank], take=True)
            self.over = max(self.over, end)
            self.owners.append((rank, block))

    def _gathered(self, rank: int, vectors: int, take: bool = False) -> int:
        """When a rank has what all of its team have."""
        return self.loads.there(self.star(rank, True), vectors, 0, take)

    def _star(self, rank: int, inward: bool) -> list[int]:
        """Edges to a rank from the others of its team, or from it to them."""
        pairs = ((other, rank) if inward else (rank, other) for other in self._others(rank))
        return [edge for pair in pairs if (edge := self.inside[pair]) >= 0]

    def _quickest(self, rank: int, other: int, ready: int, vectors: int) -> Crossing:
        ways = [(way, ready) for way in self.ways(rank, other)]
        return self.loads.quickest(ways, self.between[vectors])
