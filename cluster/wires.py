"""Routes and ports of the graph, as hops between chips and between members of a group."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from math import ceil

import networkx as nx

from chip.board import Cable
from chip.kernels.transfer import Hop
from cluster.clocking import Clocking
from topology import ports, route


class Wires:
    """Routes and ports of the graph, as hops between chips."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph, self.ports = graph, ports(graph)

    def hops(self, chips: tuple[int, ...]) -> list[tuple[int, int, int, int, int, int]]:
        """(chip, port, next chip, its port, latency, interval) along a path of chips."""
        found = []
        for a, b in pairwise(chips):
            link = self.graph.edges[a, b]["link"]
            interval = ceil(link.cycles_per_vector)
            pair = (self.ports[a][b][0], self.ports[b][a][0])
            found.append((a, pair[0], b, pair[1], link.latency_cycles, interval))
        return found

    def path(self, source: int, target: int) -> tuple[int, ...]:
        return tuple(route(self.graph, source, target))

    def used(self, placement: Sequence[Sequence[int]]) -> set[int]:
        """Chips that hold a part of the model or pass its vectors on."""
        used = {chip for group in placement for chip in group}
        for group in placement:
            for source, target in permutations(group, 2):
                used.update(self.path(source, target))
        for group, after in pairwise(placement):
            for source, target in zip(group, after, strict=True):
                used.update(self.path(source, target))
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
    routes: dict[tuple[int, int], tuple[Hop, ...]]


def group_of(wires: Wires, group: tuple[int, ...]) -> Group:
    """Routes between all ranks of a group."""
    members = list(group)
    routes = {}
    for a, source in enumerate(group):
        for b, target in enumerate(group):
            if a != b:
                path = wires.hops(wires.path(source, target))
                members += [hop[2] for hop in path if hop[2] not in members]
                routes[a, b] = tuple(
                    Hop(members.index(p), port, members.index(q), other, latency, interval)
                    for p, port, q, other, latency, interval in path
                )
    return Group(tuple(members), routes)
