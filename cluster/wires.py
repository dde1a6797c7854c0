"""Routes and ports of the graph as hops between chips, and the exchange of partial sums."""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import networkx as nx

from chip.board import Cable
from chip.kernels.decoder import Stage
from chip.kernels.transfer import Hop, transfer
from chip.schedule import Rows, Schedule
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

    def cables(self) -> tuple[Cable, ...]:
        """Every cable of the graph."""
        found = []
        for a, b, data in self.graph.edges(data=True):
            link = data["link"]
            for mine, theirs in zip(self.ports[a][b], self.ports[b][a], strict=True):
                rate = link.cycles_per_vector
                found.append(Cable(a, mine, b, theirs, link.latency_cycles, rate))
        return tuple(found)


@dataclass
class Exchange:
    """All members' sums to all members, by direct transfers over the routes of one group."""

    members: list[int]  # chips: the group's ranks, then those that only pass vectors on
    routes: dict[tuple[int, int], tuple[Hop, ...]]
    parts: list[Rows]

    def __call__(self, plan: Schedule, tokens: int, sources: list[Rows], ranks: list[int]) -> None:
        """Send all parts of each rank's sum to every other rank.

        A part is read by one transfer at a time, and a cable carries one, so that in each round
        the parts of a rank leave for different ranks.
        """
        others = len(ranks) - 1
        first = [0]
        for source in sources:
            first.append(first[-1] + source.buffer.region.vectors)
        for turn in range(others):
            for rank in ranks:
                for number, source in enumerate(sources):
                    target = (rank + 1 + (turn + number) % others) % len(ranks)
                    rows = Rows(self.parts[rank].buffer, first[number])
                    count = source.buffer.region.vectors
                    transfer(plan, self.routes[rank, target], source, rows, count)


def exchange_of(wires: Wires, group: tuple[int, ...], stage: Stage) -> Exchange:
    """Routes between all members of a group, as hops of its schedule's members."""
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
    parts = [Rows(stage.memory[f"part{rank}"]) for rank in range(len(group))] if routes else []
    return Exchange(members, routes, parts)
