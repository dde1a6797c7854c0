"""Quantised and sharded graphs mean what the graph meant, for all shapes and degrees."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.compiler.quantise import check_quantised, quantise
from cluster.compiler.shard import shard
from cluster.model.graph.builder import Builder
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.graph import Section
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import NormBySum, SquareSum
from cluster.model.graph.op import GraphError, Spread
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.shares import Shares
from cluster.model.graph.values import Dim
from cluster.model.reference import Reference
from tests.cluster.model.graphs import EPS, Shape, layer, tiny_weights

IDS = [1, 5, 9, 20, 3]
HIDDEN = Dim("hidden", 32)


@st.composite
def shapes(draw) -> Shape:
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Shape(
        hidden=draw(st.integers(4, 80)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 12)),
        ffn=draw(st.integers(10, 90)),
        vocab=draw(st.integers(21, 60)),
        layers=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(["", "head", "all"])),
        norms_after=draw(st.booleans()),
        function=draw(st.sampled_from(["silu", "gelu"])),
    )


@given(shapes(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_sharded_graph_means_the_same(shape, data):
    weights = tiny_weights(shape)
    tp = data.draw(st.integers(1, shape.heads))
    whole, cut = Reference(weights, 16), Reference(weights, 16, tp)
    assert np.allclose(whole.rows(IDS), cut.rows(IDS), rtol=1e-3, atol=1e-4)
    assert np.allclose(whole.forward([7]), cut.forward([7]), rtol=1e-3, atol=1e-4)


@given(shapes(), st.data())
@settings(max_examples=30, deadline=None)
def test_int8_stays_near_float32_however_it_is_cut(shape, data):
    shape = replace(shape, hidden=64, head_dim=16, ffn=90)
    weights = tiny_weights(shape)
    tp = data.draw(st.integers(1, shape.heads))
    wanted = Reference(weights, 16, tp).rows(IDS)
    error = np.abs(Reference(weights, 16, tp, exact=True).rows(IDS) - wanted)
    assert np.sqrt(np.square(error).mean()) < 0.15 * np.sqrt(np.square(wanted).mean())


def test_rows_one_by_one_are_the_rows_of_one_launch():
    weights = tiny_weights(Shape(qk_norm="all"))
    for exact in (False, True):
        whole, steps = (Reference(weights, 16, 2, exact) for _ in range(2))
        one_by_one = np.stack([steps.forward([token]) for token in IDS])
        assert np.allclose(whole.rows(IDS), one_by_one, atol=1e-5)


# --- quantise -------------------------------------------------------------------------------
def test_a_norm_that_only_feeds_matrices_makes_int8_itself():
    before, after = (quantise(layer(Shape(norms_after=later))) for later in (False, True))
    assert [op.out.name for op in before.ops if isinstance(op, Quantise)] == [
        "mixed.i8",
        "gated.i8",
    ]
    assert [op.out.name for op in before.ops if op.out.dtype == "i8" and op.kind == "norm"] == [
        "attn_norm", "ffn_norm"]  # fmt: skip
    assert [op.out.name for op in after.ops if isinstance(op, Quantise)] == [
        "x.i8", "mixed.i8", "x1.i8", "gated.i8"]  # fmt: skip


def test_with_fixed_steps_each_input_of_matrices_is_rounded_by_a_weight():
    section = quantise(layer(Shape()), fixed=True)
    steps = {op.x.name: op.steps for op in section.ops if isinstance(op, Quantise)}
    assert list(steps) == ["attn_norm", "mixed", "ffn_norm", "gated"]
    made = {op.out.name: op.out.dims for op in section.ops}
    assert all(one.out == made[name] and not one.inner for name, one in steps.items())


def test_a_norm_that_also_feeds_an_addition_stays_float32():
    b = Builder(HIDDEN)
    h = b.norm(b.x, "norm", EPS)
    b.add(h, b.linear(h, "w", HIDDEN))
    assert [op.kind for op in quantise(b.section()).ops] == ["norm", "quantise", "linear", "add"]


def test_int8_reaches_matrices_and_nothing_else():
    b = Builder(HIDDEN)
    y = b.linear(b.x, "w", HIDDEN)
    b.add(b.x, y)
    section = b.section()
    with pytest.raises(GraphError, match=r"linear\(x\): x must be integers"):
        check_quantised(section)
    linear, addition = quantise(section).ops[1:]
    assert isinstance(linear, Linear)
    wrong = quantise(section).ops[0], linear, replace(addition, x=linear.x)
    with pytest.raises(GraphError, match=r"add\(x.i8, w\): x.i8 must not be integers"):
        check_quantised(Section(section.x, wrong))


# --- shard ----------------------------------------------------------------------------------
def test_summands_are_added_with_the_residual():
    cut = shard(layer(Shape()), 2)
    found = [(op.y.name, op.residual.name) for op in cut.section.ops if isinstance(op, AllReduce)]
    assert found == [("wo", "x"), ("w_down", "x1")]
    assert not any(op.kind == "add" for op in cut.section.ops)
    spreads = {op.out.name: cut.spread(op.out) for op in cut.section.ops}
    assert spreads["wq"] is spreads["mixed"] is spreads["gated"] is Spread.SPLIT
    assert spreads["wo"] is Spread.PARTIAL
    assert spreads["x1"] is spreads["attn_norm"] is Spread.WHOLE


def test_summands_that_are_normed_first_are_added_alone():
    cut = shard(layer(Shape(norms_after=True)), 2)
    found = [(op.y.name, op.residual) for op in cut.section.ops if isinstance(op, AllReduce)]
    assert found == [("wo", None), ("w_down", None)]


def test_a_norm_over_all_heads_adds_up_its_sums_of_squares():
    cut = shard(layer(Shape(qk_norm="all")), 3)
    kinds = [op.kind for op in cut.section.ops]
    at = kinds.index("square_sum")
    assert kinds[at : at + 3] == ["square_sum", "all_reduce", "norm_by_sum"]
    assert sum(isinstance(op, SquareSum | NormBySum) for op in cut.section.ops) == 4


def test_one_rank_has_the_graph_as_it_was():
    section = layer(Shape(qk_norm="all"))
    assert shard(section, 1).section == section


def test_heads_that_two_ranks_look_at_are_held_by_both_and_counted_once():
    kv, heads = Dim("kv_heads", 3), Dim("heads", 9)
    shares = Shares(4, ((kv, heads),))
    ranks = range(4)
    assert [list(shares.part(heads, rank).items) for rank in ranks] == [
        [0, 1, 2], [3, 4], [5, 6], [7, 8]]  # fmt: skip
    assert [shares.part(heads, rank).zeros for rank in ranks] == [0, 1, 1, 1]
    assert [list(shares.part(kv, rank).items) for rank in ranks] == [[0], [1], [1, 2], [2]]
    assert [shares.kv_of(heads, kv, rank) for rank in ranks] == [
        (0, 0, 0), (0, 0, 0), (0, 1, 1), (0, 0, 0)]  # fmt: skip
    counted = [list(shares.part(kv, rank).items)[shares.counted(kv, rank)] for rank in ranks]
    assert counted == [[0], [1], [2], []]


@given(st.integers(1, 8), st.integers(1, 8), st.data())
@settings(deadline=None)
def test_every_head_is_held_and_counted_once(kv_heads, group, data):
    kv, heads = Dim("kv_heads", kv_heads), Dim("heads", kv_heads * group)
    tp = data.draw(st.integers(1, heads.size))
    shares = Shares(tp, ((kv, heads),))
    parts = [shares.part(heads, rank) for rank in range(tp)]
    assert [head for part in parts for head in part.items] == list(range(heads.size))
    assert len({len(part) for part in parts}) == 1
    counted = [list(shares.part(kv, rank).items)[shares.counted(kv, rank)] for rank in range(tp)]
    assert sorted(head for mine in counted for head in mine) == list(range(kv_heads))


BROKEN = {
    "both its inputs and its outputs": lambda b: b.linear(
        b.linear(b.x, "a", Dim("ffn", 8)), "b", Dim("vocab", 8)),
    "its mean runs over what ranks share": lambda b: b.norm(
        b.linear(b.x, "a", Dim("ffn", 8)), "norm", EPS, form="layer"),
    "cannot share 3 ffn": lambda b: b.linear(b.x, "a", Dim("ffn", 3)),
    "not the first dimension": lambda b: b.linear(b.x, "a", Dim("head_dim", 8), Dim("heads", 4)),
}  # fmt: skip


@pytest.mark.parametrize("rule", BROKEN)
def test_what_cannot_be_cut_is_refused(rule):
    builder = Builder(HIDDEN)
    BROKEN[rule](builder)
    with pytest.raises(GraphError, match=rule):
        shard(builder.section(), 4)


def test_a_sharded_graph_without_its_sums_is_refused():
    cut = shard(layer(Shape(norms_after=True)), 2)
    ops = list(cut.section.ops)
    at = next(number for number, op in enumerate(ops) if isinstance(op, AllReduce))
    summed = ops.pop(at)
    ops[at] = ops[at].with_values({summed.out: summed.y})
    with pytest.raises(GraphError, match=r"norm\(wo\): its input must be summed up before"):
        replace(cut, section=replace(cut.section, ops=tuple(ops))).check()


def test_a_norm_of_a_share_is_refused():
    section = layer(Shape(qk_norm="all"))
    spreads = tuple((op.out.name, Spread.SPLIT) for op in section.ops[:3])
    cut = replace(shard(section, 2), section=Section(section.x, section.ops[:3]))
    with pytest.raises(GraphError, match="its mean runs over what ranks share"):
        replace(
            cut, spreads=(("x", Spread.WHOLE), ("attn_norm", Spread.WHOLE), *spreads[1:])
        ).check()
