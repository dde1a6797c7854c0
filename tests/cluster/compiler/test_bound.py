"""No schedule of ours is quicker than the bound, and the bound is what a person counts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.spec import GROQCHIP1
from cluster.compiler.bound import launch_bound, section_bound, step_bound
from cluster.compiler.launch import LaunchKind, decode_kind
from cluster.compiler.op_work import Share
from cluster.compiler.place import place
from cluster.compiler.stage_shape import compiled, ranks
from cluster.compiler.stages import partition
from cluster.compiler.wires import NO_NETWORK, Wires
from cluster.model.graph.gate import Gate
from cluster.model.graph.graph import Section
from cluster.model.graph.norm import Norm
from cluster.model.known import changed_model, known_model
from cluster.planning.timing import PlanTiming
from topology import parse

# wq 512, wk and wv 256 outputs, all of 2 blocks of 320 inputs; wo of 512 inputs, 2 blocks; gate and
# up 1280 outputs of 2 blocks; w_down 640 outputs of 4 blocks: columns of 320 lanes
COLUMNS = {"wq": 1024, "wk": 512, "wv": 512, "wo": 1280, "gate": 2560, "up": 2560, "down": 2560}
MODEL = changed_model(
    "tiny", num_hidden_layers=1, hidden_size=640, num_attention_heads=8, num_key_value_heads=4,
    head_dim=64, intermediate_size=1280, vocab_size=6400,
)  # fmt: skip
CACHED = 320 * 4 * 64 // 320  # columns of keys, and as many of values
PAIR = Wires(parse("node")).group((0, 1)).routes
REACH = {1: NO_NETWORK.reach, 2: PAIR.reach}


def bound_of(section, tp=1, weights="fp16", rows=1):
    share = Share(GROQCHIP1, ranks(MODEL, tp, weights, 320)[0], rows, 320)
    return section_bound(compiled(section, tp, weights), share, REACH[tp])


@pytest.mark.parametrize("weights, width", [("fp16", 2), ("int8", 1)])
def test_weights_and_caches_enter_the_arrays_over_32_streams(weights, width):
    """And come from 88 slices; caches are fp16 always."""
    vectors = sum(COLUMNS.values()) * width + 2 * CACHED * 2
    found = bound_of(MODEL.layers[0], weights=weights)
    assert found.array_ingest == vectors // 32
    assert found.sram == vectors // 88


def test_activations_come_on_the_streams_that_weights_leave():
    """Each of 32 rows meets each tile of 320 columns: 2 cycles of a pair of planes, 2 streams."""
    vectors, products = 2 * sum(COLUMNS.values()) + 4 * CACHED, list(COLUMNS.values())
    rows = [32 * columns // 320 for columns in products]
    heads = 2 * 32 * 8  # each of 8 heads meets its keys, then its values
    found = bound_of(MODEL.layers[0], rows=32)
    streams = vectors + sum(32 * columns * 2 // 320 for columns in products) + 2 * heads
    assert found.streams == streams // (2 * 32)
    assert found.array_ingest == (sum(rows) + heads) * (2 * 2) // 4 > vectors // 32


def test_two_ranks_exchange_what_they_have_once():
    """640 elements are two rows of four vectors; a cable carries one every so many cycles."""
    (hop,) = (hop for hop in PAIR.cables if hop.to_member == 1)
    found = bound_of(MODEL.layers[0], tp=2)
    assert found.links == 2 * 8 * hop.interval_cycles
    share = Share(GROQCHIP1, ranks(MODEL, 2, "fp16", 320)[0], 1, 320)
    alone = section_bound(compiled(MODEL.layers[0], 2, "fp16"), share, REACH[2])
    crossing = 47 + hop.latency_cycles + 4 + 47 + 8 * hop.interval_cycles + 4
    assert alone.latency > 2 * crossing


def test_what_the_two_farthest_exchange_passes_the_chips_between_them():
    """Two of them: a Receive, two positions to the SXM, a map of lanes, and two back to a port."""
    reach = Wires(parse("dragonfly:576")).group(tuple(range(16))).routes.reach
    assert reach.farthest_hops == 3
    share = Share(GROQCHIP1, ranks(MODEL, 2, "fp16", 320)[0], 1, 320)
    layer = compiled(MODEL.layers[0], 2, "fp16")
    near = reach._replace(farthest_hops=1)
    bounds = [section_bound(layer, share, one).latency for one in (near, reach)]
    assert bounds[1] - bounds[0] == 2 * 2 * (4 + 2 + 4 + 2)  # of two all-reduces


def test_the_longest_path_of_a_head_waits_for_its_weights():
    """Rounding, then all but two tiles of a side enter; 46 positions to the array and back; norm.

    6,400 columns of 2 blocks take 800 cycles, of which two tiles of 40 have entered before. The
    factor of the norm is there earlier, and multiplies the last sums.
    """
    columns, trip = 2 * 6400 * 2 // 32, 46 + 24 + 4 + 46
    assert bound_of(MODEL.head).latency == 4 + (columns - 2 * 40) + trip + 4
    assert bound_of(MODEL.head).cycles == bound_of(MODEL.head).latency


def test_a_gate_waits_for_the_weights_of_both_its_products():
    """Of 2 x 2,560 columns two tiles of a side were there before; then there is a sigmoid."""
    ops = MODEL.layers[0].ops
    first = max(n for n, op in enumerate(ops) if isinstance(op, Norm))
    last = next(n for n, op in enumerate(ops) if isinstance(op, Gate))
    found = bound_of(Section(ops[first].x, ops[first : last + 1]))
    columns = 2 * (COLUMNS["gate"] + COLUMNS["up"]) // 32
    assert found.latency == 4 + (columns - 2 * 40) + 120 + 40


def test_lanes_of_several_superlanes_meet_by_a_permute():
    share = Share(GROQCHIP1, ranks(MODEL, 1, "fp16", 320)[0], 1, 320)
    assert share.reduction == 9 * 4 + 2 * 45 + 24


def test_the_head_of_a_narrow_model_waits_for_its_norm():
    """A square, its sum by way of an array, a square root; then the factor meets the product."""
    tiny = known_model("tiny")
    share = Share(GROQCHIP1, ranks(tiny, 1, "fp16", 320)[0], 1, 320)
    found = section_bound(compiled(tiny.head, 1, "fp16"), share)
    assert found.latency == max(4 + 120, 4 + 120 + 16) + 4


models = st.fixed_dictionaries({
    "hidden_size": st.sampled_from([64, 320, 704]), "num_key_value_heads": st.sampled_from([2, 4]),
    "head_dim": st.sampled_from([16, 64]), "intermediate_size": st.sampled_from([96, 1000, 2000]),
    "vocab_size": st.sampled_from([128, 5000]),
})  # fmt: skip


kinds = st.sampled_from([LaunchKind(1, 640, 1), LaunchKind(7, 320, 0), LaunchKind(32, 640, 0)])


@settings(max_examples=8, deadline=None)
@given(models, st.sampled_from(["fp16", "int8"]), st.integers(1, 4), st.integers(1, 2), kinds)
def test_no_schedule_is_quicker_than_its_bound(keys, weights, tp, pp, kind):
    model, graph = changed_model("tiny", **keys, max_position_embeddings=700), parse("node")
    plan = partition(model, GROQCHIP1, tp, pp, 640, weights)
    timed = PlanTiming(plan, place(plan, graph, "node"), graph)
    start = timed.clocks.start_cycle if timed.clocks else 0
    bound = launch_bound(plan, timed.pipeline, kind, start)
    assert bound.cycles <= timed.launch(kind).cycles
    assert max(bound.array_ingest, bound.streams, bound.sram, bound.links) <= bound.latency


def test_a_pipeline_step_is_bounded_by_its_longest_stage():
    graph = parse("node")
    plan = partition(known_model("tiny"), GROQCHIP1, 2, 2, slots=2)
    timed, kind = PlanTiming(plan, place(plan, graph, "node"), graph), decode_kind(320)
    start = timed.clocks.start_cycle
    step = step_bound(plan, timed.pipeline, kind, start)
    whole = launch_bound(plan, timed.pipeline, kind, start)
    assert step.cycles < whole.cycles and step.cycles <= timed.steps.full_cycles(kind)
