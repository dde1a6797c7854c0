"""Direct algorithms: every chip talks to every other, over routes of any length.

`direct` shares the buffer out (one block per rank), so it moves the fewest bytes; `exchange` sends
the whole buffer to everybody, so it needs only one crossing of the network.
"""

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.fabric import Ints


@algorithm("direct", "all_reduce", "reduce_scatter", "all_gather")
def direct(job: Job) -> Messages:
    """Rank j adds up block j of everybody, then (all-reduce, all-gather) hands it to everybody."""
    draft = Draft(job, job.ranks * job.stripes, shares=job.stripes)
    here, there, _ = pairs(job.ranks, 1)
    adds, gathers = job.operation != "all_gather", job.operation != "reduce_scatter"
    draft.result_slot = slot = int(adds)
    # What is sent first is there from the start; of what comes last only the end counts.
    for stripe in range(job.stripes if adds else 0):
        draft.send(
            *(here, there, there * job.stripes + stripe),
            add=True,
            by_rank=True,
            onto=job.onto,
            dst_slot=slot,
            from_start=True,
        )
    for stripe in range(job.stripes if gathers else 0):
        block = here * job.stripes + stripe
        draft.send(here, there, block, src_slot=slot, dst_slot=slot, noted=False)
    return draft.messages()


@algorithm("exchange", "all_reduce")
def exchange(job: Job) -> Messages:
    """Everybody sends its whole buffer to everybody and adds up what it gets and has."""
    draft = Draft(job, job.stripes, result_slot=1)
    here, there, stripe = pairs(job.ranks, job.stripes)
    draft.send(here, there, stripe, add=True, by_rank=True, onto=job.onto, dst_slot=1)
    return draft.messages()


@algorithm("direct", "all_to_all")
def all_to_all(job: Job) -> Messages:
    """Rank i's block j becomes rank j's block i (slot 1), nearest ranks first."""
    draft = Draft(job, job.ranks * job.stripes, shares=job.stripes, equal=True, result_slot=1)
    here, there, stripe = pairs(job.ranks, job.stripes)
    draft.combine((0,), 1, own_block_only=True)
    draft.send(
        *(here, there, there * job.stripes + stripe),
        dst_slot=1,
        dst_block=here * job.stripes + stripe,
    )
    return draft.messages()


@algorithm("direct", "broadcast", "reduce", "point_to_point")
def star(job: Job) -> Messages:
    """The root sends its whole buffer to each other rank, or each sends its own to the root."""
    draft = Draft(job, job.stripes)
    others = np.delete(np.arange(job.ranks), job.root)
    stripe = np.tile(np.arange(job.stripes), len(others))
    others = np.repeat(others, job.stripes)
    root = np.full_like(others, job.root)
    if job.operation == "reduce":
        draft.send(others, root, stripe, add=True, by_rank=True)
    else:
        draft.send(root, others, stripe)
    return draft.messages()


@algorithm("scatter", "broadcast")
def scatter(job: Job) -> Messages:
    """The root deals out blocks, one per rank; every rank hands its block to all others."""
    draft = Draft(job, job.ranks * job.stripes, shares=job.stripes)
    here, there, stripe = pairs(job.ranks, job.stripes)
    block = here * job.stripes + stripe
    dealt = (here == job.root) & (there != job.root)
    draft.send(here[dealt], there[dealt], there[dealt] * job.stripes + stripe[dealt])
    passed = there != job.root
    draft.send(here[passed], there[passed], block[passed])
    return draft.messages()


def pairs(ranks: int, stripes: int) -> tuple[Ints, Ints, Ints]:
    """Return all (rank, other rank, stripe), shift by shift so that no rank is a hot spot."""
    shift, here, stripe = np.meshgrid(
        np.arange(1, ranks), np.arange(ranks), np.arange(stripes), indexing="ij"
    )
    return here.ravel(), ((here + shift) % ranks).ravel(), stripe.ravel()
