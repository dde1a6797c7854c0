import numpy as np
import pytest

from cluster.errors import ClusterError, PromptTooLong
from cluster.model.reference import Reference
from tests.cluster.model.graphs import tiny_weights

NEAR_TIE = 0.05


@pytest.fixture
def tiny() -> Reference:
    return Reference(tiny_weights(), context=32)


@pytest.mark.timeout(600)
def test_smollm2_gives_the_tokens_of_the_independent_implementation(
    smollm2_reference, smollm2_tokenizer, greedy_cases
):
    for case in greedy_cases:
        expected = case["output_ids"]
        (eos,) = smollm2_tokenizer.stop
        found = smollm2_reference.generate(case["prompt_ids"], len(expected), eos)
        margins = zip(found, expected, case["top1_margin"], strict=False)
        wrong = [margin for ours, theirs, margin in margins if ours != theirs]
        assert not wrong or wrong[0] < NEAR_TIE, case["prompt"]


def test_smollm2_gives_the_logits_of_the_independent_implementation(
    smollm2_reference, greedy_cases
):
    for case in greedy_cases:
        smollm2_reference.reset()
        logits = smollm2_reference.forward(case["prompt_ids"])
        for token, expected in case["first_step_top5"]:
            assert logits[token] == pytest.approx(expected, abs=2e-3)


def test_all_at_once_equals_one_by_one(tiny):
    ids = [5, 9, 2, 100, 7]
    whole = tiny.forward(ids)
    tiny.reset()
    single = [tiny.forward([token]) for token in ids][-1]
    assert np.allclose(whole, single, atol=1e-5)


def test_logits_depend_on_order_and_position(tiny):
    first = tiny.forward([3, 4, 5])
    tiny.reset()
    assert not np.allclose(first, tiny.forward([4, 3, 5]))
    tiny.reset()
    tiny.forward([9])
    assert not np.allclose(first, tiny.forward([3, 4, 5]))


def test_generation_stops_at_eos_and_includes_it(tiny):
    free = tiny.generate([1, 2], 6)
    assert tiny.generate([1, 2], 6, eos=free[2]) == free[: free.index(free[2]) + 1]


def test_a_full_cache_and_an_empty_prompt_are_refused(tiny):
    with pytest.raises(PromptTooLong, match=r"33 tokens .* context of 32"):
        tiny.forward([1] * 33)
    with pytest.raises(ClusterError, match="empty"):
        tiny.generate([], 3)
