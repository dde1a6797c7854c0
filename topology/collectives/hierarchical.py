"""Hierarchical exchange: inside each node, between nodes, inside each node again.

An exchange at one level leaves the group's sum on every chip of the group. It is built from
exchanges one level down: (1) every subgroup exchanges, so each of its chips has the subgroup's sum;
(2) chips with a cable to another subgroup send it there; (3) every subgroup exchanges what came in;
(4) each chip adds that to its own subgroup's sum. Sums may be rounded before they leave a node,
also those that stay behind, so that no chip has a better one. On a dragonfly of 33 all-to-all nodes
that is local, global, local: three hops for an all-reduce of everything (ISCA'22).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.errors import BadCollective
from topology.fabric import Ints

# Levels of packaging to try, fewest first; each step of one must be all-to-all over the one below.
_STACKS = ((), ("node",), ("rack",), ("node", "rack"))
_BLOCKS = 16  # stripes over parallel gateway cables; one vector each at least


@algorithm("hierarchical", "all_reduce", rounds=True)
def hierarchical(job: Job) -> Messages:
    """All-reduce by the exchange above, over the fewest packaging levels the graph allows."""
    for stack in _STACKS:
        levels = _levels(job, stack)
        if levels is not None and (not job.sums.narrow or any(map(_leaves_nodes, levels))):
            break
    else:
        problem = "'hierarchical' needs nodes that are all-to-all, and chips that are so in a node"
        raise BadCollective(job.operation, problem, "use auto")
    draft = Draft(job, max(1, min(job.chunks or _BLOCKS, job.vectors // job.unit_vectors)))
    slots = iter(range(1, 10_000))
    draft.result_slot = _exchange(draft, levels, 0, slots)
    return draft.messages()


@dataclass(frozen=True)
class _Level:
    """Gateways of one level: for each ordered pair of subgroups, a slice of (src, dst) ranks."""

    src: Ints
    dst: Ints
    first: Ints  # per pair
    count: Ints
    between_nodes: bool


def _exchange(draft: Draft, levels: list[_Level], slot: int, slots: Iterator[int]) -> int:
    """Exchange slot over `levels`; return the slot that holds the sum afterwards."""
    if not levels:
        return slot
    level = levels[-1]
    mine = _exchange(draft, levels[:-1], slot, slots)
    if level.between_nodes and draft.job.sums.narrow:
        whole, mine = mine, next(slots)
        draft.round_off(mine)
        draft.combine((whole,), mine)
    incoming = next(slots)
    block = np.tile(np.arange(draft.blocks), len(level.first))
    first, count = np.repeat(level.first, draft.blocks), np.repeat(level.count, draft.blocks)
    chosen = first + block % count
    src, dst = level.src[chosen], level.dst[chosen]
    draft.send(src, dst, block, add=True, src_slot=mine, dst_slot=incoming)
    others = _exchange(draft, levels[:-1], incoming, slots)
    out = next(slots)
    draft.combine((mine, others), out)
    return out


def _leaves_nodes(level: _Level) -> bool:
    return level.between_nodes and len(level.first) > 0


def _levels(job: Job, stack: tuple[str, ...]) -> list[_Level] | None:
    """Return the gateways of every level, or None if some two subgroups have no cable."""
    label = np.arange(job.ranks)
    levels: list[_Level] = []
    for attribute in (*stack, None):
        group = np.zeros(job.ranks, np.int64) if attribute is None else _labels(job, attribute)
        gateways = _gateways(job, label, group)
        if gateways is None:
            return None
        levels.append(_Level(*gateways, between_nodes=bool(levels) and stack[:1] == ("node",)))
        label = group
    return levels


def _labels(job: Job, attribute: str) -> Ints:
    of_chip = nx.get_node_attributes(job.graph, attribute)
    return np.unique([of_chip[chip] for chip in job.chips], return_inverse=True)[1]


def _gateways(job: Job, sub: Ints, group: Ints) -> tuple[Ints, Ints, Ints, Ints] | None:
    """Those between subgroups of each group, as in `_Level`; None where some two have none."""
    fabric = job.fabric
    rank = np.full(fabric.chips, -1, np.int64)
    rank[list(job.chips)] = np.arange(job.ranks)
    src, dst = rank[fabric.tail], rank[fabric.head]
    inside = (src >= 0) & (dst >= 0)
    src, dst = src[inside], dst[inside]
    across = (group[src] == group[dst]) & (sub[src] != sub[dst])
    src, dst = src[across], dst[across]
    pair = sub[src] * (int(sub.max()) + 1) + sub[dst]
    order = np.argsort(pair, kind="stable")
    pairs, first, count = np.unique(pair[order], return_index=True, return_counts=True)
    # A group of k subgroups needs all k (k - 1) ordered pairs; one with k = 1 needs none.
    members = np.unique(np.stack([group, sub]), axis=1)[0]
    sizes = np.unique(members, return_counts=True)[1]
    if len(pairs) != int((sizes * (sizes - 1)).sum()):
        return None
    return src[order], dst[order], first, count
