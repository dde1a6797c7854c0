"""Every op of a graph has what an op must have, and refuses what it cannot be."""

import pkgutil
from importlib import import_module

import numpy as np
import pytest

from cluster.model import graph
from cluster.model.graph import linear, quantise, rotary
from cluster.model.graph.builder import Builder
from cluster.model.graph.gate import FUNCTIONS, activation, sigmoid
from cluster.model.graph.graph import Section
from cluster.model.graph.int8 import Int8Matrix, Int8Rows, integer_dot, lane_sum
from cluster.model.graph.op import OPS, GraphError, Op
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.values import Dim, Value, Weight

for module in pkgutil.iter_modules(graph.__path__):  # importing an op registers it
    import_module(f"{graph.__name__}.{module.name}")

HIDDEN, HEADS, KV = Dim("hidden", 32), Dim("heads", 4), Dim("kv_heads", 2)
HEAD_DIM, FFN = Dim("head_dim", 8), Dim("ffn", 48)


@pytest.mark.parametrize("kind", OPS)
def test_an_op_has_doc_shapes_meanings_and_a_rule_of_sharding(kind):
    op = OPS[kind]
    assert op.kind == kind
    assert op.__doc__ and not op.__doc__.startswith(f"{op.__name__}(")  # dataclass's own
    for name in ("check", "spread", "reference", "exact"):
        assert getattr(op, name) is not getattr(Op, name), name
        assert getattr(op, name).__doc__, name


def q_k_v(b: Builder, q: Dim = HEADS, k: Dim = KV, v: Dim = KV):
    dims = {"q": q, "k": k, "v": v}
    return [b.linear(b.x, f"w{name}", dim, HEAD_DIM) for name, dim in dims.items()]


ILLEGAL = {
    "linear.*takes": lambda b: b.linear(b.linear(b.x, "a", FFN), "b", HIDDEN) and b._add(
        "c", (FFN,), lambda out: linear.Linear(out, b.x, Weight("w", (FFN,), (FFN,)))),
    "not a multiple of 3": lambda b: b.attention(*q_k_v(b, HEADS, *[Dim("kv_heads", 3)] * 2), 1.0),
    "different heads": lambda b: b.attention(*q_k_v(b, HEADS, KV, HEADS), 1.0),
    "turns 6 of 8": lambda b: b.rotary(q_k_v(b)[0], RotaryTable(1e4, 6)),
    "is not one of": lambda b: b.gate(b.linear(b.x, "a", FFN), b.linear(b.x, "b", FFN), "relu"),
    "add.*dimensions differ": lambda b: b.add(b.x, b.linear(b.x, "a", FFN)),
    "eps is 0": lambda b: b.norm(b.x, "norm", 0.0),
    "made twice": lambda b: (b.linear(b.x, "a", FFN), b.linear(b.x, "a", FFN)),
    "nothing has made": lambda b: b.activation(Value("other", (FFN,)), "silu"),
    "must be integers": lambda b: b._add("i", (HIDDEN,), lambda out: quantise.Quantise(out, b.x)),
    "two shapes": lambda b: (b.linear(b.x, "a", FFN), b._add(
        "b", (HIDDEN,), lambda out: linear.Linear(out, b.x, Weight("a", (HIDDEN,), (HIDDEN,))))),
}  # fmt: skip


@pytest.mark.parametrize("rule", ILLEGAL)
def test_an_illegal_graph_names_the_op_and_the_rule(rule):
    builder = Builder(HIDDEN)
    ILLEGAL[rule](builder)
    with pytest.raises(GraphError, match=rule):
        builder.section()


def test_an_op_is_rewritten_over_other_values():
    builder = Builder(HIDDEN)
    builder.add(builder.x, builder.x)
    (op,) = builder.section().ops
    other = Value("other", (HIDDEN,))
    assert op.with_values({builder.x: other}).inputs == (other, other)
    assert Section(other, (op.with_values({builder.x: other}),)).check()


# --- rotary -----------------------------------------------------------------------------------
def test_adjacent_pairs_turn_as_halves_do_in_hugging_faces_order():
    width, rows = 6, 5
    cosine, sine = RotaryTable(1e4, width).turns(np.arange(rows))
    assert np.allclose(cosine + 1j * sine, np.exp(1j * np.outer(
        np.arange(rows), 1e4 ** (-np.arange(0, width, 2) / width))))  # fmt: skip
    halves = np.random.default_rng(0).standard_normal((rows, 2, width // 2), np.float32)
    low, high = halves[:, 0], halves[:, 1]
    turned = np.stack([low * cosine - high * sine, low * sine + high * cosine], axis=1)

    class Run:
        def turns(self, table):
            return table.turns(np.arange(rows))

    x = Value("x", (Dim("heads", 1), Dim("head_dim", width)))
    op = rotary.Rotary(Value("y", x.dims), x, RotaryTable(1e4, width))
    found = op.reference(Run(), halves.swapaxes(1, 2).reshape(rows, 1, width))
    assert np.allclose(found, turned.swapaxes(1, 2).reshape(rows, 1, width))


# --- arithmetic -----------------------------------------------------------------------------
def test_integer_sums_equal_int64():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-128, 128, (n, 3000)).astype(np.float32) for n in (3, 5))
    exact = a.astype(np.int64) @ b.astype(np.int64).T
    assert (integer_dot(a, b) == exact).all()


@pytest.mark.parametrize("total", [8, 64, 320, 576, 1000])
def test_the_order_of_a_sum_over_lanes_is_nearly_no_matter(total):
    rows = np.random.default_rng(total).standard_normal((3, total), np.float32) ** 2
    assert np.allclose(lane_sum(rows)[:, 0], rows.astype(np.float64).sum(axis=1), rtol=1e-6)


def test_weights_round_to_half_a_step():
    matrix = np.random.default_rng(1).standard_normal((20, 30), np.float32)
    matrix[3] = 0
    found = Int8Matrix.of(matrix)
    assert np.abs(found.integers * found.scales[:, None] - matrix).max() <= (
        found.scales.max() * 0.501
    )


def test_rows_round_to_half_a_step_and_zeros_stay():
    x = np.float32([[[1, 2], [300, 400]], [[0, 0], [0, 0]]])
    rows = Int8Rows.of(x)
    assert rows.integers[0].tolist() == [[0, 1], [95, 127]]
    assert not rows.integers[1].any()
    assert np.allclose(rows.steps[0], 400 / 127)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_activations_of_chips_are_those_of_the_papers(function):
    x = np.linspace(-8, 8, 400, dtype=np.float32)
    near = 6e-4 if function == "gelu_erf" else 1e-6  # chips take the tanh form
    assert np.abs(sigmoid(x, function) * x - activation(x, function)).max() < near
