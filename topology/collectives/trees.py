"""Tree algorithms: reduce towards a root, broadcast away from it.

`tree` is binomial over ranks. `tiled` follows the shortest paths of the graph: every tile of the
buffer has its own tree (its own root for all-reduce, reduce-scatter and all-gather), so tiles use
different links, and each is passed on vector by vector, so hops overlap with transfer.
"""

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.fabric import Fabric, Ints
from topology.routes import UNREACHED, distances_to, tree_hops

# Trees cost one message per chip and tile; more tiles than this add time to plan, hardly speed.
MAX_TREE_EDGES = 400_000


@algorithm("tree", "all_reduce", "broadcast", "reduce")
def tree(job: Job) -> Messages:
    """Binomial tree over ranks counted from the root: log2(P) steps each way."""
    draft = Draft(job, job.stripes)
    bits = (job.ranks - 1).bit_length()
    if job.operation != "broadcast":
        for bit in range(bits):
            child = np.arange(1 << bit, job.ranks, 2 << bit)
            _tree_step(draft, child, child - (1 << bit), True)
    if job.operation != "reduce":
        for bit in reversed(range(bits)):
            child = np.arange(1 << bit, job.ranks, 2 << bit)
            _tree_step(draft, child - (1 << bit), child, False)
    return draft.messages()


def _tree_step(draft: Draft, src: Ints, dst: Ints, add: bool) -> None:
    job = draft.job
    stripe = np.tile(np.arange(draft.blocks), len(src))
    src, dst = np.repeat(src, draft.blocks), np.repeat(dst, draft.blocks)
    draft.send((src + job.root) % job.ranks, (dst + job.root) % job.ranks, stripe, add=add)


@algorithm("tiled", "all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce")
def tiled(job: Job) -> Messages:
    """Shortest-path trees, one per tile, at once."""
    rooted = job.operation in ("broadcast", "reduce")
    if job.operation in ("reduce_scatter", "all_gather"):
        tiles = job.ranks * job.stripes
        roots = np.arange(tiles) // job.stripes
    else:
        wanted = job.chunks or max(job.stripes, 16 if rooted else job.ranks)
        units = job.vectors // job.unit_vectors
        tiles = max(1, min(wanted, units, MAX_TREE_EDGES // job.ranks))
        spread = np.arange(tiles) * job.ranks // tiles
        roots = np.full(tiles, job.root) if rooted else spread
    draft = Draft(job, tiles, shares=max(1, tiles // job.ranks))
    child, parent, tile, depth = _trees(job.fabric, np.array(job.chips), roots)
    levels = range(1, int(depth.max()) + 1)
    if job.operation not in ("all_gather", "broadcast"):
        for level in reversed(levels):
            at = depth == level
            draft.send(child[at], parent[at], tile[at], add=True)
    if job.operation not in ("reduce_scatter", "reduce"):
        for level in levels:
            at = depth == level
            draft.send(parent[at], child[at], tile[at])
    return draft.messages()


def _trees(fabric: Fabric, chips: Ints, roots: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Return (child rank, parent rank, tile, depth in hops) of one tree per tile.

    The parent is the first chip of the group on the way to the root: others only pass it through.
    """
    member = np.full(fabric.chips, -1, np.int64)
    member[chips] = np.arange(len(chips))
    tile, child = (a.ravel() for a in np.indices((len(roots), len(chips))))
    keep = child != roots[tile]
    tile, child = tile[keep], child[keep]
    target = chips[roots[tile]]
    nearness = distances_to(fabric, chips[np.unique(roots)])
    column = np.searchsorted(np.unique(roots), roots[tile])
    depth = nearness[column, chips[child]].astype(np.int64)
    assert (depth < UNREACHED).all()
    parent = np.full(len(child), -1, np.int64)
    open_, here = np.arange(len(child)), chips[child]
    while len(open_):
        here = tree_hops(fabric, nearness, column[open_], tile[open_], target[open_], here)
        parent[open_] = member[here]
        stray = parent[open_] < 0
        open_, here = open_[stray], here[stray]
    return child, parent, tile, depth
