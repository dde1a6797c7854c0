from fractions import Fraction

import numpy as np
import pytest

from topology import all_reduce, parse
from topology.collectives.rings import ring_order
from topology.fabric import compiled

MIB = 1 << 20
# The reference simulator's link: 50 GiB/s, 500 ns per hop plus 10 ns at the endpoint. One cycle is
# 1 ns; small vectors, because its messages are not cut into vectors of 320 bytes.
REFERENCE = {
    "clock_hz": 10**9,
    "payload_bytes": 64,
    "bytes_per_vector_wire": 64,
    "cycles_per_vector": Fraction(64 * 10**9, 50 * 2**30),
    "latency_cycles": 510,
}


@pytest.mark.parametrize(("chips", "reference_ns"), [(8, 64_440), (64, 296_896), (256, 1_079_200)])
def test_the_stepwise_ring_agrees_with_the_reference_simulator(chips, reference_ns):
    """ASTRA-sim 2.0, analytical: all-reduce of 1 MiB per chip, 4 chunks one after another."""
    graph = parse(f"ring:{chips}", overrides=REFERENCE)
    stepwise = all_reduce(graph, MIB, "ring-stepwise", chunks=4)
    assert stepwise.cycles == pytest.approx(reference_ns, rel=0.03)
    pipelined = all_reduce(graph, MIB, "ring")
    assert pipelined.cycles < 0.3 * reference_ns


@pytest.mark.slow
def test_1024_chips_agree_too():
    graph = parse("ring:1024", overrides=REFERENCE)
    stepwise = all_reduce(graph, MIB, "ring-stepwise", chunks=4)
    stepwise.check()
    assert stepwise.cycles == pytest.approx(4_206_616, rel=0.03)


@pytest.mark.parametrize("spec", ["ring:9", "node", "torus:4x4", "mesh:2x5", "hypercube:4"])
def test_the_order_walks_along_links_where_it_can(spec):
    graph = parse(spec)
    order = ring_order(compiled(graph), tuple(range(len(graph))))
    assert sorted(order.tolist()) == list(range(len(graph)))
    linked = sum(graph.has_edge(u, v) for u, v in zip(order, np.roll(order, -1), strict=True))
    assert linked >= len(graph) - 1


def test_rings_along_the_axes_beat_one_ring_round_all():
    graph = parse("torus:4x8")
    assert all_reduce(graph, 3200, "dimension").cycles < all_reduce(graph, 3200, "ring").cycles
