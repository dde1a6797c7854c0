"""The kernels of encoders against the meaning of their ops, over sizes, on random data."""

import numpy as np
import pytest

from chip.kernels.attention_to_all import KEY_MASK
from cluster.encoders.encoding import key_mask
from cluster.model.graph.builder import Builder
from cluster.model.graph.values import Dim
from tests.cluster.sections import by_interpreter, on_chip

EPS = 1e-5


def rows(count, hidden, seed=0):
    """Rows whose mean is not zero."""
    drawn = np.random.default_rng([seed, count, hidden]).standard_normal((count, hidden))
    return (3 * drawn + 1).astype(np.float32)


def ffn_section(function, hidden, ffn, norm):
    """An FFN with a LayerNorm before or behind it."""
    b = Builder(Dim("hidden", hidden))
    x = b.norm(b.x, "norm", EPS, form="layer") if norm == "before" else b.x
    y = b.activation(b.linear(x, "up", Dim("ffn", ffn), bias=True), function)
    x = b.add(b.x, b.linear(y, "down", b.x.dims[0], bias=True))
    if norm == "behind":
        b.norm(x, "norm", EPS, form="layer")
    return b.section()


@pytest.mark.parametrize(("count", "hidden"), [(8, 64), (96, 384), (70, 768)])
def test_layer_norm(count, hidden):
    b = Builder(Dim("hidden", hidden))
    b.norm(b.x, "norm", EPS, form="layer")
    section, x = b.section(), rows(count, hidden)
    found, stage = on_chip(section, x)
    np.testing.assert_allclose(found, by_interpreter(section, x), 1e-4, 1e-5)
    assert stage.entry == "x1"  # one step of the residual stream, which ends in x0


@pytest.mark.parametrize(
    ("function", "count", "hidden", "ffn", "norm"),
    [
        ("gelu", 8, 64, 96, "before"),
        ("gelu_erf", 96, 384, 1000, "behind"),
        ("silu", 32, 64, 400, "before"),
        ("gelu_erf", 32, 768, 64, "behind"),
    ],
)
def test_ffn_with_layer_norm(function, count, hidden, ffn, norm):
    section, x = ffn_section(function, hidden, ffn, norm), rows(count, hidden)
    found, stage = on_chip(section, x)
    expected = by_interpreter(section, x)
    np.testing.assert_allclose(found, expected, 5e-3, 5e-3 * np.abs(expected).max())
    assert [step.what for step in stage.steps(count, 1, {})] == (
        ["layer"] if norm == "before" else ["enter", "layer"]
    )


@pytest.mark.parametrize("weights", ["int8", "int8-static"])
@pytest.mark.parametrize(
    ("function", "count", "ffn", "norm"),
    [("gelu", 96, 96, "behind"), ("gelu_erf", 32, 1000, "before"), ("silu", 8, 400, "behind")],
)
def test_ffn_in_int8(function, count, ffn, norm, weights):
    section, x = ffn_section(function, 64, ffn, norm), rows(count, 64)
    found, _ = on_chip(section, x, weights=weights)
    np.testing.assert_array_equal(found, by_interpreter(section, x, weights))


@pytest.mark.parametrize(
    ("heads", "head_dim", "count", "padding", "weights"),
    [
        (4, 16, 32, 0, "int8"),
        (12, 32, 64, 9, "fp16"),
        (12, 64, 128, 31, "int8"),
        (3, 104, 96, 1, "fp16"),
        (4, 16, 32, 0, "int8-static"),
        (12, 64, 128, 31, "int8-static"),
    ],
    ids=[
        "one row", "two rows", "parts, heads side by side", "heads that leave lanes free",
        "one row, fixed steps", "parts, heads side by side, fixed steps",
    ],
)  # fmt: skip
def test_attention_to_all_rows(heads, head_dim, count, padding, weights):
    b = Builder(Dim("hidden", 128))
    dims = Dim("heads", heads), Dim("head_dim", head_dim)
    q, k, v = (b.linear(b.x, name, *dims, bias=True) for name in ("wq", "wk", "wv"))
    y = b.attention(q, k, v, head_dim**-0.5, causal=False)
    b.norm(b.add(b.x, b.linear(y, "wo", b.x.dims[0], bias=True)), "norm", EPS, form="layer")
    section, x = b.section(), rows(count, 128) / 3

    def mask(stage):
        one = key_mask(count, stage.shape.ranks[0].heads, count - padding)
        return {name: one for name in KEY_MASK.values() if name in stage.memory.buffers}

    found, _ = on_chip(section, x, mask, weights=weights)
    real = slice(0, count - padding)
    expected = by_interpreter(section, x[real], weights)
    near = 5e-3 if weights == "fp16" else 0  # int8: bit for bit
    np.testing.assert_allclose(found[real], expected, near, near)
