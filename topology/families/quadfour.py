"""QuadFour, the LPU v1 serving topology (SHIP, MLSys 2026): a ring of nodes with long reach.

Each node (8 chips, all-to-all) sends its 32 external cables to its 4 nodes ahead and 4 behind, 4
cables each, so 3 consecutive dead nodes do not cut the ring. Which chip holds which cable is not
published. ASSUMPTION: the 4 cables to one neighbour node are the 4 global ports of one chip; this
gives both published diameters (72 chips: 3 hops, 136 chips: 5 hops), spreading them over 4 chips
would give 3 and 4.
"""

from collections.abc import Iterator

import networkx as nx

from topology.building import Cable, build, in_nodes_of
from topology.families.dragonflies import LOCAL_PORTS, node_cables
from topology.families.graphs import NODE_CHIPS
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import family, integers

REACH = 4  # nodes ahead, and as many behind
CABLES = 4  # to each of them


@family("quadfour:N", "quadfour:72", integers(1, 1))
def quadfour(
    chips: int, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return a QuadFour of `chips` chips: a multiple of 8, at least 9 nodes = 72 chips."""
    nodes = chips // NODE_CHIPS
    if chips % NODE_CHIPS or nodes < 2 * REACH + 1:
        raise ValueError("chips come in nodes of 8, at least 9 nodes = 72 chips")
    resolved = resolve(profile, overrides)
    places = [(n, chip) for n in range(nodes) for chip in range(NODE_CHIPS)]
    cables = [*node_cables(nodes), *_external(nodes)]
    packaging = in_nodes_of(NODE_CHIPS)
    return build(f"quadfour:{chips}", resolved, places, cables, packaging, resolved.ports_per_chip)


def _external(nodes: int) -> Iterator[Cable]:
    for a in range(nodes):
        for ahead in range(1, REACH + 1):
            u = a * NODE_CHIPS + ahead - 1
            v = (a + ahead) % nodes * NODE_CHIPS + REACH + ahead - 1
            yield u, v, CABLES, "rack", (LOCAL_PORTS, LOCAL_PORTS)
