"""Halving and doubling: log2(P) steps between ranks whose numbers differ in one bit.

Ranks beyond the largest power of two first add their buffer to a partner and get the result last
(Thakur, Rabenseifner, Gropp, 2005).
"""

import numpy as np

from topology.collectives.job import Job
from topology.collectives.messages import Draft, Messages
from topology.collectives.registry import algorithm
from topology.errors import BadCollective
from topology.fabric import Ints


@algorithm("halving-doubling", "all_reduce")
def halving_doubling(job: Job) -> Messages:
    """Swap and add halves, quarters, ... with ever nearer partners, then gather them back."""
    bits = job.ranks.bit_length() - 1
    core = 1 << bits
    draft = Draft(job, core)
    rank, extra = np.arange(core), np.arange(core, job.ranks)
    everything = np.zeros_like(extra)
    if len(extra):
        draft.send(extra, extra - core, everything, blocks=core, add=True)
    for bit in reversed(range(bits)):
        partner = rank ^ 1 << bit
        draft.send(rank, partner, _half(partner, bit), blocks=1 << bit, add=True)
    for bit in range(bits):
        draft.send(rank, rank ^ 1 << bit, _half(rank, bit), blocks=1 << bit)
    if len(extra):
        draft.send(extra - core, extra, everything, blocks=core)
    return draft.messages()


def _half(rank: Ints, bit: int) -> Ints:
    """Return the first block of the half that `rank` is responsible for after step `bit`."""
    return rank >> bit << bit


@algorithm("halving", "reduce_scatter")
def halving(job: Job) -> Messages:
    """The first half of halving-doubling; a power of two of ranks only, others go `direct`."""
    return _one_way(job)


@algorithm("doubling", "all_gather")
def doubling(job: Job) -> Messages:
    """The second half of halving-doubling; a power of two of ranks only."""
    return _one_way(job)


def _one_way(job: Job) -> Messages:
    bits = job.ranks.bit_length() - 1
    if job.ranks != 1 << bits:
        raise BadCollective(job.operation, f"{job.ranks} ranks are no power of two", "use direct")
    draft, rank = Draft(job, job.ranks), np.arange(job.ranks)
    scatter = job.operation == "reduce_scatter"
    for bit in reversed(range(bits)) if scatter else range(bits):
        partner = rank ^ 1 << bit
        block = _half(partner if scatter else rank, bit)
        draft.send(rank, partner, block, blocks=1 << bit, add=scatter)
    return draft.messages()
