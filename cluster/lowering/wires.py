"""Routes and ports of the graph, as hops between chips and between members of a group."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, permutations
from math import ceil

import networkx as nx
import numpy as np

from chip.board import Cable
from chip.kernels.allreduce import TEAM, Network
from chip.kernels.collective import Items
from chip.kernels.transfer import Hop
from cluster.lowering.clocking import Clocking, Pacing
from cluster.lowering.messages import ROW_VECTORS, items_of
from topology import ports, route
from topology.collectives import collective
from topology.fabric import compiled
from topology.routes import paths

DEALT_ROWS = 8  # of a rank; more are dealt as one


class Wires:
    """Routes and ports of the graph, as hops between chips."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph, self.ports = graph, ports(graph)
        self._hops: dict[tuple[int, int, int], Hop] = {}
        self.groups: dict[tuple[int, ...], Group] = {}
        self.gaps: dict[tuple[tuple[int, ...], tuple[int, ...]], Gap] = {}
        self.kinds: list[Group] = []  # one of each kind, wherever it is
        self.pacings: dict[tuple[tuple[int, ...], ...], Pacing | None] = {}  # by placement

    def hops(self, chips: tuple[int, ...]) -> list[Hop]:
        """The hops along a path of chips; members are chips."""
        return [self.hop(a, b) for a, b in pairwise(chips)]

    def hop(self, a: int, b: int, cable: int = 0) -> Hop:
        """The hop over one of the cables of a link; members are chips."""
        if (a, b, cable) not in self._hops:
            link = self.graph.edges[a, b]["link"]
            pair = (self.ports[a][b][cable], self.ports[b][a][cable])
            interval = ceil(link.cycles_per_vector)
            self._hops[a, b, cable] = Hop(a, pair[0], b, pair[1], link.latency_cycles, interval)
        return self._hops[a, b, cable]

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

    def used(self, placement: Sequence[tuple[int, ...]]) -> set[int]:
        """Chips that hold a part of the model or pass its vectors on."""
        used = {chip for group in placement for chip in group}
        for group in placement:
            used.update(group_of(self, group).members)
        for group, after in pairwise(placement):
            for path in self.all_paths(list(zip(group, after, strict=True))):
                used.update(path)
        return used

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


@dataclass(frozen=True)
class Group:
    """Chips that work together: the group's ranks, then those that only pass vectors on.

    `routes` lead from each rank to each other, as hops between numbers in `members`.
    """

    members: tuple[int, ...]
    routes: Network


def group_of(wires: Wires, group: tuple[int, ...]) -> Group:
    """Routes between all ranks of a group."""
    if group not in wires.groups:
        found = (_moved(wires, known, group) for known in wires.kinds)
        fresh = next((one for one in found if one), None) or _group(wires, group)
        if all(fresh.routes is not known.routes for known in wires.kinds):
            wires.kinds.append(fresh)
        wires.groups[group] = fresh
    return wires.groups[group]


def _moved(wires: Wires, known: Group, group: tuple[int, ...]) -> Group | None:
    """The routes of a group elsewhere, if its chips are cabled alike; None if they are not.

    Of equally short routes each group could take others; groups that take the same ones share
    their schedules.
    """
    by = group[0] - known.members[0]
    members = tuple(chip + by for chip in known.members)
    if members[: len(group)] != group or len(known.routes) != len(group) * (len(group) - 1):
        return None
    links = {(hop.member, hop.to_member) for hop in known.routes.cables}
    if not all(wires.graph.has_edge(members[a], members[b]) for a, b in links):
        return None
    same = _cables(wires, members, links) == known.routes.cables
    return Group(members, known.routes) if same else None


def _group(wires: Wires, group: tuple[int, ...]) -> Group:
    members = list(group)
    number = {chip: rank for rank, chip in enumerate(group)}
    pairs = list(permutations(group, 2))
    routes = {}
    for (source, target), path in zip(pairs, wires.all_paths(pairs), strict=True):
        hops = []
        for a, port, b, other, latency, interval in wires.hops(path):
            for chip in (a, b):
                if chip not in number:
                    number[chip] = len(members)
                    members.append(chip)
            hops.append(Hop(number[a], port, number[b], other, latency, interval))
        routes[number[source], number[target]] = tuple(hops)
    links = {(hop.member, hop.to_member) for hops in routes.values() for hop in hops}
    cables = _cables(wires, members, links)
    return Group(tuple(members), Network(routes, cables, _all_reduces(wires, group, number)))


def _cables(
    wires: Wires, members: Sequence[int], links: Iterable[tuple[int, int]]
) -> frozenset[Hop]:
    """All cables of links between members, parallel ones too."""
    return frozenset(
        wires.hop(members[a], members[b], cable)._replace(member=a, to_member=b)
        for a, b in links
        for cable in range(len(wires.ports[members[a]][members[b]]))
    )


def _all_reduces(
    wires: Wires, group: tuple[int, ...], number: Mapping[int, int]
) -> Callable[[str, int, bool], Items]:
    """What lists the messages of an all-reduce of fp32 rows in a group, by its members' numbers."""

    def hop(a: int, b: int, cable: int) -> Hop:
        return wires.hop(a, b, cable)._replace(member=number[a], to_member=number[b])

    @cache
    def items(algorithm: str, rows: int, residual: bool) -> Items:
        num_bytes = rows * ROW_VECTORS * compiled(wires.graph).payload_bytes
        timed = collective(
            *("all_reduce", wires.graph, num_bytes, algorithm, group),
            chunks=_chunks(algorithm, rows),
            unit_vectors=ROW_VECTORS,
            residual=residual,
            team_ranks=TEAM,
        )
        return items_of(timed, hop, number)

    return items


def _chunks(algorithm: str, rows: int) -> int:
    """Blocks that each rank adds up: few rows are dealt singly over the cables between teams."""
    each = -(-rows // TEAM)
    return each if algorithm == "teams" and each <= DEALT_ROWS else 1


@dataclass(frozen=True)
class Gap:
    """Between two stages: the chips involved, and the paths as hops between their numbers."""

    chips: tuple[int, ...]
    paths: tuple[tuple[Hop, ...], ...]


def gap_of(wires: Wires, group: tuple[int, ...], after: tuple[int, ...]) -> Gap:
    """The paths from each rank to the same rank of the next stage; remembered by `wires`."""
    if (group, after) not in wires.gaps:
        number: dict[int, int] = {}
        paths = []
        for path in wires.all_paths(list(zip(group, after, strict=True))):
            hops = wires.hops(path)
            for hop in hops:
                number.setdefault(hop.member, len(number))
                number.setdefault(hop.to_member, len(number))
            paths.append(
                tuple(
                    hop._replace(member=number[hop.member], to_member=number[hop.to_member])
                    for hop in hops
                )
            )
        wires.gaps[group, after] = Gap(tuple(number), tuple(paths))
    return wires.gaps[group, after]
