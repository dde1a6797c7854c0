"""All-reduce by teams: sums of neighbours are exchanged, not what each of them has.

A team is a node of the published topologies: inside it all chips are linked, between two of them
there are a few cables. Every rank of a team owns a block, of which it adds up what all teams have.
What crosses between teams is dealt over the cables of the two, and over detours where there are
chips outside of the group. With `gates` a team's sum is made once more where such a cable begins:
the others are as near to that chip as to the owner, which would have to pass the sum on. Each sum
of a team may be rounded before it crosses, also that which its owner adds: so all get the same.
"""

from dataclasses import dataclass, field
from functools import cached_property
from math import ceil

import numpy as np

from topology.collectives.direct import pairs
from topology.collectives.engine import Engine
from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.collectives.trunks import Loads, Through, Trunk, trunks
from topology.errors import BadCollective
from topology.fabric import Ints
from topology.routes import Paths, paths

# (edges of the longest trunks at which sums are made, whether owners add up after those).
AT_OWNERS = (0, True)
AT_GATES = ((1, True), (1, False), (3, False), (3, True))  # none of them is the best for all groups
MOST_RANKS = 64  # of a group for which all deals are tried: one of 128 ranks takes seconds
Trunks = dict[tuple[int, int], list[Trunk]]


@algorithm("teams", "all_reduce", rounds=True)
def teams(job: Job) -> Messages:
    """`direct` inside teams of neighbours, whose owners of a block exchange their sums."""
    return _listed(job, _trunks(job, "teams"), *AT_OWNERS)


@algorithm("gates", "all_reduce", rounds=True)
def gates(job: Job) -> Messages:
    """The same, but for some sums that are made again at gates: by the quickest of some deals.

    Ranks may add up all that their team has, which takes memory for it.
    """
    known = _trunks(job, "gates")
    deals = AT_GATES if job.ranks <= MOST_RANKS else AT_GATES[:1]
    found = [_listed(job, known, *deal) for deal in deals]
    return min(found, key=lambda messages: Engine(messages).end_cycle)


def _trunks(job: Job, name: str) -> Trunks:
    """Those between the teams of a job; raises BadCollective unless there are some."""
    size = job.team_ranks
    if job.ranks % size or job.ranks < 2 * size:
        problem = f"'{name}' needs several whole teams of {size}, not {job.ranks} ranks"
        raise BadCollective(job.operation, problem, "use direct")
    return trunks(job.fabric, job.chips, size)


def _listed(job: Job, known: Trunks, most_edges: int, owners_last: bool) -> Messages:
    """The messages of a deal."""
    size, count = job.team_ranks, job.ranks // job.team_ranks
    draft = Draft(job, size * job.stripes, result_slot=2)
    draft.round_off(1)
    deal = _Deal(job, known, most_edges, draft.block_vectors)
    crossing = deal.dealt(owners_last)
    at, block = (np.repeat(some, size - 1) for some in np.array([*deal.ready]).T)
    shift = np.tile(np.arange(1, size), len(deal.ready))
    first = at // size * size
    draft.send(first + (at - first + shift) % size, at, block, add=True, by_rank=True, dst_slot=1)
    src, dst, block, turn = np.array(crossing).T
    draft.send(
        *(src, dst, block),
        add=True,
        by_rank=True,
        onto=job.onto,
        src_slot=1,
        dst_slot=2,
        via=deal.routes,
        turn=turn,
    )
    here, there, stripe = pairs(size, job.stripes)
    first = np.repeat(np.arange(count) * size, len(here))
    inside, other, stripe = np.tile(here, count), np.tile(there, count), np.tile(stripe, count)
    block = inside * job.stripes + stripe
    draft.send(first + inside, first + other, block, src_slot=2, dst_slot=2)
    return draft.messages()


