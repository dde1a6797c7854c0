"""One graph of every registered family, and a numeric check of collectives."""

from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from topology import Collective, parse
from topology.collectives import defined, execute, expected
from topology.registry import FAMILIES


@pytest.fixture(scope="session")
def user_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GraphML file as a user would write it: odd names, one slow link, one double cable."""
    path = tmp_path_factory.mktemp("graphs") / "user.graphml"
    graph = nx.petersen_graph()
    graph = nx.relabel_nodes(graph, {i: f"chip-{i}" for i in graph})
    graph.edges["chip-0", "chip-1"].update(latency_cycles=400, cycles_per_vector="81/2")
    graph.edges["chip-2", "chip-3"]["count"] = 2
    nx.write_graphml(graph, path)
    return path


@pytest.fixture(scope="session")
def example(user_graph: Path) -> Callable[[str], nx.Graph]:
    """Build the example graph of a family by its name; each is built once."""
    built: dict[str, nx.Graph] = {}

    def build(family: str) -> nx.Graph:
        if family not in built:
            spec = f"file:{user_graph}" if family == "file" else FAMILIES[family].example
            built[family] = parse(spec)
        return built[family]

    return build


@pytest.fixture(scope="session")
def verify() -> Callable[[Collective], None]:
    """Check a collective on integers: data, causality, contention, lower bound, conservation."""

    def check(timed: Collective) -> None:
        timed.check()
        assert timed.cycles >= timed.lower_bound_cycles > 0
        rng = np.random.default_rng(timed.bytes)
        inputs = rng.integers(-(2**40), 2**40, (len(timed.chips), timed.vectors, 1))
        where = defined(timed)
        found = execute(timed, inputs)[where]
        np.testing.assert_array_equal(found, expected(timed, inputs)[where])

    return check
