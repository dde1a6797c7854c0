"""Routes and ports of the graph, as hops between chips and between members of a group."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, pairwise, permutations
from math import ceil

import networkx as nx
import numpy as np

from chip.board import Cable
from chip.kernels.allreduce import TEAM, Network, Reach, team_of
from chip.kernels.collective_items import Items
from chip.kernels.transfer import Hop
from cluster.compiler.clocking import Clocking, Pacing
from cluster.compiler.messages import ROW_VECTORS, items_of
from cluster.compiler.wiring import Group, Onward, Path, Paths, Pipeline, StageLink, disjoint
from topology import ports, route
from topology.collectives import collective
from topology.collectives.sums import FP32
from topology.collectives.trunks import trunks
from topology.fabric import compiled, part_of
from topology.routes import Paths as Ways
from topology.routes import paths

Pairs = frozenset[tuple[int, int]]  # of neighbours
DEALT_ROWS = 8  # of a rank; more are dealt as one
# Ranks of a group whose all-reduces go past chips that wait, at most. An all-reduce of 23 rows on a
# torus takes some 5% less so among 96 chips; among 128 it takes 18,288 cycles for 18,213 without.
DETOURS_AMONG = 96
NO_NETWORK = Network({}, frozenset(), lambda *_: Items())  # of a chip that works alone


class _Routes(Mapping[tuple[int, int], Path]):
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


def _reach(routes: _Routes, cables: Iterable[Hop]) -> Reach:
    """How far ranks are apart, and over how many cables they are reached."""
    latencies = {edge: hop.latency_cycles for edge, hop in routes.hops.items()}
    each = np.array([latencies[edge] for edge in routes.ways.edges.tolist()])
    ways = np.add.reduceat(each, routes.ways.start[:-1])
    arriving = Counter(hop.to_member for hop in cables)
    fewest = min(arriving[rank] for rank in range(routes.ranks))
    interval = min(hop.interval_cycles for hop in cables)
    return Reach(fewest, interval, int(ways.min()), int(ways.max()))


@dataclass(frozen=True)
class _Kind:
    """A group that others are cabled like: who are neighbours, and a `tree` over all its members.

    Of member 0 on, each step leads from a member that is known over a port to one that is not.
    """

    group: Group
    near: Pairs
    tree: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, group: Group) -> "_Kind":
        """The kind of a group."""
        after: dict[int, list[Hop]] = {}
        for hop in sorted(group.routes.cables):
            after.setdefault(hop.member, []).append(hop)
        reached, tree = [0], []
        for member in reached:
            for hop in after.get(member, ()):
                if hop.to_member not in reached:
                    reached.append(hop.to_member)
                    tree.append((member, hop.port, hop.to_member))
        return cls(group, _neighbours(group.routes.cables), tuple(tree))


class Wires:
    """Routes and ports of a graph; what is found is kept.

    Where groups are `apart`, as those that work side by side must be, their routes keep to their
    own chips wherever these are in one piece, also where a route past others would be as short.
    Unless they are so `always`, one stage may be at work alone.
    """

    def __init__(self, graph: nx.Graph, apart: bool = False, always: bool | None = None) -> None:
        self.graph, self.ports, self.apart = graph, ports(graph), apart
        self.always = apart if always is None else always
        self.pacings: dict[frozenset[int], Pacing | None] = {}  # by the chips in use
        self._hops: dict[tuple[int, int, int], Hop] = {}
        self._groups: dict[tuple[int, ...], Group] = {}
        self._alone: dict[tuple[tuple[int, ...], frozenset[int]], Group] = {}
        self._parts: dict[frozenset[int], nx.Graph] = {}  # of the graph, by chips
        self._kinds: list[_Kind] = []  # one of each kind, wherever it is
        self._kinds_alone: dict[frozenset[int], list[_Kind]] = {}  # by chips placed
        self._peers: dict[int, dict[int, int]] = {}  # by chip and port
        self._links: dict[tuple[tuple[int, ...], tuple[int, ...]], StageLink] = {}
        self._paths: dict[Paths, Paths] = {}

    def hops(self, chips: tuple[int, ...]) -> list[Hop]:
        """The hops along a path of chips; members are chips."""
        return [self.hop(a, b) for a, b in pairwise(chips)]

    def hop(self, a: int, b: int, cable: int = 0) -> Hop:
        """The hop over one of the cables of a link; members are chips."""
        if (a, b, cable) not in self._hops:
            link = self.graph.edges[a, b]["link"]
            pair = (self.ports[a][b][cable], self.ports[b][a][cable])
            interval = ceil(link.cycles_per_vector)
            self._hops[a, b, cable] = Hop(a, pair[0], b, pair[1], link.wire_cycles, interval)
        return self._hops[a, b, cable]

    def path(self, source: int, target: int) -> tuple[int, ...]:
        return tuple(route(self.graph, source, target))

    def all_paths(
        self, pairs: Sequence[tuple[int, int]], graph: nx.Graph | None = None
    ) -> list[tuple[int, ...]]:
        """The routes of many pairs, as `path` gives them one by one; `graph` may be a part."""
        if not pairs:
            return []
        fabric = compiled(graph or self.graph)
        ends = np.array(pairs)
        found = paths(fabric, ends[:, 0], ends[:, 1])
        heads = np.split(fabric.head[found.edges], found.start[1:-1])
        sources = (source for source, _ in pairs)
        return [(source, *map(int, after)) for source, after in zip(sources, heads, strict=True)]

    def pipeline(self, placement: Sequence[tuple[int, ...]]) -> Pipeline:
        """Members, routes and paths of all stages."""
        links = list(pairwise(placement))
        self._route(links)
        groups = tuple(map(self.group, placement))
        idle = frozenset(chip for chips in placement for chip in chips)
        order = self._usual(placement)
        alone = {n: self._group_alone(groups[n], placement[n], idle) for n in order}
        between = tuple(self.link(a, b) for a, b in links)
        return Pipeline(groups, between, tuple(alone[n] for n in range(len(groups))))

    def _usual(self, placement: Sequence[tuple[int, ...]]) -> list[int]:
        """Numbers of groups, those first whose chips have cables to others as most groups have.

        The first one of a kind is routed for all: one at an edge of the numbers has other routes.
        """
        fabric, around = compiled(self.graph), []
        for chips in placement:
            heads = fabric.head[np.isin(fabric.tail, chips)]
            around.append(((heads - chips[0]) % fabric.chips).tobytes())
        counts = Counter(around)
        return sorted(range(len(placement)), key=lambda n: -counts[around[n]])

    def all_apart(self, placement: Sequence[tuple[int, ...]]) -> bool:
        """Whether the stages of a pipeline there are `apart`."""
        return disjoint(map(self.group, placement))

    @cached_property
    def _apart(self) -> "Wires":
        return Wires(self.graph, apart=True, always=False)

    def side_by_side(self, placement: Sequence[tuple[int, ...]]) -> "Wires":
        """Itself, or where stages would need each other's chips, and can do without, `apart`."""
        if self.apart or len(placement) == 1 or self.all_apart(placement):
            return self
        return self._apart if self._apart.all_apart(placement) else self

    def group(self, chips: tuple[int, ...]) -> Group:
        """Routes between all ranks of a group."""
        if chips not in self._groups:
            moved = (self._moved(kind, chips) for kind in self._kinds)
            found = next((one for one in moved if one), None)
            if found is None:
                found = self._new_group(chips, self._own(chips))
                self._kinds.append(_Kind.of(found))
            self._groups[chips] = found
        return self._groups[chips]

    def link(self, chips: tuple[int, ...], after: tuple[int, ...]) -> StageLink:
        """The paths from each rank to the same rank of the next stage."""
        self._route([(chips, after)])
        return self._links[chips, after]

    def _route(self, links: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
        """Find those of the links that are not known, all at once."""
        fresh = [link for link in dict.fromkeys(links) if link not in self._links]
        pairs = [pair for chips, after in fresh for pair in zip(chips, after, strict=True)]
        every = iter(self.all_paths(pairs))
        for chips, after in fresh:
            self._links[chips, after] = self._link(after, list(islice(every, len(chips))))

    def _link(self, after: tuple[int, ...], ways: Sequence[tuple[int, ...]]) -> StageLink:
        """The link to a group along the ways of chips to its ranks."""
        number: dict[int, int] = {}
        paths = Paths(
            tuple(_between(number, hop, hop.member, hop.to_member) for hop in self.hops(way))
            for way in ways
        )
        onward = self._onward(after, number)
        return StageLink(tuple(number), self._paths.setdefault(paths, paths), onward)

    def _onward(self, ranks: tuple[int, ...], number: dict[int, int]) -> Onward:
        """Routes inside the teams of a group, as hops between numbers of chips.

        None where some of a team are no neighbours, so that routes would meet on a cable.
        """
        group = self.group(ranks)
        found = []
        for rank in range(len(ranks)):
            first = rank - rank % TEAM
            team = range(first, min(first + TEAM, len(ranks)))
            found.append([group.routes[rank, other] for other in team if other != rank])
        if any(len(route) > 1 for routes in found for route in routes):
            return ()
        chips = group.members

        def here(hop: Hop) -> Hop:
            return _between(number, hop, chips[hop.member], chips[hop.to_member])

        return tuple(tuple(tuple(map(here, route)) for route in routes) for routes in found)

    @cached_property
    def unclocked_cables(self) -> tuple[Cable, ...]:
        """Every cable of the graph, as between chips that no clock keeps apart."""
        return self.cables()

    def cables(self, clocks: Clocking | None = None) -> tuple[Cable, ...]:
        """Every cable of the graph; `clocks` know how long a notice takes."""
        notice = clocks.plan.link_latency_cycles if clocks else Cable.hac_latency_cycles
        found = []
        for a, b, data in self.graph.edges(data=True):
            link = data["link"]
            for mine, theirs in zip(self.ports[a][b], self.ports[b][a], strict=True):
                rate = link.cycles_per_vector
                ends = (a, mine, b, theirs)
                found.append(Cable(*ends, link.wire_cycles, rate, notice))
        return tuple(found)

    def _moved(self, kind: "_Kind", chips: tuple[int, ...]) -> Group | None:
        """The routes of a group elsewhere, if its chips are cabled alike; None if they are not.

        Of equally short routes each group could take others; groups that take the same ones share
        their schedules.
        """
        known = kind.group
        members = self._counterparts(kind, chips)
        if not members or len(known.routes) != len(chips) * (len(chips) - 1):
            return None
        cables, count = known.routes.cables, 0
        for a, b in kind.near:
            if members[b] not in self.ports.get(members[a], ()):
                return None
            for hop in self._cables(members, a, b):
                if hop not in cables:
                    return None
                count += 1
        return Group(members, known.routes) if count == len(cables) else None

    def _counterparts(self, kind: "_Kind", chips: tuple[int, ...]) -> tuple[int, ...]:
        """Chips over the same ports from the first of some; () unless its ranks are these chips."""
        found = {0: chips[0]}
        for member, port, other in kind.tree:
            chip = self._peer(found[member], port)
            if chip is None or (other < len(chips) and chips[other] != chip):
                return ()
            found[other] = chip
        members = tuple(found[number] for number in range(len(found)))
        return members if len(set(members)) == len(kind.group.members) else ()

    def _peer(self, chip: int, port: int) -> int | None:
        """Who is at the other end of a chip's port."""
        if chip not in self._peers:
            near = self.ports.get(chip, {})
            self._peers[chip] = {mine: other for other, some in near.items() for mine in some}
        return self._peers[chip].get(port)

    def _cables(self, members: Sequence[int], a: int, b: int) -> Iterator[Hop]:
        """All cables of a link between members, parallel ones too."""
        here, there = members[a], members[b]
        for cable in range(len(self.ports[here][there])):
            _, *ends = self.hop(here, there, cable)
            ends[1] = b
            yield Hop(a, *ends)

    def _new_group(
        self, chips: tuple[int, ...], graph: nx.Graph, idle: Collection[int] = ()
    ) -> Group:
        """A group that is routed on a graph, whose all-reduces may go through `idle` chips."""
        if len(chips) == 1:
            return Group(chips, NO_NETWORK)
        fabric, ranks = compiled(graph), np.array(chips)
        others = ~np.eye(len(chips), dtype=bool)
        targets = np.broadcast_to(ranks, others.shape)[others]
        ways = paths(fabric, np.repeat(ranks, len(chips) - 1), targets)
        passed = fabric.head[ways.edges]
        passed = passed[~np.isin(passed, ranks)]
        members = [*chips, *passed[np.sort(np.unique(passed, return_index=True)[1])].tolist()]
        used = np.unique(ways.edges).tolist()
        if team_of(len(chips)) < len(chips):
            within = part_of(fabric, {*members, *idle})
            known = trunks(within, chips, TEAM, shared=True).values()
            edges = list(dict.fromkeys(edge for some in known for way in some for edge in way))
            ends = within.tail[edges], within.head[edges]
            used += fabric.edges_between(*ends).tolist()
            members += (chip for pair in zip(*ends, strict=True) for chip in map(int, pair))
        members = list(dict.fromkeys(members))
        number = {chip: rank for rank, chip in enumerate(members)}
        hops: dict[int, Hop] = {}
        for edge in dict.fromkeys(used):
            a, b = int(fabric.tail[edge]), int(fabric.head[edge])
            hops[edge] = _between(number, self.hop(a, b), a, b)
        near = _neighbours(hops.values())
        cables = frozenset(hop for pair in near for hop in self._cables(members, *pair))
        routes = _Routes(len(chips), ways, hops)
        reach = _reach(routes, cables)
        own = nx.freeze(self.graph.subgraph(members).copy())
        every = self._all_reduces(chips, number, own)
        return Group(tuple(members), Network(routes, cables, every, reach))

    def _group_alone(self, group: Group, chips: tuple[int, ...], placed: frozenset[int]) -> Group:
        """A group whose all-reduces may go through other chips that are `placed`, as these wait."""
        in_teams = team_of(len(chips)) < len(chips) <= DETOURS_AMONG
        if self.always or not in_teams or len(placed) == len(chips):
            return group
        if (chips, placed) not in self._alone:
            if placed not in self._parts:
                part = nx.freeze(self.graph.subgraph(placed).copy())
                self._parts[placed] = part if nx.is_connected(part) else self.graph
            kinds = self._kinds_alone.setdefault(placed, [])
            moved = (self._moved(kind, chips) for kind in kinds)
            found = next((one for one in moved if one and placed.issuperset(one.members)), None)
            if found is None:
                found = self._new_group(chips, self._parts[placed], placed)
                kinds.append(_Kind.of(found))
            self._alone[chips, placed] = found
        return self._alone[chips, placed]

    def _own(self, chips: tuple[int, ...]) -> nx.Graph:
        """The graph on which a group is routed."""
        if not self.apart:
            return self.graph
        own = nx.freeze(self.graph.subgraph(chips).copy())
        return own if nx.is_connected(own) else self.graph

    def _all_reduces(
        self, group: tuple[int, ...], number: Mapping[int, int], graph: nx.Graph
    ) -> Callable[[str, int, bool, str], Items]:
        """What lists the messages of an all-reduce of fp32 rows, by the members' numbers."""

        def hop(a: int, b: int, cable: int) -> Hop:
            return self.hop(a, b, cable)._replace(member=number[a], to_member=number[b])

        @cache
        def items(algorithm: str, rows: int, residual: bool, sums: str) -> Items:
            num_bytes = rows * ROW_VECTORS * compiled(graph).payload_bytes
            timed = collective(
                *("all_reduce", graph, num_bytes, algorithm, group),
                chunks=_chunks(algorithm, rows),
                unit_vectors=ROW_VECTORS,
                residual=residual,
                team_ranks=TEAM,
                sums_between=sums if team_of(len(group)) < len(group) else FP32,
            )
            return items_of(timed, hop, number)

        return items


def _chunks(algorithm: str, rows: int) -> int:
    """Blocks that each rank adds up: few rows are dealt singly over the cables between teams."""
    each = -(-rows // TEAM)
    return each if algorithm in ("teams", "gates", "agents", "direct") and each <= DEALT_ROWS else 1


def _neighbours(hops: Iterable[Hop]) -> Pairs:
    return frozenset((hop.member, hop.to_member) for hop in hops)


def _between(number: dict[int, int], hop: Hop, a: int, b: int) -> Hop:
    """The hop between the numbers of two chips, which get the next ones if they have none."""
    mine, theirs = number.setdefault(a, len(number)), number.setdefault(b, len(number))
    return Hop(mine, hop[1], theirs, *hop[3:])
