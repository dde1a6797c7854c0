import numpy as np
import pytest

from topology import all_reduce, collective, parse


def test_a_binomial_broadcast_takes_log2_steps():
    timed = collective("broadcast", parse("full:16"), 320, "tree")
    assert timed.cycles == 4 * 270


@pytest.mark.parametrize("spec", ["torus:4x4", "hypercube:4", "random:20:4:1"])
def test_tiles_overlap_hops_with_transfer(spec):
    """A tiled tree is bound by bandwidth, not by hops times transfer."""
    graph = parse(spec)
    tiled = all_reduce(graph, 1 << 20, "tiled")
    binomial = all_reduce(graph, 1 << 20, "tree")
    assert tiled.cycles < 0.7 * binomial.cycles


def test_every_rank_but_the_root_sends_once_per_tile():
    timed = collective("reduce", parse("torus:3x5"), 320 * 50, "tiled", chunks=10)
    sent = np.bincount(np.concatenate([b.send.src for b in timed.batches]), minlength=15)
    assert sent.tolist() == [0] + [10] * 14
