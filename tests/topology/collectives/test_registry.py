"""Property tests over topologies x operations x algorithms x sizes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topology import FAMILIES, collective, parse
from topology.collectives import ALGORITHMS, OPERATIONS
from topology.errors import BadCollective

PAIRS = [(op, name) for op in OPERATIONS for name in ALGORITHMS[op]]
MIB = 1 << 20
SPECS = [
    *("node", "ring:2", "ring:7", "torus:3x4", "mesh:2x3", "hypercube:3", "hyperx:2x3", "full:5"),
    *("fattree:9", "lpx:16", "random:9:4:1", "dragonfly:16", "dragonfly:24", "dragonfly:40"),
]


def timed_or_none(operation, graph, num_bytes, name, chips=None, **more):
    if operation == "point_to_point":
        chips = (chips or sorted(graph))[:2]
    try:
        return collective(operation, graph, num_bytes, name, chips, **more)
    except BadCollective:
        return None  # an algorithm may say that a group is not for it, e.g. no power of two


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_every_algorithm_on_a_spread_group(example, verify, family):
    graph = example(family)
    chips = sorted(graph)[:: max(1, len(graph) // 8)][:9]
    ran = 0
    for operation, name in PAIRS:
        for num_bytes in (1, 5000):
            timed = timed_or_none(operation, graph, num_bytes, name, chips)
            if timed is not None:
                verify(timed)
                ran += 1
    assert ran > 30


@given(
    spec=st.sampled_from(SPECS),
    pair=st.sampled_from(PAIRS),
    num_bytes=st.one_of(st.integers(1, 2000), st.integers(1, MIB)),
    chunks=st.sampled_from([None, 1, 3]),
    unit=st.sampled_from([1, 1, 4]),
    profile=st.sampled_from(["ship", "isca22"]),
    seed=st.integers(0, 2**30),
)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_group_any_size_any_algorithm(
    verify, spec, pair, num_bytes, chunks, unit, profile, seed
):
    import numpy as np

    graph = parse(spec, None if spec.startswith("lpx") else profile)
    rng = np.random.default_rng(seed)
    chips = rng.permutation(len(graph))[: rng.integers(2, min(len(graph), 12) + 1)].tolist()
    operation, name = pair
    root = chips[-1] if operation in ("broadcast", "reduce") else None
    timed = timed_or_none(
        operation, graph, num_bytes, name, chips, root=root, chunks=chunks, unit_vectors=unit
    )
    if timed is not None:
        verify(timed)


@pytest.mark.parametrize("name", ALGORITHMS["all_reduce"])
def test_64_mib_on_three_chips(verify, name):
    timed = timed_or_none("all_reduce", parse("ring:3"), 64 * MIB, name)
    if timed is not None:
        verify(timed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_auto_is_as_fast_as_the_fastest(operation):
    graph = parse("dragonfly:24")
    best = collective(operation, graph, 20_000, chips=(0, 9) if "point" in operation else None)
    for name in ALGORITHMS[operation]:
        other = timed_or_none(operation, graph, 20_000, name, best.chips)
        assert other is None or best.cycles <= other.cycles


@pytest.mark.parametrize(("operation", "name"), PAIRS)
def test_released_and_slow_adders_are_waited_for(verify, operation, name):
    graph = parse("ring:4")
    more = {"release_cycles": (500, 0, 1234, 7), "add_cycles": 11}
    if operation == "point_to_point":
        more["release_cycles"] = (500, 500)
    timed = timed_or_none(operation, graph, 3000, name, **more)
    if timed is not None:
        verify(timed)
        assert timed.end_cycle >= 500


def test_bad_requests_are_refused():
    graph = parse("ring:4")
    for call in (
        lambda: collective("sum", graph, 1),
        lambda: collective("all_reduce", graph, 0),
        lambda: collective("all_reduce", graph, 1, chips=[1, 1]),
        lambda: collective("all_reduce", graph, 1, chips=[1]),
        lambda: collective("broadcast", graph, 1, root=9),
        lambda: collective("all_reduce", graph, 1, "sorcery"),
    ):
        with pytest.raises(BadCollective):
            call()
