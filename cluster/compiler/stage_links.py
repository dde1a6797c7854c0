"""What lies between the stages of a pipeline: a path to each rank, and routes inside its team.

All ranks of a stage have x, so that a path to a rank of the next may begin at any of them: paths
that share no cable are taken where there are such, or else those between ranks of one number.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, pairwise

import numpy as np

from chip.kernels.allreduce import TEAM, Network
from chip.kernels.transfer import Hop
from cluster.compiler.cable_ends import CableEnds
from cluster.compiler.wiring import NO_ONWARD, Group, Onward, Path, Paths, StageLink, digest_of
from topology.disjoint import DisjointRoutes
from topology.fabric import Ints
from topology.routes import paths

Ends = tuple[tuple[int, ...], tuple[int, ...]]  # chips of a stage, and of the next


class StageLinks:
    """Links between groups of chips; paths are written out once somebody wants them."""

    def __init__(self, ends: CableEnds, group: Callable[[tuple[int, ...]], Group]) -> None:
        self.ends, self._group = ends, group
        self._found: dict[Ends, StageLink] = {}
        self._inside: dict[Network, Ints | None] = {}
        self._disjoint = DisjointRoutes(ends.fabric)

    def link(self, chips: tuple[int, ...], after: tuple[int, ...]) -> StageLink:
        """The paths from ranks of a stage to each of the next."""
        self.route([(chips, after)])
        return self._found[chips, after]

    def route(self, links: Iterable[Ends]) -> None:
        """Find those of the links that are not known."""
        for link in dict.fromkeys(links):
            if link not in self._found:
                self._found[link] = self._linked(link[1], *self._routed(*link))

    def _routed(self, chips: tuple[int, ...], after: tuple[int, ...]) -> tuple[Ints, Ints]:
        """Channels of the path to each rank, one path after another, and how many each takes."""
        ends = np.array(chips), np.array(after)
        apart = self._disjoint.between(*ends)
        if apart is None:
            ways = paths(self.ends.fabric, *ends)
            return self.ends.fabric.first_channel[ways.edges], ways.hops
        return np.concatenate(apart), np.array(list(map(len, apart)))

    def _linked(self, after: tuple[int, ...], channels: Ints, hops: Ints) -> StageLink:
        """The link over some channels, so many of which are the path to each rank."""
        fabric = self.ends.fabric
        edges = fabric.channel_edge[channels]
        each = np.stack((fabric.tail[edges], fabric.head[edges]), axis=1).ravel()
        found, first, number = np.unique(each, return_index=True, return_inverse=True)
        order = np.argsort(first)  # chips by where they come first
        at = np.empty_like(order)
        at[order] = np.arange(len(order))
        number, cables = at[number], self.ends.cables[channels]
        paths = Paths(digest_of(hops, number, cables), partial(_paths, number, cables, hops))
        ranks = number[1::2][np.cumsum(hops) - 1]
        return StageLink(tuple(found[order].tolist()), paths, self._on(after, ranks))

    def _on(self, after: tuple[int, ...], ranks: Ints) -> Onward:
        """Routes inside the teams of a group, as hops between the numbers of its ranks.

        None where some of a team are no neighbours, so that routes would meet on a cable.
        """
        routes = self._group(after).routes
        if routes not in self._inside:
            self._inside[routes] = _inside(routes, len(after))
        rows = self._inside[routes]
        if rows is None:
            return NO_ONWARD
        return Onward(digest_of(rows, ranks), partial(_onward, rows, ranks))


def _paths(number: Ints, cables: Ints, hops: Ints) -> Iterator[Path]:
    """Paths of so many hops each, over cables between numbers of chips."""
    mine, theirs, *times = cables.T
    columns = number[::2], mine, number[1::2], theirs, *times
    every = list(map(Hop._make, zip(*(column.tolist() for column in columns), strict=True)))
    return (tuple(every[a:b]) for a, b in pairwise([0, *np.cumsum(hops).tolist()]))


def _inside(routes: Network, ranks: int) -> Ints | None:
    """Hops [hops, 6] from each rank to each other of its team; None if some are no neighbours."""
    found = []
    for rank in range(ranks):
        first = rank - rank % TEAM
        team = range(first, min(first + TEAM, ranks))
        found += [routes[rank, other] for other in team if other != rank]
    if any(len(route) > 1 for route in found):
        return None
    return np.array([hop for (hop,) in found], np.int64).reshape(-1, 6)


def _onward(rows: Ints, ranks: Ints) -> Iterator[tuple[Path, ...]]:
    """Those of each rank, as paths between other numbers of ranks."""
    anew = rows.copy()
    anew[:, 0], anew[:, 2] = ranks[rows[:, 0]], ranks[rows[:, 2]]
    hops = map(Hop._make, anew.tolist())
    for count in np.bincount(rows[:, 0], minlength=len(ranks)).tolist():
        yield tuple((hop,) for hop in islice(hops, count))
