"""Counts of a model against figures that are published or follow by hand."""

import pytest

from cluster.model.graph.counts import flops_per_row, kv_bytes_per_token, weight_bytes
from tests.cluster.model.graphs import Shape, decoder

# Llama-2-70B: Touvron et al. 2023, and the config.json published with it
LLAMA_2_70B = Shape(
    hidden=8192,
    heads=64,
    kv_heads=8,
    head_dim=128,
    ffn=28672,
    vocab=32000,
    layers=80,
    tied_head=False,
)


def test_the_70b_model_has_the_published_size():
    model = decoder(LLAMA_2_70B)
    assert model.parameters == pytest.approx(68.98e9, rel=1e-3)
    assert kv_bytes_per_token(model) == 80 * 2 * 8 * 128 * 2
    held = model.parameters - 32000 * 8192
    assert weight_bytes(model) == pytest.approx(2 * held, rel=1e-4)
    assert weight_bytes(model, "int8") == pytest.approx(held, rel=1e-3)
    assert flops_per_row(model, 0) == pytest.approx(2 * held, rel=1e-4)
    assert flops_per_row(model, 4096) - flops_per_row(model, 0) == 2 * 80 * 2 * 64 * 128 * 4096
