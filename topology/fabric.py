"""A graph compiled to arrays: directed edges in CSR order, and one channel per directed cable.

Edge e runs tail[e] -> head[e]; edges are sorted by (tail, head). Its cables are the channels
first_channel[e] .. first_channel[e] + cables[e] - 1, in the order of `ports()`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from weakref import WeakKeyDictionary

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.errors import NoRoute
from topology.links import Link

Ints = NDArray[np.int64]
_compiled: "WeakKeyDictionary[nx.Graph, Fabric]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Fabric:
    """Array form of a graph of chips; ids stay those of the graph, dead chips have no edges."""

    name: str
    chips: int  # one more than the highest id
    alive: Ints  # ids in the graph
    tail: Ints
    head: Ints
    row: Ints  # edges of chip c are row[c]:row[c + 1]
    latency_cycles: Ints  # per edge
    wire_cycles: Ints  # per edge, the part that chips do not take
    cables: Ints  # per edge
    pace: Ints  # per edge, index into `paces`
    paces: tuple[Fraction, ...]  # distinct cycles per vector, fastest first
    payload_bytes: int
    first_channel: Ints
    channels: int
    channel_edge: Ints

    @cached_property
    def _keys(self) -> Ints:
        """A number for the two ends of each edge; it rises from edge to edge."""
        return self.tail * self.chips + self.head

    def edges_between(self, src: Ints, dst: Ints) -> Ints:
        """Return the edge of each pair, or -1 where the two are no neighbours."""
        keys = self._keys
        wanted = np.asarray(src, np.int64) * self.chips + dst
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        return np.where(keys[at] == wanted, at, -1)

    def edge(self, src: int, dst: int) -> int:
        """Return the edge src -> dst; raises NoRoute."""
        lo, hi = self.row[src : src + 2] if 0 <= src < self.chips else (0, 0)
        at = int(lo + np.searchsorted(self.head[lo:hi], dst))
        if at >= hi or self.head[at] != dst:
            raise NoRoute(self.name, src, dst)
        return at

    def pace_arrays(self) -> tuple[Ints, Ints]:
        """Return numerators and denominators of `paces`."""
        numerators = np.array([p.numerator for p in self.paces], np.int64)
        return numerators, np.array([p.denominator for p in self.paces], np.int64)


def compiled(graph: nx.Graph) -> Fabric:
    """Return the array form of `graph`, remembered if the graph is frozen."""
    fabric = _compiled.get(graph) if nx.is_frozen(graph) else None
    if fabric is None:
        fabric = _compile(graph)
        if nx.is_frozen(graph):
            _compiled[graph] = fabric
    return fabric


def part_of(fabric: Fabric, chips: Iterable[int]) -> Fabric:
    """Return the same with only some chips and the cables among them."""
    alive = np.unique(np.fromiter(chips, np.int64))
    kept = np.zeros(fabric.chips, bool)
    kept[alive] = True
    edge = np.flatnonzero(kept[fabric.tail] & kept[fabric.head])
    cables = fabric.cables[edge]
    return replace(
        fabric,
        alive=alive,
        tail=fabric.tail[edge],
        head=fabric.head[edge],
        row=np.searchsorted(fabric.tail[edge], np.arange(fabric.chips + 1)),
        latency_cycles=fabric.latency_cycles[edge],
        wire_cycles=fabric.wire_cycles[edge],
        cables=cables,
        pace=fabric.pace[edge],
        first_channel=np.cumsum(cables) - cables,
        channels=int(cables.sum()),
        channel_edge=np.repeat(np.arange(len(edge)), cables),
    )


def _compile(graph: nx.Graph) -> Fabric:
    head, link_of, links = _adjacency(graph)
    degree = np.fromiter((len(near) for _, near in graph.adjacency()), np.int64, len(graph))
    alive = np.fromiter(graph, np.int64, len(graph))
    tail, chips = np.repeat(alive, degree), int(alive.max(initial=-1)) + 1
    order = np.argsort(tail * chips + head, kind="stable")
    tail, head, kind = tail[order], head[order], link_of[order]
    paces = tuple(sorted({link.cycles_per_vector for link in links})) or (Fraction(27),)
    cables = _field([link.count for link in links], kind)
    return Fabric(
        name=graph.graph.get("name", "graph"),
        chips=chips,
        alive=np.sort(alive),
        tail=tail,
        head=head,
        row=np.searchsorted(tail, np.arange(chips + 1)),
        latency_cycles=_field([link.latency_cycles for link in links], kind),
        wire_cycles=_field([link.wire_cycles for link in links], kind),
        cables=cables,
        pace=_field([paces.index(link.cycles_per_vector) for link in links], kind),
        paces=paces,
        payload_bytes=min((link.payload_bytes for link in links), default=320),
        first_channel=np.cumsum(cables) - cables,
        channels=int(cables.sum()),
        channel_edge=np.repeat(np.arange(len(tail)), cables),
    )


def _adjacency(graph: nx.Graph) -> tuple[Ints, Ints, list[Link]]:
    """Return heads in adjacency order, the number of each edge's Link, and the distinct Links."""
    heads: list[int] = []
    objects: list[Link] = []
    for _, near in graph.adjacency():
        heads.extend(near)
        objects.extend([data["link"] for data in near.values()])
    # Edges share few Link objects: read the fields of each object once.
    ids = np.fromiter(map(id, objects), np.int64, len(objects))
    _, first, link_of = np.unique(ids, return_index=True, return_inverse=True)
    return np.array(heads, np.int64), link_of, [objects[i] for i in first]


def _field(values: list[int], kind: Ints) -> Ints:
    return np.array(values or [0], np.int64)[kind]
