import math

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import hypercube, hyperx, mesh, torus

dims = st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda d: math.prod(d) > 1)


@given(dims)
@settings(max_examples=20)
def test_a_mesh_is_a_grid(sizes):
    assert nx.is_isomorphic(mesh(tuple(sizes)), nx.grid_graph(sizes))


@given(dims)
@settings(max_examples=20)
def test_a_torus_is_a_product_of_cycles(sizes):
    oracle = nx.grid_graph([1])
    for size in sizes:
        line = nx.cycle_graph(size) if size > 2 else nx.path_graph(size)
        oracle = nx.cartesian_product(oracle, line)
    assert nx.is_isomorphic(torus(tuple(sizes)), oracle)


def test_a_2_by_5_torus_is_a_circular_ladder():
    assert nx.is_isomorphic(torus((2, 5)), nx.circular_ladder_graph(5))


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_a_hypercube_is_networkx_s(order):
    assert nx.is_isomorphic(hypercube(order), nx.hypercube_graph(order))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda d: math.prod(d) > 1))
@settings(max_examples=15)
def test_hyperx_is_a_product_of_complete_graphs(sizes):
    oracle = nx.complete_graph(1)
    for size in sizes:
        oracle = nx.cartesian_product(oracle, nx.complete_graph(size))
    assert nx.is_isomorphic(hyperx(tuple(sizes)), oracle)


def test_neighbours_differ_in_one_coordinate():
    graph = torus((4, 3, 5))
    for u, v in graph.edges:
        a, b = graph.nodes[u]["coordinates"], graph.nodes[v]["coordinates"]
        assert sum(x != y for x, y in zip(a, b, strict=True)) == 1
