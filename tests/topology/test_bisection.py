from itertools import combinations

import pytest

from topology import parse
from topology.bisection import bisection
from topology.fabric import compiled

RATE = 320 * 900e6 / 27


@pytest.mark.parametrize(
    ("spec", "cables"),
    [
        *(("ring:16", 2), ("ring:64", 2), ("full:16", 64), ("torus:4x4", 8), ("torus:8x8", 16)),
        *(("mesh:8x8", 8), ("hypercube:6", 32), ("hypercube:4", 8), ("hyperx:4x4", 16)),
        *(("torus:8x8x8", 128), ("quadfour:576", 80), ("node", 16)),
    ],
)
def test_known_bisections_are_found(spec, cables):
    cut = bisection(parse(spec))
    assert cut.cables == cables and cut.bytes_per_s == pytest.approx(cables * RATE)
    assert abs(2 * cut.side.sum() - len(cut.side)) <= 1


@pytest.mark.parametrize(
    "spec", ["random:12:3:1", "random:14:5:2", "fattree:11", "mesh:3x4", "ring:7"]
)
def test_small_graphs_are_searched_exactly(spec):
    graph = parse(spec)
    cut = bisection(graph)

    def cables(half):
        return sum(
            d["link"].count for u, v, d in graph.edges(data=True) if (u in half) != (v in half)
        )

    chips = range(len(graph))
    assert cut.exact
    assert cut.cables == min(cables(set(half)) for half in combinations(chips, len(graph) // 2))


def test_the_spectral_bound_can_prove_a_large_cut():
    cut = bisection(parse("hypercube:6"))
    assert cut.exact and len(compiled(parse("hypercube:6")).alive) > 16
