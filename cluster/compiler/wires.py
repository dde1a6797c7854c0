"""Routes and ports of the graph, as hops between chips and between members of a group."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise, permutations
from math import ceil

import networkx as nx
import numpy as np

from chip.board import Cable
from chip.kernels.transfer import Hop
from cluster.compiler.clocking import Clocking, Pacing
from topology import ports, route
from topology.fabric import compiled
from topology.routes import paths

Path = tuple[Hop, ...]


class Routes(dict[tuple[int, int], Path]):
    """The way from each member of a group to each other; not changed once it is made.

    Equal routes are one key: a hash of them is taken once.
    """

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all hops."""
        return sha256(repr(sorted(self.items())).encode()).hexdigest()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.digest)


@dataclass(frozen=True)
class Group:
    """Chips that work together: the group's ranks, then those that only pass vectors on.

    `routes` lead from each rank to each other, as hops between numbers in `members`.
    """

    members: tuple[int, ...]
    routes: Routes

    @cached_property
    def cables(self) -> frozenset[Hop]:
        """All hops of all routes."""
        return frozenset(hop for hops in self.routes.values() for hop in hops)


class Paths(tuple[Path, ...]):
    """Paths of x from each rank of a stage to the next; a hash of them is taken once."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class StageLink:
    """Between two stages: the chips involved, and the paths as hops between their numbers."""

    chips: tuple[int, ...]
    paths: Paths


@dataclass(frozen=True)
class Pipeline:
    """A placed pipeline: the chips of its stages, with the routes in them and between them."""

    groups: tuple[Group, ...]
    links: tuple[StageLink, ...]

    @cached_property
    def used(self) -> frozenset[int]:
        """Chips that hold a part of the model or pass its vectors on."""
        members = {chip for group in self.groups for chip in group.members}
        return frozenset(members.union(*(link.chips for link in self.links)))


class Wires:
    """Routes and ports of a graph; what is found is kept."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph, self.ports = graph, ports(graph)
        self.pacings: dict[frozenset[int], Pacing | None] = {}  # by the chips in use
        self._hops: dict[tuple[int, int], Hop] = {}
        self._groups: dict[tuple[int, ...], Group] = {}
        self._kinds: list[Group] = []  # one of each kind, wherever it is
        self._links: dict[tuple[tuple[int, ...], tuple[int, ...]], StageLink] = {}
        self._paths: dict[Paths, Paths] = {}

    def hops(self, chips: tuple[int, ...]) -> list[Hop]:
        """The hops along a path of chips; members are chips."""
        return [self.hop(a, b) for a, b in pairwise(chips)]

    def hop(self, a: int, b: int) -> Hop:
        """The hop over a link; members are chips."""
        if (a, b) not in self._hops:
            link = self.graph.edges[a, b]["link"]
            pair = (self.ports[a][b][0], self.ports[b][a][0])
            interval = ceil(link.cycles_per_vector)
            self._hops[a, b] = Hop(a, pair[0], b, pair[1], link.latency_cycles, interval)
        return self._hops[a, b]

    def path(self, source: int, target: int) -> tuple[int, ...]:
        return tuple(route(self.graph, source, target))

    def all_paths(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
        """The routes of many pairs, as `path` gives them one by one."""
        if not pairs:
            return []
        fabric = compiled(self.graph)
        ends = np.array(pairs)
        found = paths(fabric, ends[:, 0], ends[:, 1])
        heads = np.split(fabric.head[found.edges], found.start[1:-1])
        sources = (source for source, _ in pairs)
        return [(source, *map(int, after)) for source, after in zip(sources, heads, strict=True)]

    def pipeline(self, placement: Sequence[tuple[int, ...]]) -> Pipeline:
        """Members, routes and paths of all stages."""
        groups = tuple(self.group(chips) for chips in placement)
        return Pipeline(groups, tuple(self.link(a, b) for a, b in pairwise(placement)))

    def group(self, chips: tuple[int, ...]) -> Group:
        """Routes between all ranks of a group."""
        if chips not in self._groups:
            moved = (self._moved(known, chips) for known in self._kinds)
            found = next((one for one in moved if one), None)
            if found is None:
                found = self._new_group(chips)
                self._kinds.append(found)
            self._groups[chips] = found
        return self._groups[chips]

    def link(self, chips: tuple[int, ...], after: tuple[int, ...]) -> StageLink:
        """The paths from each rank to the same rank of the next stage."""
        if (chips, after) not in self._links:
            number: dict[int, int] = {}
            every = []
            for path in self.all_paths(list(zip(chips, after, strict=True))):
                hops = []
                for a, port, b, other, *rest in self.hops(path):
                    mine, theirs = (number.setdefault(chip, len(number)) for chip in (a, b))
                    hops.append(Hop(mine, port, theirs, other, *rest))
                every.append(tuple(hops))
            alike = Paths(every)
            alike = self._paths.setdefault(alike, alike)
            self._links[chips, after] = StageLink(tuple(number), alike)
        return self._links[chips, after]

    def cables(self, clocks: Clocking | None = None) -> tuple[Cable, ...]:
        """Every cable of the graph; `clocks` know how long a notice takes."""
        notice = clocks.plan.link_latency_cycles if clocks else Cable.hac_latency_cycles
        found = []
        for a, b, data in self.graph.edges(data=True):
            link = data["link"]
            for mine, theirs in zip(self.ports[a][b], self.ports[b][a], strict=True):
                rate = link.cycles_per_vector
                ends = (a, mine, b, theirs)
                found.append(Cable(*ends, link.latency_cycles, rate, notice))
        return tuple(found)

    def _moved(self, known: Group, chips: tuple[int, ...]) -> Group | None:
        """The routes of a group elsewhere, if its chips are cabled alike; None if they are not.

        Of equally short routes each group could take others; groups that take the same ones share
        their schedules.
        """
        by = chips[0] - known.members[0]
        members = tuple(chip + by for chip in known.members)
        if members[: len(chips)] != chips or len(known.routes) != len(chips) * (len(chips) - 1):
            return None
        for hop in known.cables:
            a, b = members[hop.member], members[hop.to_member]
            if not self.graph.has_edge(a, b):
                return None
            if self.hop(a, b) != hop._replace(member=a, to_member=b):
                return None
        return Group(members, known.routes)

    def _new_group(self, chips: tuple[int, ...]) -> Group:
        members = list(chips)
        number = {chip: rank for rank, chip in enumerate(chips)}
        pairs = list(permutations(chips, 2))
        routes = Routes()
        for (source, target), path in zip(pairs, self.all_paths(pairs), strict=True):
            hops = []
            for a, port, b, other, *rest in self.hops(path):
                for chip in (a, b):
                    if chip not in number:
                        number[chip] = len(members)
                        members.append(chip)
                hops.append(Hop(number[a], port, number[b], other, *rest))
            routes[number[source], number[target]] = tuple(hops)
        return Group(tuple(members), routes)
