"""Ways between teams of chips, past others as well, and how busy their cables are."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import ceil
from typing import NamedTuple

import numpy as np

from topology.fabric import Fabric, Ints
from topology.firstfit import Cable, first_start

Trunk = tuple[int, ...]  # edges from a chip of a team to one of another
MOST_TRUNKS, MOST_SHARED = 8, 16  # between two teams, and if they share cables
# What a chip on the way adds to a latency at most, in programs: vectors go from edge to edge, or to
# the VXM and back, in place of the endpoints that a profile's latency holds.
PASSED_CYCLES = 45


def trunks(
    fabric: Fabric,
    chips: Sequence[int],
    team_ranks: int,
    shared: bool = False,
    direct: bool = False,
) -> dict[tuple[int, int], list[Trunk]]:
    """Ways from each team of a group to each other: cables that join them, and detours.

    Those lead past chips outside of the group, of which there are only such as may be used; unless
    they may be `shared` no two have a cable in common. Of as short ones the nearest behind the
    group's first chip come first. Where all teams are joined, chips near all of them will do: equal
    groups have those in common. Or only those that are `direct`: no detours.
    """
    team = np.full(fabric.chips, -1)
    team[list(chips)] = np.arange(len(chips)) // team_ranks
    here, there = team[fabric.tail], team[fabric.head]
    found: dict[tuple[int, int], list[Trunk]] = {}
    for edge in np.flatnonzero((here >= 0) & (there >= 0) & (here != there)).tolist():
        found.setdefault((int(here[edge]), int(there[edge])), []).append((edge,))
    if direct:
        return found
    count = len(chips) // team_ranks
    least = count - 1 if len(found) == count * (count - 1) else 1  # teams that a detour must reach
    detours = _detours(fabric, team, least, chips[0], MOST_SHARED if shared else None)
    if not shared:
        _share_out(detours, found)
        return found
    for pair, some in detours.items():
        known = found.setdefault(pair, [])
        known += some[: max(0, MOST_SHARED - len(known))]
    return found


def _detours(
    fabric: Fabric, team: Ints, least: int, origin: int, most: int | None
) -> dict[tuple[int, int], list[Trunk]]:
    """Ways of two and three edges past chips of no team, so many between two teams, nearest first.

    Of the first chips on them only those from which so many teams are reached at `least`.
    """
    here, there = team[fabric.tail], team[fabric.head]
    two = _further(fabric, np.flatnonzero((here >= 0) & (there < 0))[:, None])
    three = _further(fabric, two[there[two[:, -1]] < 0])
    none = np.full((len(two), 1), -1)
    ways = np.concatenate((np.concatenate((two, none), axis=1), three))
    last = np.where(ways[:, 2] < 0, ways[:, 1], ways[:, 2])
    source, target = here[ways[:, 0]], there[last]
    kept = (target >= 0) & (source != target)
    reached = np.unique(np.stack((ways[kept, 0], target[kept])), axis=1)
    kept &= (np.bincount(reached[0], minlength=len(here)) >= least)[ways[:, 0]]
    ways, source, target = ways[kept], source[kept], target[kept]
    past = np.where(ways < 0, -1, (fabric.head[ways] - origin) % fabric.chips)
    order = np.lexsort(
        (ways[:, 0], past[:, 2], past[:, 1], past[:, 0], ways[:, 2] >= 0, target, source)
    )
    ways, source, target = ways[order], source[order], target[order]
    begins = np.flatnonzero(np.diff(source, prepend=-1) | np.diff(target, prepend=-1))
    found = []
    for begin, end in pairwise([*begins.tolist(), len(ways)]):
        some = ways[begin:end][:most].tolist()
        pair = int(source[begin]), int(target[begin])
        trunks = [tuple(edge for edge in way if edge >= 0) for way in some]
        found.append((int(ways[begin:end, 0].min()), pair, trunks))
    return {pair: trunks for _, pair, trunks in sorted(found)}


def _further(fabric: Fabric, ways: Ints) -> Ints:
    """Ways [ways, edges], each over every edge on from where it ends."""
    at = fabric.head[ways[:, -1]]
    counts = fabric.row[at + 1] - fabric.row[at]
    more = np.repeat(fabric.row[at] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return np.concatenate((np.repeat(ways, counts, axis=0), more[:, None]), axis=1)


def _share_out(
    detours: dict[tuple[int, int], list[Trunk]], found: dict[tuple[int, int], list[Trunk]]
) -> None:
    """Add detours to what is found between each two teams, one for those with the fewest first."""
    taken = set[int]()
    left = {pair: iter(some) for pair, some in detours.items()}
    while left:
        pair = min(left, key=lambda one: (len(found.get(one, ())), one))
        way = next((way for way in left[pair] if taken.isdisjoint(way)), None)
        if way is not None:
            taken.update(way)
            found.setdefault(pair, []).append(way)
        if way is None or len(found[pair]) >= MOST_TRUNKS:
            del left[pair]


class Through:
    """Ways past trunks between chips near them: numbers of edges are looked up by their ends."""

    def __init__(self, fabric: Fabric, chips: Sequence[int], known: Iterable[Trunk]) -> None:
        edges = np.array([edge for trunk in known for edge in trunk], np.int64)
        ends = np.concatenate([np.array(chips), fabric.tail[edges], fabric.head[edges]])
        among = np.flatnonzero(np.isin(fabric.tail, ends) & np.isin(fabric.head, ends))
        self._at: dict[int, tuple[int, int]] = {
            edge: (tail, head)
            for edge, tail, head in zip(
                among.tolist(),
                fabric.tail[among].tolist(),
                fabric.head[among].tolist(),
                strict=True,
            )
        }
        self.edge = {ends: edge for edge, ends in self._at.items()}

    def first_chip(self, trunk: Trunk) -> int:
        """Where a trunk begins."""
        return self._at[trunk[0]][0]

    def way(self, src: int, trunk: Trunk, dst: int) -> Trunk:
        """Edges of src -> trunk -> dst, or none if a chip has no link to the trunk."""
        first, last = self._at[trunk[0]][0], self._at[trunk[-1]][1]
        before = () if src == first else (self.edge.get((src, first), -1),)
        after = () if last == dst else (self.edge.get((last, dst), -1),)
        return () if -1 in before or -1 in after else (*before, *trunk, *after)


class Loads:
    """When cables are free, and over which of them vectors are there first."""

    def __init__(self, fabric: Fabric) -> None:
        self.latency, self.cables = fabric.latency_cycles.tolist(), fabric.cables.tolist()
        paces = [ceil(pace) for pace in fabric.paces]
        self.pace = [paces[pace] for pace in fabric.pace.tolist()]
        self.taken: dict[tuple[int, int], Cable] = defaultdict(lambda: Cable(0))
        self._ways: dict[Trunk, tuple[list[tuple[int, int, int]], int]] = {}

    def there(self, edges: Sequence[int], vectors: int, begin: int = 0, take: bool = False) -> int:
        """When so many vectors, there from `begin` on, can have come over each of some edges.

        They may `take` the cables.
        """
        last = begin
        for edge in edges:
            cable, need = self.taken[edge, 0], vectors * self.pace[edge]
            start = first_start([(cable, 0, need)], begin)
            last = max(last, start + need + self.latency[edge])
            if take:
                cable.take(start, need)
        return last

    def quickest(self, options: Sequence[tuple[Trunk, int]], vectors: int) -> "Crossing":
        """The way on which so many vectors are there first, of some, each from a cycle on."""
        best: Crossing | None = None
        for number, (way, ready) in enumerate(options):
            if way not in self._ways:
                self._ways[way] = self._way(way)
            hops, cycles = self._ways[way]
            cycles += vectors * hops[-1][2]
            if best and ready + cycles >= best.over:  # it is no quicker even where all is free
                continue
            for turn in range(max(self.cables[edge] for edge in way)):
                some = [
                    (self.taken[edge, turn % self.cables[edge]], offset, vectors * pace)
                    for edge, offset, pace in hops
                ]
                start = first_start(some, ready)
                if not best or start + cycles < best.over:
                    best = Crossing(start + cycles, number, turn, start, some)
        assert best, "there is a way"
        return best

    def _way(self, way: Trunk) -> tuple[list[tuple[int, int, int]], int]:
        """Edges of a way with the cycles to them and those of a vector; cycles of it all."""
        ends = [*accumulate((self.latency[edge] for edge in way), initial=0)]
        hops = [(edge, end, self.pace[edge]) for edge, end in zip(way, ends, strict=False)]
        return hops, ends[-1] + PASSED_CYCLES * len(way)

    def take(self, crossing: "Crossing") -> None:
        """Let a crossing have its cables."""
        for cable, offset, need in crossing.hops:
            cable.take(crossing.start + offset, need)


class Crossing(NamedTuple):
    """Vectors that are `over` by a cycle on an option of some, by a turn of parallel cables."""

    over: int
    number: int
    turn: int
    start: int
    hops: list[tuple[Cable, int, int]]
