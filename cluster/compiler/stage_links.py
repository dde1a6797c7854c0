"""What lies between the stages of a pipeline: a path for each rank, and routes inside its team."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from chip.kernels.allreduce import TEAM, Network
from chip.kernels.transfer import Hop
from cluster.compiler.cable_ends import CableEnds
from cluster.compiler.wiring import Group, Onward, Paths, StageLink
from topology.fabric import Ints
from topology.routes import paths

Ends = tuple[tuple[int, ...], tuple[int, ...]]  # chips of a stage, and of the next


class StageLinks:
    """Links between groups of chips; those that are joined alike share their paths."""

    def __init__(self, ends: CableEnds, group: Callable[[tuple[int, ...]], Group]) -> None:
        self.ends, self._group = ends, group
        self._found: dict[Ends, StageLink] = {}
        self._paths: dict[tuple[bytes, ...], Paths] = {}
        self._onward: dict[tuple[Network, tuple[int, ...]], Onward] = {}

    def link(self, chips: tuple[int, ...], after: tuple[int, ...]) -> StageLink:
        """The paths from each rank to the same rank of the next stage."""
        self.route([(chips, after)])
        return self._found[chips, after]

    def route(self, links: Iterable[Ends]) -> None:
        """Find those of the links that are not known, all at once."""
        fresh = [link for link in dict.fromkeys(links) if link not in self._found]
        if not fresh:
            return
        ends = (np.array([chip for link in fresh for chip in link[at]]) for at in (0, 1))
        ways = paths(self.ends.fabric, *ends)
        first = 0
        for link in fresh:
            last = first + len(link[0])
            edges = ways.edges[ways.start[first] : ways.start[last]]
            self._found[link] = self._linked(link[1], edges, ways.hops[first:last])
            first = last

    def _linked(self, after: tuple[int, ...], edges: Ints, hops: Ints) -> StageLink:
        """The link over some edges, so many of which are the path of each rank."""
        fabric = self.ends.fabric
        each = np.stack((fabric.tail[edges], fabric.head[edges]), axis=1).ravel()
        found, first, number = np.unique(each, return_index=True, return_inverse=True)
        order = np.argsort(first)  # chips by where they come first
        at = np.empty_like(order)
        at[order] = np.arange(len(order))
        number, cables = at[number], self.ends.first[edges]
        key = hops.tobytes(), number.tobytes(), cables.tobytes()
        if key not in self._paths:
            self._paths[key] = _paths(number, cables, hops)
        ranks = tuple(number[1::2][np.cumsum(hops) - 1].tolist())
        return StageLink(tuple(found[order].tolist()), self._paths[key], self._on(after, ranks))

    def _on(self, after: tuple[int, ...], ranks: tuple[int, ...]) -> Onward:
        """Routes inside the teams of a group, as hops between the numbers of its ranks.

        None where some of a team are no neighbours, so that routes would meet on a cable.
        """
        routes = self._group(after).routes
        if (routes, ranks) not in self._onward:
            self._onward[routes, ranks] = _onward(routes, ranks)
        return self._onward[routes, ranks]


def _paths(number: Ints, cables: Ints, hops: Ints) -> Paths:
    """Paths of so many hops each, over cables between numbers of chips."""
    mine, theirs, latency, interval = cables.T
    rows = zip(number[::2].tolist(), mine.tolist(), number[1::2].tolist(), theirs.tolist(),
               latency.tolist(), interval.tolist(), strict=True)  # fmt: skip
    every = [Hop(*row) for row in rows]
    cuts = pairwise([0, *np.cumsum(hops).tolist()])
    return Paths(tuple(every[a:b]) for a, b in cuts)


def _onward(routes: Network, ranks: tuple[int, ...]) -> Onward:
    found = []
    for rank in range(len(ranks)):
        first = rank - rank % TEAM
        team = range(first, min(first + TEAM, len(ranks)))
        found.append([routes[rank, other] for other in team if other != rank])
    if any(len(route) > 1 for some in found for route in some):
        return Onward()
    return Onward(
        tuple((hop._replace(member=ranks[hop.member], to_member=ranks[hop.to_member]),)
              for (hop,) in some) for some in found)  # fmt: skip
