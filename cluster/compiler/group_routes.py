"""Routes inside a group, and by what groups are known that are cabled alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, permutations

import numpy as np

from chip.kernels.allreduce import Reach
from chip.kernels.transfer import Hop
from cluster.compiler.wiring import Group, Path, digest_of
from topology.fabric import Fabric, Ints


class GroupRoutes(Mapping[tuple[int, int], Path]):
    """Routes from each rank of a group to each other, written out once somebody asks for one.

    They are rows `taken` of `rows` [cables, 6]: hops over all cables of the links among members.
    """

    def __init__(self, ranks: int, start: Ints, taken: Ints, rows: Ints) -> None:
        order = np.lexsort(rows.T[::-1])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self.ranks, self.start, self.taken, self.rows = ranks, start, place[taken], rows[order]

    @cached_property
    def digest(self) -> str:
        """Equal for equal routes and cables."""
        return digest_of(self.rows, self.start, self.taken)

    @property
    def longest(self) -> int:
        """Hops of the longest route."""
        return int(np.diff(self.start).max(initial=0))

    @cached_property
    def hops(self) -> list[Hop]:
        """Hops over all cables, in their order."""
        return list(map(Hop._make, self.rows.tolist()))

    @cached_property
    def _found(self) -> dict[tuple[int, int], Path]:
        hops = [self.hops[at] for at in self.taken.tolist()]
        cuts = pairwise(self.start.tolist())
        pairs = permutations(range(self.ranks), 2)
        return {pair: tuple(hops[a:b]) for pair, (a, b) in zip(pairs, cuts, strict=True)}

    def __getitem__(self, pair: tuple[int, int]) -> Path:
        return self._found[pair]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return permutations(range(self.ranks), 2)

    def __len__(self) -> int:
        return self.ranks * (self.ranks - 1)

    def written(self) -> tuple[frozenset[Hop], Reach]:
        """All cables; how far ranks are apart, and over how many cables they are reached."""
        latency, interval = self.rows[:, 4:].T
        ways = np.add.reduceat(latency[self.taken], self.start[:-1])
        farthest = max(zip(ways.tolist(), np.diff(self.start).tolist(), strict=True))
        fewest = int(np.bincount(self.rows[:, 2], minlength=self.ranks)[: self.ranks].min())
        reach = Reach(fewest, int(interval.min()), int(ways.min()), *farthest)
        return frozenset(self.hops), reach


@dataclass(frozen=True, eq=False)
class Kind:
    """A group that others are cabled like; what was found of other chips is kept, `elsewhere`.

    Pairs of `near` members [pairs, 2] are joined by cables that have numbers, `ends`.
    """

    group: Group
    routes: GroupRoutes
    near: Ints
    ends: Ints
    elsewhere: dict[tuple[int, ...], Group | None] = field(default_factory=dict)

    @cached_property
    def tree(self) -> list[tuple[int, int, int]]:
        """From member 0 on, each step leads from a member over a port to one that is new."""
        after: dict[int, list[tuple[int, int]]] = {}
        for member, port, other in self.routes.rows[:, :3].tolist():
            after.setdefault(member, []).append((port, other))
        reached, line, tree = {0}, [0], []
        for member in line:
            for port, other in after.get(member, ()):
                if other not in reached:
                    reached.add(other)
                    line.append(other)
                    tree.append((member, port, other))
        return tree


def passed(fabric: Fabric, chips: Sequence[int], team_ranks: int) -> Ints:
    """Chips outside of a group that ways of two or three hops between its chips may pass.

    Only such as lead to another team, where the chips of each are neighbours of each other.
    """
    group = np.array(chips)
    team = np.full(fabric.chips, -1)
    team[group] = np.arange(len(chips)) // team_ranks
    inside = (team[fabric.tail] >= 0) & (team[fabric.tail] == team[fabric.head])
    sizes = np.bincount(team[group])
    if np.count_nonzero(inside) < int((sizes * (sizes - 1)).sum()):
        team[group] = np.arange(len(chips))
    # The lowest and the highest team that a chip is next to: another way needs two of them.
    entering = (team[fabric.tail] >= 0) & (team[fabric.head] < 0)
    low, high = np.full(fabric.chips, len(chips)), np.full(fabric.chips, -1)
    heads, teams = fabric.head[entering], team[fabric.tail[entering]]
    np.minimum.at(low, heads, teams)
    np.maximum.at(high, heads, teams)
    beside = (high[fabric.tail] >= 0) & (high[fabric.head] >= 0)
    a, b = fabric.tail[beside], fabric.head[beside]
    apart = np.minimum(low[a], low[b]) < np.maximum(high[a], high[b])
    return np.unique(np.concatenate((np.flatnonzero((high >= 0) & (low < high)), a[apart])))
