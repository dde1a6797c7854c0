"""Assemble a graph of chips from a list of cables, and number the ports of every chip.

Conventions of every graph here: one undirected `nx.Graph`; nodes 0..n-1 with `coordinates` (tuple),
`node`, `rack` and `system` (packaging, integers); edges with `link` (a Link, parallel cables in its
`count`) and optionally `ports` (first port on the lower-numbered chip, first on the other);
`graph.graph` holds `name` (the SPEC), `profile` (a Profile) and `port_limit`. Graphs are frozen,
so what is computed about one can be remembered; `graph.copy()` can be changed.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from weakref import WeakKeyDictionary

import networkx as nx
import numpy as np

from topology.errors import Disconnected, PortsExceeded
from topology.fabric import compiled
from topology.links import Link, Profile
from topology.routes import UNREACHED, distances_to

# (chip, chip, cables, kind of cable, (first port on the one, first port on the other) or None)
Cable = tuple[int, int, int, str, tuple[int, int] | None]
Packaging = Callable[[int], tuple[int, int, int]]
Ports = dict[int, dict[int, tuple[int, ...]]]  # per chip and neighbour, of each parallel cable
_ports: "WeakKeyDictionary[nx.Graph, Ports]" = WeakKeyDictionary()


def alone(chip: int) -> tuple[int, int, int]:
    """Return the packaging of shapes that say nothing of nodes: each chip its own node."""
    return chip, 0, 0


def in_nodes_of(chips: int, rack_nodes: int = 9) -> Packaging:
    """Return a packaging by nodes of `chips` and racks of nodes, of 9 in a GroqRack."""
    return lambda chip: (chip // chips, chip // (rack_nodes * chips), 0)


def build(
    name: str,
    profile: Profile,
    coordinates: Sequence[tuple[int, ...]],
    cables: Iterable[Cable],
    packaging: Packaging = alone,
    port_limit: int | None = None,
) -> nx.Graph:
    """Return the frozen, validated graph; see the module docstring for its attributes.

    `port_limit` is by default every link of the silicon. Raises PortsExceeded, Disconnected.
    """
    graph = nx.Graph(name=name, profile=profile, port_limit=port_limit or profile.links_per_chip)
    for chip, where in enumerate(coordinates):
        node, rack, system = packaging(chip)
        graph.add_node(chip, coordinates=where, node=node, rack=rack, system=system)

    @cache
    def link(count: int, kind: str) -> Link:
        return dataclasses.replace(profile.link, count=count * profile.link.count, kind=kind)

    # Doubling every cable by an override would make the numbers below overlap: deal new ones.
    numbered = profile.link.count == 1
    # `add_edges_from` copies every attribute dict, which is most of the time for a million links;
    # both ends of an edge share one dict in networkx, as documented for `Graph.adj`.
    near = graph._adj
    for u, v, count, kind, ports in cables:
        edge: dict[str, object] = {"link": link(count, kind)}
        if ports is not None and numbered:
            edge["ports"] = ports if u < v else ports[::-1]
        near[u][v] = near[v][u] = edge
    nx.freeze(graph)
    validate(graph)
    return graph


def validate(graph: nx.Graph) -> None:
    """Raise PortsExceeded or Disconnected if the graph cannot be a cluster."""
    fabric, limit = compiled(graph), graph.graph["port_limit"]
    needed = np.bincount(fabric.tail, fabric.cables, fabric.chips).astype(int)
    if needed.max() > limit:
        chip = int((needed > limit).argmax())
        raise PortsExceeded(fabric.name, chip, int(needed[chip]), limit)
    away = distances_to(fabric, fabric.alive[:1])[0, fabric.alive] == UNREACHED
    if away.any():
        lost = int(fabric.alive[away.argmax()])
        raise Disconnected(fabric.name, int(fabric.alive[0]), lost)


def ports(graph: nx.Graph) -> Ports:
    """Return, per chip and neighbour, the port of each parallel cable.

    Cable i of the edge (u, v) joins `ports[u][v][i]` and `ports[v][u][i]`. Numbers set by the
    generator stand; the rest are dealt in order of (neighbour - chip) mod n, so that graphs that
    look alike from every chip (ring, full, node) use the same port in the same direction.
    Remembered if the graph is frozen.
    """
    found = _ports.get(graph) if nx.is_frozen(graph) else None
    if found is None:
        chips = max(graph) + 1
        found = {chip: _ports_of(graph, chip, chips) for chip in graph}
        if nx.is_frozen(graph):
            _ports[graph] = found
    return found


def _ports_of(graph: nx.Graph, chip: int, chips: int) -> dict[int, tuple[int, ...]]:
    numbered: dict[int, tuple[int, ...]] = {}
    unnumbered: list[int] = []
    for other, data in graph[chip].items():
        if "ports" in data:
            first = data["ports"][chip > other]
            numbered[other] = tuple(range(first, first + data["link"].count))
        else:
            unnumbered.append(other)
    taken = {port for group in numbered.values() for port in group}
    free = (port for port in range(10**9) if port not in taken)
    for other in sorted(unnumbered, key=lambda other: (other - chip) % chips):
        numbered[other] = tuple(next(free) for _ in range(graph[chip][other]["link"].count))
    return numbered
