"""Routes inside a group, and by what groups are known that are cabled alike."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations

import numpy as np

from chip.kernels.allreduce import Reach
from chip.kernels.transfer import Hop
from cluster.compiler.wiring import Group, Path
from topology.routes import Paths as Ways

Ends = tuple[tuple[int, int, int, int], ...]  # of cables: both ports, latency and interval


class GroupRoutes(Mapping[tuple[int, int], Path]):
    """Routes from each rank of a group to each other, written out once somebody asks for one."""

    def __init__(self, ranks: int, ways: Ways, hops: Mapping[int, Hop]) -> None:
        self.ranks, self.ways, self.hops = ranks, ways, hops  # by edges of the graph

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


def reach_of(routes: GroupRoutes, cables: Iterable[Hop]) -> Reach:
    """How far ranks are apart, and over how many cables they are reached."""
    latencies = {edge: hop.latency_cycles for edge, hop in routes.hops.items()}
    each = np.array([latencies[edge] for edge in routes.ways.edges.tolist()])
    ways = np.add.reduceat(each, routes.ways.start[:-1])
    farthest = max(zip(ways.tolist(), np.diff(routes.ways.start).tolist(), strict=True))
    arriving = Counter(hop.to_member for hop in cables)
    fewest = min(arriving[rank] for rank in range(routes.ranks))
    interval = min(hop.interval_cycles for hop in cables)
    return Reach(fewest, interval, int(ways.min()), *farthest)


@dataclass(frozen=True, eq=False)
class Kind:
    """A group that others are cabled like: who are neighbours, and a `tree` over all its members.

    Of member 0 on, each step leads from a member that is known over a port to one that is not.
    """

    group: Group
    near: tuple[tuple[int, int, Ends], ...]
    tree: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, group: Group) -> "Kind":
        """The kind of a group."""
        after: dict[int, list[Hop]] = {}
        near: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
        for hop in sorted(group.routes.cables):
            after.setdefault(hop.member, []).append(hop)
            near.setdefault((hop.member, hop.to_member), []).append((hop.port, *hop[3:]))
        reached, tree = [0], []
        for member in reached:
            for hop in after.get(member, ()):
                if hop.to_member not in reached:
                    reached.append(hop.to_member)
                    tree.append((member, hop.port, hop.to_member))
        return cls(group, tuple((*pair, tuple(near[pair])) for pair in near), tuple(tree))