@dataclass
class _Deal:
    """What crosses between teams, from whom and on which ways.

    `ready` tells from when on a rank has its team's sum of a block: (rank, block), in the order in
    which these are made. They are made at trunks of up to `most_edges`.
    """

    job: Job
    known: Trunks
    most_edges: int
    block_vectors: Ints
    ready: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loads = Loads(self.job.fabric)
        self.vectors: list[int] = self.block_vectors.tolist()
        self.vectors_between: list[int] = self.job.sums.on_cables(self.block_vectors).tolist()
        every = (trunk for some in self.known.values() for trunk in some)
        self._through = Through(self.job.fabric, self.job.chips, every)
        self._ways: list[Trunk] = []
        self._rank = {chip: rank for rank, chip in enumerate(self.job.chips)}
        self._into: dict[int, list[int]] = {}
        self._detours = any(len(trunk) > 1 for some in self.known.values() for trunk in some)

    @property
    def routes(self) -> Paths:
        """The ways of all messages."""
        start = np.cumsum([0, *map(len, self._ways)])
        return Paths(start, np.array([edge for way in self._ways for edge in way]))

    @cached_property
    def _shortest(self) -> dict[tuple[int, int], Trunk]:
        """A shortest way from each rank to those who own the same in other teams."""
        here, there, owner = pairs(self.job.ranks // self.job.team_ranks, self.job.team_ranks)
        src, dst = (team * self.job.team_ranks + owner for team in (here, there))
        chips = np.array(self.job.chips)
        found = paths(self.job.fabric, chips[src], chips[dst])
        ways = np.split(found.edges, found.start[1:-1])
        ends = zip(src.tolist(), dst.tolist(), strict=True)
        return {pair: tuple(way.tolist()) for pair, way in zip(ends, ways, strict=True)}

    def dealt(self, owners_last: bool) -> list[tuple[int, int, int, int]]:
        """Messages (rank, other rank, block, turn), in the order in which owners get to them."""
        job, size = self.job, self.job.team_ranks
        count = job.ranks // size
        blocks = sorted(range(len(self.vectors)), key=lambda block: (block % job.stripes, block))
        owners = [(team * size + b // job.stripes, b) for b in blocks for team in range(count)]
        for rank, block in () if owners_last else owners:
            self._add_up(rank, block)
        here, there, owned = (one.tolist() for one in pairs(count, len(self.vectors)))
        near = {n: self._edges_to_go((here[n], there[n]), owned[n]) for n in range(len(owned))}
        order = sorted(near, key=lambda n: (near[n], owned[n] % job.stripes, n))
        sent = {n: self._send((here[n], there[n]), owned[n]) for n in order}
        if not self.most_edges:  # shift by shift, so that no rank is a hot spot
            order = list(range(len(order)))
        found = [sent[n] for n in order]
        self._ways = [way for _, way in found]
        for rank, block in owners:
            self._add_up(rank, block)
        return [message for message, _ in found]

    def _edges_to_go(self, pair: tuple[int, int], block: int) -> int:
        """Edges of the shortest way between owners, so that who has a cable of its own takes it.

        0 where sums are made at gates, or detours leave everybody a choice.
        """
        if self.most_edges or self._detours:
            return 0
        src, dst = (
            self.job.chips[n * self.job.team_ranks + block // self.job.stripes] for n in pair
        )
        ways = (self._through.way(src, trunk, dst) for trunk in self.known.get(pair, ()))
        return min((len(way) for way in ways if way), default=0)

    def _send(self, pair: tuple[int, int], block: int) -> tuple[tuple[int, int, int, int], Trunk]:
        """The message of a block between two teams, and the way on which it is there first."""
        job, vectors = self.job, self.vectors_between[block]
        src, dst = (team * job.team_ranks + block // job.stripes for team in pair)
        options = []
        for trunk in self.known.get(pair, ()):
            at = self._rank[self._through.first_chip(trunk)]
            for rank in dict.fromkeys((src, at) if len(trunk) <= self.most_edges else (src,)):
                way, ready = self._through.way(job.chips[rank], trunk, job.chips[dst]), None
                if way:
                    ready = self._first_ready(rank, block)
                if ready is not None:
                    options.append((rank, way, ready))
        if not options:
            options = [(src, self._shortest[src, dst], self._first_ready(src, block) or 0)]
        best = self.loads.quickest([option[1:] for option in options], vectors)
        self.loads.take(best)
        rank, way, _ = options[best.number]
        self._add_up(rank, block)
        return (rank, dst, block, best.turn), way

    def _first_ready(self, rank: int, block: int) -> int | None:
        """When a rank has, or could have, the sum of its team; None if it is not near to all."""
        if not self.most_edges:  # owners alone: one row comes behind the other
            row = ceil(self.job.fabric.paces[0]) * self.vectors[block]
            return block % self.job.stripes * row
        if (rank, block) in self.ready:
            return self.ready[rank, block]
        edges = self._edges_into(rank)
        return None if -1 in edges else self.loads.there(edges, self.vectors[block])

    def _add_up(self, rank: int, block: int) -> None:
        """Let a rank add up a block of its team, unless it does."""
        if not self.most_edges:
            self.ready[rank, block] = self._first_ready(rank, block) or 0
        elif (rank, block) not in self.ready:
            edges = [edge for edge in self._edges_into(rank) if edge >= 0]
            self.ready[rank, block] = self.loads.there(edges, self.vectors[block], take=True)

    def _edges_into(self, rank: int) -> list[int]:
        """Edges from all others of its team, -1 where there is none."""
        if rank not in self._into:
            chips, size, edge = self.job.chips, self.job.team_ranks, self._through.edge
            first = rank // size * size
            others = (chips[other] for other in range(first, first + size) if other != rank)
            self._into[rank] = [edge.get((other, chips[rank]), -1) for other in others]
        return self._into[rank]
