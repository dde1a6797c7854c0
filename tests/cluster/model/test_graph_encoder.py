"""An encoder as a graph, against the formulas of the paper written down once more."""

import numpy as np
from scipy.special import erf

from cluster.model.known import known_model
from cluster.model.reference import Reference
from cluster.model.weights.synthetic import SyntheticWeights

MODEL = known_model("tiny-encoder")
HEADS, HIDDEN, EPS = MODEL.size("heads"), MODEL.hidden.size, 1e-12
IDS = [5, 3, 59, 3, 17, 20, 1]


def by_hand() -> np.ndarray:
    """Devlin et al. 2019, in float64."""

    weights = SyntheticWeights(MODEL)

    def get(place, name):
        section = dict(MODEL.places)[place]
        (weight,) = (weight for weight in section.weights if weight.name == name)
        return weights.array(place, weight).astype(np.float64)

    def dense(x, place, name):
        return x @ get(place, name).T + get(place, f"{name}.bias")

    def norm(x, place, name):
        spread = np.sqrt(x.var(axis=1, keepdims=True) + EPS)
        weight, bias = get(place, name), get(place, f"{name}.bias")
        return (x - x.mean(axis=1, keepdims=True)) / spread * weight + bias

    x = norm(weights.embedding_rows(IDS).astype(np.float64), "opening", "embedding_norm")
    for place in range(len(MODEL.layers)):
        heads = [
            dense(x, place, name).reshape(len(IDS), HEADS, -1).swapaxes(0, 1)
            for name in ("wq", "wk", "wv")
        ]
        powers = np.exp(heads[0] @ heads[1].swapaxes(1, 2) / np.sqrt(HIDDEN / HEADS))
        mixed = powers / powers.sum(axis=2, keepdims=True) @ heads[2]
        mixed = mixed.swapaxes(0, 1).reshape(len(IDS), -1)
        x = norm(x + dense(mixed, place, "wo"), place, "attn_norm")
        inner = dense(x, place, "w_up")
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, place, "w_down"), place, "ffn_norm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_embeddings_follow_the_paper_on_any_number_of_ranks():
    weights = SyntheticWeights(MODEL)
    for tp in (1, 2, 3, 4):
        found = Reference(weights, 64, tp).forward(IDS)
        np.testing.assert_allclose(found, by_hand(), atol=1e-5)


def test_int8_embeddings_point_the_same_way():
    weights = SyntheticWeights(MODEL)
    found = Reference(weights, 64, 2, exact=True).forward(IDS)
    assert found @ by_hand() > 0.998
    assert np.linalg.norm(found) == np.float32(1) or abs(np.linalg.norm(found) - 1) < 1e-6


def test_a_new_sequence_does_not_see_the_one_before():
    reference = Reference(SyntheticWeights(MODEL), 64)
    first = reference.forward(IDS)
    reference.reset()
    reference.forward([1, 2, 3])
    reference.reset()
    assert np.array_equal(reference.forward(IDS), first)
