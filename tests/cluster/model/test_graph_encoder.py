"""An encoder as a graph, against the formulas of the paper written down once more."""

import numpy as np
from scipy.special import erf

from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Embedding, Model
from cluster.model.graph.values import Dim, Weight
from cluster.model.reference import Reference
from tests.cluster.model.graphs import RandomWeights

HEADS, WIDTH, FFN, VOCAB, EPS = 4, 8, 48, 60, 1e-12
IDS = [5, 3, 59, 3, 17, 20, 1]


def encoder(layers: int = 2) -> Model:
    """Norms after attention and FFN, GELU with erf, a mean of length 1 at the end."""
    hidden, heads = Dim("hidden", HEADS * WIDTH), Dim("heads", HEADS)
    head_dim, ffn = Dim("head_dim", WIDTH), Dim("ffn", FFN)
    b = Builder(hidden)
    q, k, v = (b.linear(b.x, name, heads, head_dim, bias=True) for name in ("wq", "wk", "wv"))
    y = b.linear(b.attention(q, k, v, WIDTH**-0.5, causal=False), "wo", hidden, bias=True)
    x = b.norm(b.add(b.x, y), "attn_norm", EPS, form="layer")
    inner = b.activation(b.linear(x, "w_up", ffn, bias=True), "gelu_erf")
    b.norm(b.add(x, b.linear(inner, "w_down", hidden, bias=True)), "ffn_norm", EPS, form="layer")
    opening, head = Builder(hidden), Builder(hidden)
    opening.norm(opening.x, "embedding_norm", EPS, form="layer")
    head.pool(head.x)
    table = Embedding(Weight("embedding", (Dim("vocab", VOCAB),), (hidden,)))
    return Model(
        "encoder", "bert", hidden, VOCAB, 64, table, (b.section(),) * layers, head.section(),
        opening.section(),
    ).check()  # fmt: skip


def by_hand(weights: RandomWeights) -> np.ndarray:
    """Devlin et al. 2019, in float64."""

    def get(place, name, *shape):
        sizes = [Dim(str(n), n) for n in shape]
        found = weights.array(place, Weight(name, (sizes[0],), tuple(sizes[1:])))
        return found.astype(np.float64)

    def dense(x, place, name, rows):
        return x @ get(place, name, rows, x.shape[1]).T + get(place, f"{name}.bias", rows)

    def norm(x, place, name):
        spread = np.sqrt(x.var(axis=1, keepdims=True) + EPS)
        weight, bias = (get(place, n, x.shape[1]) for n in (name, f"{name}.bias"))
        return (x - x.mean(axis=1, keepdims=True)) / spread * weight + bias

    x = norm(weights.embedding_rows(IDS).astype(np.float64), "opening", "embedding_norm")
    for place in range(2):
        heads = [
            dense(x, place, name, HEADS * WIDTH).reshape(len(IDS), HEADS, WIDTH).swapaxes(0, 1)
            for name in ("wq", "wk", "wv")
        ]
        powers = np.exp(heads[0] @ heads[1].swapaxes(1, 2) / np.sqrt(WIDTH))
        mixed = powers / powers.sum(axis=2, keepdims=True) @ heads[2]
        mixed = mixed.swapaxes(0, 1).reshape(len(IDS), -1)
        x = norm(x + dense(mixed, place, "wo", HEADS * WIDTH), place, "attn_norm")
        inner = dense(x, place, "w_up", FFN)
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, place, "w_down", HEADS * WIDTH), place, "ffn_norm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_embeddings_follow_the_paper_on_any_number_of_ranks():
    weights = RandomWeights(encoder())
    for tp in (1, 2, 3, 4):
        found = Reference(weights, 64, tp).forward(IDS)
        np.testing.assert_allclose(found, by_hand(weights), atol=1e-5)


def test_int8_embeddings_point_the_same_way():
    weights = RandomWeights(encoder())
    found = Reference(weights, 64, 2, exact=True).forward(IDS)
    assert found @ by_hand(weights) > 0.998
    assert np.linalg.norm(found) == np.float32(1) or abs(np.linalg.norm(found) - 1) < 1e-6


def test_a_new_sequence_does_not_see_the_one_before():
    reference = Reference(RandomWeights(encoder()), 64)
    first = reference.forward(IDS)
    reference.reset()
    reference.forward([1, 2, 3])
    reference.reset()
    assert np.array_equal(reference.forward(IDS), first)
