import dataclasses

import numpy as np
import pytest

from cluster.model.reference import Reference
from cluster.model.synthetic import TINY, tiny_weights

AWKWARD = dataclasses.replace(
    TINY, layers=1, hidden=48, heads=6, kv_heads=2, head_dim=10, ffn=70, vocab=33, tied_head=False
)


@pytest.mark.parametrize("spec", [TINY, AWKWARD])
def test_any_shape_runs(spec):
    output = Reference(tiny_weights(spec), context=16).generate([1, 2, 3], 8)
    assert len(output) == 8
    assert all(0 <= token < spec.vocab for token in output)


def test_equal_seeds_give_equal_weights_and_others_do_not():
    first, again, other = tiny_weights(), tiny_weights(), tiny_weights(seed=1)
    assert np.array_equal(first.layer(1).w_up, again.layer(1).w_up)
    assert not np.array_equal(first.layer(1).w_up, other.layer(1).w_up)
    assert not np.array_equal(first.layer(0).w_up, first.layer(1).w_up)


def test_head_is_the_embedding_when_tied():
    for spec in (TINY, AWKWARD):
        weights = tiny_weights(spec)
        same = np.array_equal(weights.head_rows(3, 5), weights.embedding_rows([3, 4]))
        assert same == spec.tied_head
