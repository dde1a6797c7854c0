"""Direct algorithms: every chip talks to every other, over routes of any length.

`direct` shares the buffer out (one block per rank), so it moves the fewest bytes; `exchange` sends
the whole buffer to everybody, so it needs only one crossing of the network.
"""

import numpy as np

from topology.collectives.engine import Engine
from topology.collectives.job import Job
from topology.collectives.registry import algorithm
from topology.fabric import Ints


@algorithm("direct", "all_reduce", "reduce_scatter", "all_gather")
def direct(job: Job) -> Engine:
    """Rank j adds up block j of everybody, then (all-reduce, all-gather) hands it to everybody."""
    engine = Engine(job, job.ranks * job.stripes, shares=job.stripes)
    here, there, _ = _pairs(job.ranks, 1)
    # What is sent first is there from the start; of what comes last only the end counts.
    notes = not engine.may_skip_notes
    if job.operation != "all_gather":
        for stripe in range(job.stripes):
            engine.send(here, there, there * job.stripes + stripe, add=True, look=notes)
    if job.operation != "reduce_scatter":
        for stripe in range(job.stripes):
            engine.send(here, there, here * job.stripes + stripe, note=notes)
    return engine


@algorithm("exchange", "all_reduce")
def exchange(job: Job) -> Engine:
    """Everybody sends its whole buffer to everybody and adds what it gets."""
    engine = Engine(job, job.stripes)
    here, there, stripe = _pairs(job.ranks, job.stripes)
    engine.combine(0, None, 1)
    engine.send(here, there, stripe, add=True, dst_slot=1)
    engine.result_slot = 1
    return engine


@algorithm("direct", "all_to_all")
def all_to_all(job: Job) -> Engine:
    """Rank i's block j becomes rank j's block i (slot 1), nearest ranks first."""
    engine = Engine(job, job.ranks * job.stripes, shares=job.stripes, equal=True)
    here, there, stripe = _pairs(job.ranks, job.stripes)
    engine.combine(0, None, 1, own_block_only=True)
    engine.result_slot = 1
    engine.send(
        *(here, there, there * job.stripes + stripe),
        dst_slot=1,
        dst_block=here * job.stripes + stripe,
    )
    return engine


@algorithm("direct", "broadcast", "reduce", "point_to_point")
def star(job: Job) -> Engine:
    """The root sends its whole buffer to each other rank, or each sends its own to the root."""
    engine = Engine(job, job.stripes)
    others = np.delete(np.arange(job.ranks), job.root)
    stripe = np.tile(np.arange(job.stripes), len(others))
    others = np.repeat(others, job.stripes)
    root = np.full_like(others, job.root)
    if job.operation == "reduce":
        engine.send(others, root, stripe, add=True)
    else:
        engine.send(root, others, stripe)
    return engine


@algorithm("scatter", "broadcast")
def scatter(job: Job) -> Engine:
    """The root deals out blocks, one per rank; every rank hands its block to all others."""
    engine = Engine(job, job.ranks * job.stripes, shares=job.stripes)
    here, there, stripe = _pairs(job.ranks, job.stripes)
    block = here * job.stripes + stripe
    dealt = (here == job.root) & (there != job.root)
    engine.send(here[dealt], there[dealt], there[dealt] * job.stripes + stripe[dealt])
    passed = there != job.root
    engine.send(here[passed], there[passed], block[passed])
    return engine


def _pairs(ranks: int, stripes: int) -> tuple[Ints, Ints, Ints]:
    """Return all (rank, other rank, stripe), shift by shift so that no rank is a hot spot."""
    shift, here, stripe = np.meshgrid(
        np.arange(1, ranks), np.arange(ranks), np.arange(stripes), indexing="ij"
    )
    return here.ravel(), ((here + shift) % ranks).ravel(), stripe.ravel()
