"""Routes and ports of the graph, as hops between chips and between members of a group."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, cached_property, partial
from itertools import pairwise
from math import ceil
from typing import Any, TypeVar

import networkx as nx
import numpy as np

from chip.board import Cable
from chip.kernels.allreduce import NO_REACH, TEAM, Network, team_of
from chip.kernels.collective_items import Items, urgent_first
from chip.kernels.transfer import Hop
from cluster.compiler.cable_ends import CableEnds
from cluster.compiler.clocking import Clocking, Pacing
from cluster.compiler.group_routes import GroupRoutes, Kind, passed
from cluster.compiler.kept_routes import KeptRoutes, plain
from cluster.compiler.messages import ROW_VECTORS, items_of
from cluster.compiler.stage_links import StageLinks
from cluster.compiler.store import Store
from cluster.compiler.wiring import Group, Pipeline, StageLink, disjoint
from topology import ports
from topology.clocks import tree_root
from topology.collectives import collective
from topology.collectives.sums import FP32
from topology.collectives.trunks import trunks
from topology.fabric import Fabric, Ints, compiled, part_of
from topology.routes import in_one_piece, paths

T = TypeVar("T")
Placement = tuple[tuple[int, ...], ...]
DEALT_ROWS = 8  # of a rank; more are dealt as one
FAR_HOPS = 3  # of a route or a detour: all chips on it are neighbours of its ends
# Ranks of a group whose all-reduces go past chips that wait, at most. An all-reduce of 23 rows on a
# torus takes some 5% less so among 96 chips; among 128 it takes 18,288 cycles for 18,213 without.
DETOURS_AMONG = 96
NO_NETWORK = Network(  # of a chip that works alone
    "alone", {}, lambda *_: Items(), lambda: (frozenset(), NO_REACH)
)


class Wires:
    """Routes and ports of a graph; what is found is kept.

    Where groups are `apart`, as those that work side by side must be, their routes keep to their
    own chips wherever these are in one piece, also where a route past others would be as short.
    Unless they are so `always`, one stage may be at work alone.
    """

    def __init__(
        self, graph: nx.Graph, apart: bool = False, always: bool | None = None,
        store: Store | None = None, ends: CableEnds | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.ports, self.apart, self._store = graph, ports(graph), apart, store
        self.always = apart if always is None else always
        self.pacings: dict[frozenset[int], Pacing | None] = {}  # by the chips in use
        self._near = dict(graph.adjacency())
        self._whole = compiled(graph)
        self._ends = ends or CableEnds(self._whole, self.ports)
        self._links = StageLinks(self._ends, self.group)
        self._read = KeptRoutes()
        self._routed: dict[Placement, Pipeline] = {}  # the last one
        self._routers: list[tuple[Placement, Wires]] = []
        self._hops: dict[tuple[int, int, int], Hop] = {}
        self._groups: dict[tuple[int, ...], Group] = {}
        self._alone: dict[tuple[tuple[int, ...], frozenset[int]], Group] = {}
        self._parts: dict[frozenset[int], Fabric] = {}  # of the graph, by chips
        self._kinds: list[Kind] = []  # one of each kind, wherever it is
        self._kinds_alone: dict[frozenset[int], list[Kind]] = {}  # by chips placed
        self._among: dict[tuple[tuple[int, ...], frozenset[int], bool], Kind] = {}
        self._between: dict[tuple[int, ...], frozenset[int]] = {}
        self._peers: dict[int, dict[int, int]] = {}  # by chip and port
        self._cabled: dict[tuple[int, ...], bytes] = {}

    def hop(self, a: int, b: int, cable: int = 0) -> Hop:
        """The hop over one of the cables of a link; members are chips."""
        if (a, b, cable) not in self._hops:
            link = self._near[a][b]["link"]
            pair = (self.ports[a][b][cable], self.ports[b][a][cable])
            times = link.wire_cycles, ceil(link.cycles_per_vector)
            self._hops[a, b, cable] = Hop(a, pair[0], b, pair[1], *times)
        return self._hops[a, b, cable]

    def pipeline(self, placement: Sequence[tuple[int, ...]]) -> Pipeline:
        """Members, routes and paths of all stages."""
        groups = tuple(placement)

        def routed() -> Pipeline:
            if groups not in self._routed:
                self._routed = {groups: self._router(groups)._route(groups)}
            return self._routed[groups]

        def read(kept: Any) -> Pipeline:
            return self._read.read(kept, groups, routed)

        written = partial(plain, ranks=len(groups[0]))
        found: Pipeline = self._kept("pipeline", groups, routed, written, read)
        return found

    def _kept(
        self,
        what: str,
        chips: object,
        make: Callable[[], T],
        plain: Callable[[T], Any],
        read: Callable[[Any], T],
    ) -> T:
        """What `make` finds of some chips, from the store if there is one."""
        if self._store is None:
            return make()
        key = self._ends.digest, self.apart, self.always, chips
        return self._store.kept(what, key, make, plain, read)

    def _router(self, placement: Placement) -> "Wires":
        """Wires that know of no placement but such as this one goes on from, or to.

        What is found first says how others are routed, and that is to be the same in any order.
        """
        for number, (known, wires) in enumerate(self._routers):
            if known[: len(placement)] == placement[: len(known)]:
                self._routers[number] = max(known, placement, key=len), wires
                return wires
        wires = self
        if self._routers:
            wires = Wires(self.graph, self.apart, self.always, ends=self._ends)
        self._routers.append((placement, wires))
        return wires

    def _route(self, placement: Sequence[tuple[int, ...]]) -> Pipeline:
        links = list(pairwise(placement))
        self._links.route(links)
        groups = tuple(map(self.group, placement))
        idle = frozenset(chip for chips in placement for chip in chips)
        order = self._usual(placement)
        alone = {n: self._group_alone(groups[n], placement[n], idle) for n in order}
        between = tuple(self._links.link(a, b) for a, b in links)
        return Pipeline(groups, between, tuple(alone[n] for n in range(len(groups))))

    def _usual(self, placement: Sequence[tuple[int, ...]]) -> list[int]:
        """Numbers of groups, those first whose chips have cables to others as most groups have.

        The first one of a kind is routed for all: one at an edge of the numbers has other routes.
        """
        around = list(map(self._around, placement))
        counts = Counter(around)
        return sorted(range(len(placement)), key=lambda n: -counts[around[n]])

    def _around(self, chips: tuple[int, ...]) -> bytes:
        """Where the cables of a group's chips lead, from its first one on."""
        if chips not in self._cabled:
            fabric = self._whole
            heads = fabric.head[np.isin(fabric.tail, chips)]
            self._cabled[chips] = ((heads - chips[0]) % fabric.chips).tobytes()
        return self._cabled[chips]

    def all_apart(self, placement: Sequence[tuple[int, ...]]) -> bool:
        """Whether the stages of a pipeline there are `apart`."""

        def apart() -> bool:
            return disjoint(map(self._router(tuple(placement)).group, placement))

        return self._kept("apart", tuple(placement), apart, int, bool)

    def tree(self, used: frozenset[int]) -> tuple[int, int]:
        """The root of the lowest spanning tree over some chips, and its height."""

        def found() -> tuple[int, int]:
            return tree_root(part_of(self._whole, used))

        return self._kept("tree", sorted(used), found, list, lambda kept: (kept[0], kept[1]))

    @cached_property
    def _apart(self) -> "Wires":
        return Wires(self.graph, True, False, self._store, self._ends)

    def side_by_side(self, placement: Sequence[tuple[int, ...]]) -> "Wires":
        """Itself, or where stages would need each other's chips, and can do without, `apart`."""
        if self.apart or len(placement) == 1 or self.all_apart(placement):
            return self
        return self._apart if self._apart.all_apart(placement) else self

    def group(self, chips: tuple[int, ...]) -> Group:
        """Routes between all ranks of a group."""
        if len(chips) == 1:
            return Group(chips, NO_NETWORK)
        if chips not in self._groups:
            moved = (self._moved(kind, chips) for kind in self._kinds)
            found = next((one for one in moved if one), None)
            if found is None:
                self._kinds.append(self._new_kind(chips, self._own(chips)))
                found = self._kinds[-1].group
            self._groups[chips] = found
        return self._groups[chips]

    def link(self, chips: tuple[int, ...], after: tuple[int, ...]) -> StageLink:
        """The paths from ranks of a stage to each of the next."""
        return self._links.link(chips, after)

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

    def _moved(self, kind: Kind, chips: tuple[int, ...]) -> Group | None:
        """The routes of a group elsewhere, if its chips are cabled alike; None if they are not.

        Of equally short routes each group could take others; groups that take the same ones share
        their schedules.
        """
        if chips not in kind.elsewhere:
            kind.elsewhere[chips] = self._found_alike(kind, chips)
        return kind.elsewhere[chips]

    def _found_alike(self, kind: Kind, chips: tuple[int, ...]) -> Group | None:
        known = kind.group
        members = self._counterparts(kind, chips)
        if not members or len(known.routes) != len(chips) * (len(chips) - 1):
            return None
        if not np.array_equal(kind.ends, self._kinds_of_ends(members, kind.near)):
            return None
        return Group(members, known.routes)

    def _kinds_of_ends(self, members: tuple[int, ...], pairs: Ints) -> Ints:
        """How each pair [pairs, 2] of members is cabled; -1 where they are no neighbours."""
        tails, heads = np.array(members)[pairs].T
        edges = self._whole.edges_between(tails, heads)
        return np.where(edges < 0, -1, self._ends.kinds[edges])

    def _kind(self, members: tuple[int, ...], network: Network, routes: GroupRoutes) -> Kind:
        """The kind of a group of its own."""
        pairs = np.unique(routes.rows[:, [0, 2]], axis=0)
        return Kind(Group(members, network), routes, pairs, self._kinds_of_ends(members, pairs))

    def _counterparts(self, kind: Kind, chips: tuple[int, ...]) -> tuple[int, ...]:
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

    def _new_kind(self, chips: tuple[int, ...], fabric: Fabric, idle: Collection[int] = ()) -> Kind:
        """A group that is routed on a fabric, whose all-reduces may go through `idle` chips."""
        ranks = np.array(chips)
        others = ~np.eye(len(chips), dtype=bool)
        targets = np.broadcast_to(ranks, others.shape)[others]
        ways = paths(fabric, np.repeat(ranks, len(chips) - 1), targets)
        passed = fabric.head[ways.edges]
        passed = passed[~np.isin(passed, ranks)]
        members = [*chips, *passed[np.sort(np.unique(passed, return_index=True)[1])].tolist()]
        used = np.unique(ways.edges).tolist()
        if team_of(len(chips)) < len(chips):
            within = fabric
            if fabric is self._whole:  # else it is of these chips alone
                within = part_of(fabric, {*members, *idle})
            known = trunks(within, chips, TEAM, shared=True).values()
            edges = list(dict.fromkeys(edge for some in known for way in some for edge in way))
            ends = within.tail[edges], within.head[edges]
            used += fabric.edges_between(*ends).tolist()
            members += (chip for pair in zip(*ends, strict=True) for chip in map(int, pair))
        members = list(dict.fromkeys(members))
        every = np.unique(used)
        tails, heads = fabric.tail[every], fabric.head[every]
        number = np.zeros(fabric.chips, np.int64)
        number[members] = np.arange(len(members))
        rows, first = self._ends.rows(number[tails], number[heads], tails, heads)
        taken = first[np.searchsorted(every, ways.edges)]
        routes = GroupRoutes(len(chips), ways.start, taken, rows)
        messages = self._all_reduces(chips, {chip: rank for rank, chip in enumerate(members)})
        network = Network(routes.digest, routes, messages, routes.written)
        return self._kind(tuple(members), network, routes)

    def _group_alone(self, group: Group, chips: tuple[int, ...], placed: frozenset[int]) -> Group:
        """A group whose all-reduces may go through other chips that are `placed`, as these wait."""
        in_teams = team_of(len(chips)) < len(chips) <= DETOURS_AMONG
        if self.always or not in_teams or len(placed) == len(chips):
            return group
        if (chips, placed) not in self._alone:
            kinds = self._kinds_alone.setdefault(placed, [])
            moved = (self._moved(kind, chips) for kind in kinds)
            found = next((one for one in moved if one and placed.issuperset(one.members)), None)
            if found is None:
                kinds.append(self._kind_among(chips, placed))
                found = kinds[-1].group
            self._alone[chips, placed] = found
        return self._alone[chips, placed]

    def _kind_among(self, chips: tuple[int, ...], placed: frozenset[int]) -> Kind:
        """A group routed among chips that are `placed`, of which only its neighbours matter.

        Detours are three hops at most, as `trunks` has them, and so are most routes.
        """
        if placed not in self._parts:
            self._parts = {placed: self._part(placed)}  # the last one is the one asked for again
        part = self._parts[placed]
        key = chips, placed & self._on_ways(chips), part is self._whole
        if key not in self._among:
            kind = self._new_kind(chips, part, placed)
            if kind.routes.longest > FAR_HOPS:
                return kind
            self._among[key] = kind
        return self._among[key]

    def _on_ways(self, chips: tuple[int, ...]) -> frozenset[int]:
        """Chips that a way of at most FAR_HOPS between chips of a group, or a detour, may pass.

        Where the chips of each team are neighbours, these ways lead from team to team.
        """
        if chips not in self._between:
            self._between[chips] = frozenset(passed(self._whole, chips, TEAM).tolist())
        return self._between[chips]

    def _own(self, chips: tuple[int, ...]) -> Fabric:
        """The part of the graph on which a group is routed."""
        return self._part(chips) if self.apart else self._whole

    def _part(self, chips: Collection[int]) -> Fabric:
        """Some chips and their cables, where these are in one piece; or else the whole graph."""
        whole = self._whole
        part = part_of(whole, chips)
        return part if in_one_piece(part) else whole

    def _all_reduces(
        self, group: tuple[int, ...], number: Mapping[int, int]
    ) -> Callable[[str, int, bool, str], Items]:
        """What lists the messages of an all-reduce of fp32 rows, by the members' numbers."""

        def hop(a: int, b: int, cable: int) -> Hop:
            return self.hop(a, b, cable)._replace(member=number[a], to_member=number[b])

        @cache
        def own() -> nx.Graph:
            return nx.freeze(self.graph.subgraph(number).copy())

        @cache
        def items(algorithm: str, rows: int, residual: bool, sums: str) -> Items:
            graph = own()
            num_bytes = rows * ROW_VECTORS * compiled(graph).payload_bytes
            timed = collective(
                *("all_reduce", graph, num_bytes, algorithm, group),
                chunks=_chunks(algorithm, rows),
                unit_vectors=ROW_VECTORS,
                residual=residual,
                team_ranks=TEAM,
                sums_between=sums if team_of(len(group)) < len(group) else FP32,
            )
            found = items_of(timed, hop, number)
            return urgent_first(found) if algorithm == "relays" else found

        return items


def _chunks(algorithm: str, rows: int) -> int:
    """Blocks that each rank adds up: few rows are dealt singly over the cables between teams."""
    each = -(-rows // TEAM)
    if algorithm == "homes":  # as many teams as may be have some of them
        return min(each, DEALT_ROWS)
    return (
        each
        if algorithm in ("teams", "gates", "agents", "relays", "direct") and each <= DEALT_ROWS
        else 1
    )
