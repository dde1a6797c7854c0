"""The published LPU v1 systems: rack, and dragonfly of one or two levels, port by port.

ISCA'22 (section on the system): a chip has 7 local and 4 global links, so a node of 8 is a 32-port
virtual router. A rack is 9 nodes, doubly connected: 144 of its 288 global ports stay inside, 144
leave. One level: up to 33 nodes all-to-all (264 chips). Two levels: up to 145 racks all-to-all
(10,440 chips). Local ports are 0..6, global ports 7..10. Which chip of a node holds which global
cable is not published; the assignments below are ASSUMPTIONS, chosen to spread cables evenly.
"""

from collections.abc import Iterator

import networkx as nx

from topology.building import Cable, build, in_nodes_of
from topology.families.graphs import NODE_CHIPS, all_to_all
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import family, integers

LOCAL_PORTS = NODE_CHIPS - 1
GLOBAL_PORTS = 4  # per chip
NODE_PORTS = NODE_CHIPS * GLOBAL_PORTS
RACK_NODES = 9
RACK_CHIPS = RACK_NODES * NODE_CHIPS
CABLES_BETWEEN_RACK_NODES = 2
LEAVING_PORTS = 2  # per chip of a rack: half of its global ports
ONE_LEVEL_NODES = NODE_PORTS + 1
MOST_RACKS = RACK_CHIPS * LEAVING_PORTS + 1


@family("rack", "rack", integers(0, 0))
def rack(profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES) -> nx.Graph:
    """Return one rack: 9 nodes, 72 chips (the ninth node is the spare), 2 cables per node pair."""
    return _assemble("rack", RACK_NODES, resolve(profile, overrides), rack_cables(0, RACK_NODES))


@family("dragonfly:N", "dragonfly:264", integers(1, 1))
def dragonfly(
    chips: int, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return the dragonfly of `chips` chips, a multiple of 8: one level up to 264, else racks."""
    most = MOST_RACKS * RACK_CHIPS
    if chips % NODE_CHIPS or not 2 * NODE_CHIPS <= chips <= most:
        raise ValueError(f"chips come in nodes of 8, from 16 to {most:,}")
    nodes = chips // NODE_CHIPS
    wiring = one_level_cables(nodes) if nodes <= ONE_LEVEL_NODES else two_level_cables(nodes)
    return _assemble(f"dragonfly:{chips}", nodes, resolve(profile, overrides), wiring)


def one_level_cables(nodes: int, each: int | None = None, first: int = 0) -> Iterator[Cable]:
    """Yield global cables of all-to-all nodes: `each` for a pair, or as many as 32 ports allow.

    The nodes have numbers from the `first` on.
    """
    each = each or NODE_PORTS // (nodes - 1)
    kind = "rack" if nodes <= RACK_NODES else "optical"
    for a in range(nodes):
        for b in range(a + 1, nodes):
            for copy in range(each):
                ports = (b - a - 1) * each + copy, (nodes - 1 - (b - a)) * each + copy
                yield _global_cable(first + a, ports[0], first + b, ports[1], kind)


def two_level_cables(nodes: int) -> Iterator[Cable]:
    """Yield the cables inside racks of 9 nodes (the last may hold fewer) and between the racks."""
    racks = -(-nodes // RACK_NODES)
    sizes = [min(RACK_NODES, nodes - RACK_NODES * r) for r in range(racks)]
    for r, size in enumerate(sizes):
        yield from rack_cables(r, size)
    used = [0] * racks
    budget = [LEAVING_PORTS * NODE_CHIPS * size for size in sizes]
    while True:
        # One more cable for every pair of racks that still has two free ports, near pairs first.
        # Distances count both ways round, so that port p of every full rack leads equally far.
        before = sum(used)
        for distance in range(1, racks):
            for r in range(racks):
                s = (r + distance) % racks
                if r < s and used[r] < budget[r] and used[s] < budget[s]:
                    yield _between_racks((r, sizes[r], used[r]), (s, sizes[s], used[s]))
                    used[r] += 1
                    used[s] += 1
        if sum(used) == before:
            return


def rack_cables(number: int, nodes: int) -> Iterator[Cable]:
    """Yield two cables for every pair of nodes of a rack, on global ports 0 and 1 of each chip."""
    first = number * RACK_NODES
    for a in range(nodes):
        for b in range(a + 1, nodes):
            for copy in range(CABLES_BETWEEN_RACK_NODES):
                here = _half_chip(b - a - 1, copy)
                there = _half_chip(RACK_NODES - 1 - (b - a), copy)
                u = (first + a) * NODE_CHIPS + here
                v = (first + b) * NODE_CHIPS + there
                yield u, v, 1, "rack", (LOCAL_PORTS + copy, LOCAL_PORTS + copy)


def _half_chip(peer: int, copy: int) -> int:
    """Return the chip with cable `copy` to peer 0..7: the two cables are on different chips."""
    return (peer + copy * NODE_CHIPS // 2) % NODE_CHIPS


def _between_racks(*racks: tuple[int, int, int]) -> Cable:
    """Return the cable between leaving ports of two racks, each (number, nodes, port)."""
    ends = []
    for number, nodes, port in racks:
        # Consecutive ports go to different nodes, so that near racks are reached from all nodes.
        slot, node = divmod(port, nodes)
        chip = (number * RACK_NODES + node) * NODE_CHIPS + slot % NODE_CHIPS
        ends.append((chip, LOCAL_PORTS + LEAVING_PORTS + slot // NODE_CHIPS))
    return ends[0][0], ends[1][0], 1, "optical", (ends[0][1], ends[1][1])


def _global_cable(a: int, a_port: int, b: int, b_port: int, kind: str) -> Cable:
    u, v = a * NODE_CHIPS + a_port % NODE_CHIPS, b * NODE_CHIPS + b_port % NODE_CHIPS
    ports = LOCAL_PORTS + a_port // NODE_CHIPS, LOCAL_PORTS + b_port // NODE_CHIPS
    return u, v, 1, kind, ports


def node_cables(nodes: int) -> Iterator[Cable]:
    """Yield the 28 local cables of every node; local port by cyclic distance."""
    for first in range(0, nodes * NODE_CHIPS, NODE_CHIPS):
        for u, v, count, kind, _ in all_to_all(range(first, first + NODE_CHIPS), "node"):
            yield u, v, count, kind, (v - u - 1, NODE_CHIPS - 1 - (v - u))


def _assemble(name: str, nodes: int, profile: Profile, wiring: Iterator[Cable]) -> nx.Graph:
    places = [
        (n // RACK_NODES, n % RACK_NODES, chip) for n in range(nodes) for chip in range(NODE_CHIPS)
    ]
    cables = merged([*node_cables(nodes), *wiring])
    return build(name, profile, places, cables, in_nodes_of(NODE_CHIPS), profile.ports_per_chip)


def merged(cables: list[Cable]) -> list[Cable]:
    """Return cables with those between the same two chips joined into one with a count.

    Their ports must then be consecutive on both ends, so joined cables lose given port numbers
    and `ports()` deals them.
    """
    joined: dict[tuple[int, int], Cable] = {}
    for u, v, count, kind, ports in cables:
        key = (u, v) if u < v else (v, u)
        if key in joined:
            joined[key] = (*key, joined[key][2] + count, kind, None)
        else:
            joined[key] = u, v, count, kind, ports
    return list(joined.values())
