"""Collectives on chips: NumPy's bits, and cycles not far from the timetable's."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chip.kernels.collective import Compiler, Home
from chip.kernels.collective_items import Addition, Items, Span
from chip.program import Region
from chip.schedule import Buffer
from chip.spec import GROQCHIP1
from cluster.cli import lpu
from cluster.compiler.collectives import LAUNCH, lower_collective
from cluster.compiler.messages import ROW_VECTORS
from cluster.compiler.wires import Wires
from cluster.errors import BadValue
from cluster.runs import collective as runs
from topology import collective, parse
from topology.collectives import ALGORITHMS, OPERATIONS
from topology.errors import BadCollective

PAIRS = [(operation, name) for operation in OPERATIONS for name in ALGORITHMS[operation]]
SPECS = ["node", "ring:4", "ring:7", "mesh:2x2", "torus:3x3", "dragonfly:16"]


@given(
    spec=st.sampled_from(SPECS),
    pair=st.sampled_from(PAIRS),
    rows=st.integers(1, 12),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_chips_compute_the_bits_of_numpy(spec, pair, rows, seed):
    operation, name = pair
    graph = parse(spec)
    chips = None if operation != "point_to_point" else sorted(graph)[::-1][:2]
    try:
        timed = collective(operation, graph, 1280 * rows, name, chips, unit_vectors=ROW_VECTORS)
    except BadCollective:
        return
    assert runs.execute_collective(timed, seed).wrong_values == 0


@pytest.mark.parametrize("name", ["direct", "exchange", "ring"])
def test_messages_too_long_for_single_instructions_are_right_too(monkeypatch, name):
    monkeypatch.setattr("cluster.compiler.collectives.MOST_APART_ROWS", 0)
    timed = collective("all_reduce", parse("ring:3"), 30_000, name, unit_vectors=ROW_VECTORS)
    assert runs.execute_collective(timed).wrong_values == 0


@pytest.mark.parametrize("name", ["teams", "gates", "homes", "hierarchical"])
@pytest.mark.parametrize("rows", [5, 130])  # by themselves; in loops
def test_chips_round_sums_between_nodes_as_numpy_does(monkeypatch, name, rows):
    monkeypatch.setattr("cluster.compiler.collectives.APART_ROWS", 8)
    graph, unit = parse("dragonfly:16"), ROW_VECTORS
    timed = collective(
        "all_reduce", graph, 1280 * rows, name, unit_vectors=unit, sums_between="fp16"
    )
    assert runs.execute_collective(timed).wrong_values == 0


def test_short_messages_that_take_the_first_rows_of_long_ones_wait_for_their_end(monkeypatch):
    """Packets are handed on message by message: else a reply could end before what it answers."""
    monkeypatch.setattr("cluster.compiler.collectives.APART_ROWS", 19)
    timed = collective(
        "all_reduce", parse("ring:7"), 32 * 1280, "halving-doubling", unit_vectors=ROW_VECTORS
    )
    assert runs.execute_collective(timed).wrong_values == 0


@pytest.mark.parametrize(("operation", "name"), PAIRS)
def test_32_kib_on_a_node_take_at_most_half_as_long_again_as_the_timetable_says(operation, name):
    graph = parse("node")
    chips = (0, 5) if operation == "point_to_point" else None
    try:
        timed = collective(operation, graph, 32 << 10, name, chips, unit_vectors=ROW_VECTORS)
    except BadCollective:
        return
    launch = lower_collective(timed, Wires(graph), GROQCHIP1).launches[LAUNCH]
    assert max(launch.end_cycles.values()) <= 1.5 * timed.cycles


def test_a_long_copy_within_the_same_slices_reads_and_writes_by_turns():
    home = Home(((0, Buffer("x", Region(16, 0, 200, "f32"))),))
    copy = Addition(0, Span(0, 0, 64), (Span(0, 64, 64),), 0, ())
    plan = Compiler(GROQCHIP1, {0: home}, ()).compile(Items((copy,)))
    assert 64 < plan.end_cycle < 64 * GROQCHIP1.barrier_cycles


@pytest.mark.soak
@pytest.mark.parametrize("kib", [28, 48, 100, 256, 1024])
@pytest.mark.parametrize(
    ("spec", "ratio"), [("node", 1.5), ("dragonfly:16", 1.4), ("dragonfly:32", 1.4)]
)
def test_all_reduces_of_every_size_are_near_the_timetable(spec, ratio, kib):
    timed = collective("all_reduce", parse(spec), kib << 10, unit_vectors=ROW_VECTORS)
    launch = lower_collective(timed, Wires(timed.graph), GROQCHIP1).launches[LAUNCH]
    assert max(launch.end_cycles.values()) <= ratio * timed.cycles


@pytest.mark.soak
@pytest.mark.parametrize("num_bytes", [320, 32 << 10, 256 << 10])
@pytest.mark.parametrize("spec", ["node", "ring:7", "torus:3x3", "dragonfly:16"])
@pytest.mark.parametrize(("operation", "name"), PAIRS)
def test_every_algorithm_on_every_kind_of_topology_and_size(operation, name, spec, num_bytes):
    graph = parse(spec)
    chips = sorted(graph)[::-1][:2] if operation == "point_to_point" else None
    try:
        timed = collective(operation, graph, num_bytes, name, chips, unit_vectors=ROW_VECTORS)
    except BadCollective:
        return
    assert runs.execute_collective(timed).wrong_values == 0


def call(*args):
    return CliRunner().invoke(lpu, ["collective", *args], catch_exceptions=False)


def test_the_command_prints_both_times_and_what_it_padded():
    result = call("all_reduce", "--topology", "ring:3", "--bytes", "5000", "--execute", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["padded_bytes"] == 5120
    assert report["cycles"] < report["executed_cycles"] < 2 * report["cycles"]


def test_bits_that_differ_are_an_exit_code(monkeypatch):
    monkeypatch.setattr(runs, "execute", lambda _, inputs: np.nextafter(inputs, 9))
    result = call("all_reduce", "--topology", "ring:2", "--bytes", "1280", "--execute", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["wrong_values"] > 0


def test_links_of_other_vectors_are_refused():
    graph = parse("ring:3", overrides={"payload_bytes": 64, "bytes_per_vector_wire": 64})
    with pytest.raises(BadValue, match="320-byte vectors"):
        runs.execute_collective(collective("all_reduce", graph, 640))
