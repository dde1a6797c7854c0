from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from topology import all_reduce, collective, execute, parse
from topology.collectives import ALGORITHMS
from topology.errors import CausalityError, LinkConflict


@pytest.mark.parametrize("name", ALGORITHMS["all_reduce"])
def test_bytes_are_conserved_on_every_link(name):
    timed = all_reduce(parse("dragonfly:16"), 9000, name)
    carried, balance = Counter(), Counter()
    for t in timed.transfers():
        for hop, cable in zip(pairwise(t.path), t.cables, strict=True):
            carried[(*hop, cable)] += t.vectors
        balance[t.src] -= t.vectors
        balance[t.dst] += t.vectors
    fabric = timed.fabric
    for channel, vectors in enumerate(timed.channel_vectors().tolist()):
        edge = fabric.channel_edge[channel]
        ends = int(fabric.tail[edge]), int(fabric.head[edge])
        assert carried[(*ends, channel - int(fabric.first_channel[edge]))] == vectors
        balance[ends[0]] += vectors
        balance[ends[1]] -= vectors
    # What a chip sends more than it passes on is its own, what it gets more stays there.
    assert set(balance.values()) == {0}


def test_the_timetable_of_a_collective_books_without_conflict():
    timed = all_reduce(parse("torus:3x3"), 20_000, "direct")
    table = timed.timetable()
    assert table.end_cycle <= timed.end_cycle
    assert sum(run.vectors for *_, run in table.runs()) == timed.channel_vectors().sum()


def test_node_all_reduce_is_two_hops_and_its_transfers():
    """Eight chips, one vector per share: a vector each way on each link, twice."""
    timed = all_reduce(parse("node"), 8 * 320, "direct")
    assert timed.cycles == 2 * 270 and timed.message_count == 2 * 56
    first = next(timed.transfers())
    assert (first.start_cycle, first.arrival_cycle, first.add) == (0, 270, True)


def test_overlapping_runs_are_found():
    timed = all_reduce(parse("ring:4"), 100_000, "direct")
    bad = [replace(b, start_cycle=np.zeros_like(b.start_cycle)) for b in timed.batches]
    with pytest.raises(LinkConflict):
        replace(timed, steps=bad).check()


@pytest.mark.parametrize("name", ["ring", "tiled", "direct", "halving-doubling"])
def test_sending_early_is_found(name):
    timed = all_reduce(parse("ring:4"), 4 * 320, name)
    last = timed.batches[-1]
    early = replace(last, start_cycle=last.start_cycle - 1)
    hurried = replace(timed, steps=[*timed.steps[:-1], early])
    with pytest.raises(CausalityError):
        execute(hurried, np.ones((4, timed.vectors, 1), np.int64))


def test_bandwidth_figures():
    timed = collective("all_gather", parse("ring:4"), 32_000)
    assert timed.busbw_bytes_per_s == pytest.approx(timed.algbw_bytes_per_s * 3 / 4)
    assert timed.seconds == timed.cycles / 900e6
    assert timed.link_utilisation()["max"] <= 1
