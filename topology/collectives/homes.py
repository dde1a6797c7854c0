"""All-reduce by teams where each block has a home team, which adds up the sums of all others.

Between two teams cross the blocks at home in either, once as a sum of a team and once as the sum
of all: two crossings, where `teams` has one that takes all blocks. Teams add up a block where the
cable to its home begins, and hand round its sum from there. Sums run and are rounded as in `teams`.
"""

from collections import Counter

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.collectives.trunks import Through, Trunk, trunks
from topology.errors import BadCollective
from topology.fabric import Ints
from topology.routes import Paths, paths


@algorithm("homes", "all_reduce", rounds=True)
def homes(job: Job) -> Messages:
    """Reduced in each team, at home, and back the same ways; raises BadCollective."""
    size = job.team_ranks
    count = job.ranks // size
    if job.ranks % size or count < 2:
        problem = f"'homes' needs several whole teams of {size}, not {job.ranks} ranks"
        raise BadCollective(job.operation, problem, "use direct")
    known = trunks(job.fabric, job.chips, size, direct=True)
    draft = Draft(job, size * job.stripes, result_slot=2)
    draft.round_off(1)
    deal = _Deal(job, known, draft.blocks)
    at, block = (one.ravel() for one in np.broadcast_arrays(deal.at, np.arange(draft.blocks)))
    each, blocks = (np.repeat(one, size - 1) for one in (at, block))
    inside = each // size * size
    others = inside + (each - inside + np.tile(np.arange(1, size), len(at))) % size
    draft.send(others, each, blocks, add=True, by_rank=True, dst_slot=1)
    home = deal.owner[block]
    away = at // size != home // size
    src, dst, crossing = at[away], home[away], block[away]
    draft.send(src, dst, crossing, add=True, by_rank=True, onto=job.onto, src_slot=1, dst_slot=2,
               via=deal.ways(src, dst, crossing))  # fmt: skip
    draft.send(dst, src, crossing, src_slot=2, dst_slot=2, via=deal.ways(dst, src, crossing))
    draft.send(each, others, blocks, src_slot=2, dst_slot=2)
    return draft.messages()


class _Deal:
    """`owner` [block] has the sum of all; `at` [team, block] is who has that of a team."""

    def __init__(self, job: Job, known: dict[tuple[int, int], list[Trunk]], blocks: int) -> None:
        self.job, self.known, size = job, known, job.team_ranks
        count = job.ranks // size
        self._through = Through(job.fabric, job.chips, (t for some in known.values() for t in some))
        rank = {chip: number for number, chip in enumerate(job.chips)}
        self.at: Ints = np.zeros((count, blocks), np.int64)
        owners: list[int] = []
        for block in range(blocks):
            home, turn = block % count, block // count
            for team in range(count):
                trunk = self._trunk(team, home, turn)
                first = self._through.first_chip(trunk) if trunk else None
                self.at[team, block] = team * size + block % size if first is None else rank[first]
        for block in range(blocks):  # where the fewest others are added up
            home = block % count
            taken = Counter(
                int(other) for n, other in enumerate(self.at[home]) if n % count != home
            )
            taken.update(owner for owner in owners for _ in range(count))
            first = home * size
            owners.append(min(range(first, first + size), key=lambda one: (taken[one], one)))
            self.at[home, block] = owners[-1]
        self.owner: Ints = np.array(owners)

    def _trunk(self, team: int, other: int, turn: int) -> Trunk:
        """A cable from a team to another, or none."""
        some = self.known.get((team, other), [()])
        return some[turn % len(some)]

    def ways(self, src: Ints, dst: Ints, block: Ints) -> Paths:
        """Over the cables that begin or end where teams add up; else the shortest."""
        size, chips, count = self.job.team_ranks, np.array(self.job.chips), len(self.at)
        shortest = paths(self.job.fabric, chips[src], chips[dst])
        found = []
        others = np.split(shortest.edges, shortest.start[1:-1])
        each = zip(src.tolist(), dst.tolist(), (block // count).tolist(), others, strict=True)
        for a, b, turn, other in each:
            trunk = self._trunk(a // size, b // size, turn)
            way = self._through.way(int(chips[a]), trunk, int(chips[b])) if trunk else ()
            found.append(way or tuple(other.tolist()))
        start = np.cumsum([0, *map(len, found)])
        return Paths(start, np.array([edge for way in found for edge in way]))
