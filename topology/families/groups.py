"""Groups of nodes wider than a rack, in a ring: for pipelines whose stages take so many chips.

As in a rack of a dragonfly (ISCA'22), half of a chip's four global links stay inside, where all
nodes of 8 are joined, and half leave. As in a QuadFour (SHIP), those that leave go to neighbours of
a ring: one to the chip in the same place of the group ahead, one of the group behind. ASSUMPTIONS:
no such system is published; of the links inside each node has one left, and these lead to groups
farther on, so that no two clocks are many links apart.
"""

from collections.abc import Iterator

import networkx as nx

from topology.building import Cable, build, in_nodes_of
from topology.families.dragonflies import (
    GLOBAL_PORTS,
    LEAVING_PORTS,
    LOCAL_PORTS,
    merged,
    node_cables,
    one_level_cables,
)
from topology.families.graphs import NODE_CHIPS
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import family, integers

INSIDE_PORTS = (GLOBAL_PORTS - LEAVING_PORTS) * NODE_CHIPS - 1  # of a node, and one that leads on
MOST_NODES = INSIDE_PORTS + 1
WIDEST_GROUP = MOST_NODES * NODE_CHIPS
AHEAD, BEHIND = LOCAL_PORTS + GLOBAL_PORTS - LEAVING_PORTS, LOCAL_PORTS + GLOBAL_PORTS - 1
FARTHER = 8  # groups


@family("groups:N:G", "groups:384:128", integers(2, 2))
def groups(
    chips: int, group_chips: int, profile: str | Profile = "ship",
    overrides: Overrides = NO_OVERRIDES,
) -> nx.Graph:  # fmt: skip
    """Return a ring of groups of `group_chips` chips, 16 to 128 of them in whole nodes."""
    if group_chips % NODE_CHIPS or not 2 * NODE_CHIPS <= group_chips <= WIDEST_GROUP:
        raise ValueError(f"groups have whole nodes of 8, from 16 chips to {WIDEST_GROUP}")
    if chips % group_chips or chips < 2 * group_chips:
        raise ValueError(f"chips come in groups of {group_chips}, two at least")
    resolved, count, nodes = resolve(profile, overrides), chips // group_chips, group_chips // 8
    each = INSIDE_PORTS // (nodes - 1)
    inside = (
        cable for group in range(count) for cable in one_level_cables(nodes, each, group * nodes)
    )
    cables = [*node_cables(count * nodes), *inside, *_ring(count, group_chips)]
    cables += _farther(count, nodes)
    places = [
        (chip // group_chips, chip % group_chips // NODE_CHIPS, chip % NODE_CHIPS)
        for chip in range(chips)
    ]
    packaging = in_nodes_of(NODE_CHIPS, nodes)
    name = f"groups:{chips}:{group_chips}"
    return build(name, resolved, places, merged(cables), packaging, resolved.ports_per_chip)


def _ring(count: int, group_chips: int) -> Iterator[Cable]:
    """Yield a cable from each chip to the one in its place in the next group."""
    for group in range(count if count > 2 else 1):
        ahead = (group + 1) % count
        for place in range(group_chips):
            ends = group * group_chips + place, ahead * group_chips + place
            yield *ends, 1, "optical", (AHEAD, BEHIND)


def _farther(count: int, nodes: int) -> Iterator[Cable]:
    """Yield cables from the first half of a group's nodes to the other half of one farther on."""
    port = LOCAL_PORTS + INSIDE_PORTS // NODE_CHIPS
    for group in range(count if count > 2 * FARTHER else 0):
        onward = (group + FARTHER) % count
        for node in range(nodes // 2):
            here = (group * nodes + node + 1) * NODE_CHIPS - 1
            there = (onward * nodes + node + nodes // 2 + 1) * NODE_CHIPS - 1
            yield here, there, 1, "optical", (port, port)
