"""A fat tree made of chips alone: every chip computes and is also a router."""

import networkx as nx

from topology.building import Cable, build
from topology.links import NO_OVERRIDES, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import family, integers


@family("fattree:N", "fattree:64", integers(1, 1))
def fattree(
    chips: int, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return a binary tree of `chips` chips (children of i: 2i + 1, 2i + 2), fatter to the root.

    A chip's uplink has as many cables as it has leaves below, as far as ports allow: a chip keeps
    at least as many ports for each child as remain when its own uplink is cabled.
    """
    if chips < 2:
        raise ValueError("a fat tree needs at least 2 chips")
    resolved = resolve(profile, overrides)
    limit = resolved.links_per_chip // resolved.link.count
    leaves = [0] * chips
    for chip in reversed(range(chips)):
        leaves[chip] = max(leaves[chip], 1)
        if chip:
            leaves[(chip - 1) // 2] += leaves[chip]
    up = [0] * chips
    cables: list[Cable] = []
    for chip in range(1, chips):
        parent = (chip - 1) // 2
        up[chip] = max(1, min(leaves[chip], (limit - up[parent]) // 2))
        # Ports: the uplink from 0 on, then the left child (odd id), then the right one.
        first = up[parent] if chip % 2 else up[parent] + up[chip - 1]
        cables.append((parent, chip, up[chip], "cable", (first, 0)))
    places = [((chip + 1).bit_length() - 1, chip) for chip in range(chips)]
    return build(f"fattree:{chips}", resolved, places, cables)
