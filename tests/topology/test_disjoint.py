"""Routes between two sets of chips that share no cable."""

from itertools import pairwise

import numpy as np
import pytest

from topology import parse
from topology.disjoint import DisjointRoutes
from topology.fabric import compiled
from topology.routes import paths

SHAPES = [
    ("dragonfly:10440", 64, 72),
    ("dragonfly:1296", 48, 72),
    ("dragonfly:576", 24, 24),
    ("dragonfly:72", 8, 8),
    ("dragonfly:16", 8, 8),
    ("torus:4x4x8", 8, 8),
    ("full:16", 8, 8),
    ("ring:6", 1, 3),
]


@pytest.mark.parametrize("spec, count, following", SHAPES)
def test_each_sink_is_reached_from_a_source_of_its_own_over_cables_of_its_own(
    spec, count, following
):
    fabric = compiled(parse(spec))
    sources = np.arange(count)
    sinks = sources + following
    found = DisjointRoutes(fabric).between(sources, sinks)
    assert found is not None
    routes = [fabric.channel_edge[channels].tolist() for channels in found]
    every = [channel for channels in found for channel in channels]
    assert len(set(every)) == len(every)
    for edges in routes:
        assert all(fabric.head[a] == fabric.tail[b] for a, b in pairwise(edges))
    assert sorted(fabric.tail[edges[0]] for edges in routes) == sources.tolist()
    assert [fabric.head[edges[-1]] for edges in routes] == sinks.tolist()
    every_pair = np.repeat(sources, count), np.tile(sinks, count)
    assert min(map(len, routes)) == paths(fabric, *every_pair).hops.min()


@pytest.mark.parametrize("spec, count", [("ring:24", 12), ("mesh:12x2", 10)])
def test_there_are_none_where_too_few_cables_lead_there(spec, count):
    sources = np.arange(count)
    assert DisjointRoutes(compiled(parse(spec))).between(sources, sources + count) is None
