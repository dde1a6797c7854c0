"""Routes inside a group, and by what groups are known that are cabled alike."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, permutations

import numpy as np

from chip.kernels.allreduce import Reach
from chip.kernels.transfer import Hop
from cluster.compiler.wiring import Group, Path
from topology.fabric import Fabric, Ints
from topology.routes import Paths as Ways


class GroupRoutes(Mapping[tuple[int, int], Path]):
    """Routes from each rank of a group to each other, written out once somebody asks for one."""

    def __init__(self, ranks: int, ways: Ways, hops: Mapping[int, Hop]) -> None:
        self.ranks, self.ways, self.hops = ranks, ways, hops  # by edges of the graph

    @property
    def longest(self) -> int:
        """Hops of the longest route."""
        return int(self.ways.hops.max(initial=0))

    @cached_property
    def _found(self) -> dict[tuple[int, int], Path]:
        hops = [self.hops[edge] for edge in self.ways.edges.tolist()]
        cuts = pairwise(self.ways.start.tolist())
        pairs = permutations(range(self.ranks), 2)
        return {pair: tuple(hops[a:b]) for pair, (a, b) in zip(pairs, cuts, strict=True)}

    def __getitem__(self, pair: tuple[int, int]) -> Path:
        return self._found[pair]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return permutations(range(self.ranks), 2)

    def __len__(self) -> int:
        return self.ranks * (self.ranks - 1)


def key_of(ways: Ways, rows: Ints, taken: Ints) -> bytes:
    """Equal for equal cables `rows` [cables, 6] and routes, of the hops that are `taken` of them."""
    order = np.lexsort(rows.T[::-1])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return b"".join((rows[order].tobytes(), ways.start.tobytes(), place[taken].tobytes()))


def reach_of(routes: GroupRoutes, cables: Iterable[Hop]) -> Reach:
    """How far ranks are apart, and over how many cables they are reached."""
    latency = np.zeros(max(routes.hops) + 1, np.int64)
    latency[[*routes.hops]] = [hop.latency_cycles for hop in routes.hops.values()]
    each = latency[routes.ways.edges]
    ways = np.add.reduceat(each, routes.ways.start[:-1])
    arriving = Counter(hop.to_member for hop in cables)
    fewest = min(arriving[rank] for rank in range(routes.ranks))
    interval = min(hop.interval_cycles for hop in cables)
    return Reach(fewest, interval, int(ways.min()), int(ways.max()))


@dataclass(frozen=True, eq=False)
class Kind:
    """A group that others are cabled like: who are neighbours, and a `tree` over all its members.

    `near` [pairs, 2] are joined by cables that have numbers, `ends`. From member 0 on, each step of
    the tree leads from a member that is known over a port to one that is not. What was found of
    other chips is kept, `elsewhere`.
    """

    group: Group
    near: Ints
    ends: Ints
    tree: tuple[tuple[int, int, int], ...]
    elsewhere: dict[tuple[int, ...], Group | None] = field(default_factory=dict)


def tree_over(cables: Sequence[Hop]) -> tuple[tuple[int, int, int], ...]:
    """A tree over the members that cables join, from member 0 on, in their order."""
    after: dict[int, list[Hop]] = {}
    for hop in cables:
        after.setdefault(hop.member, []).append(hop)
    reached, line, tree = {0}, [0], []
    for member in line:
        for hop in after.get(member, ()):
            if hop.to_member not in reached:
                reached.add(hop.to_member)
                line.append(hop.to_member)
                tree.append((member, hop.port, hop.to_member))
    return tuple(tree)


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
