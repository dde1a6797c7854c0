import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ClusterError, ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.tokenizer import BpeTokenizer

LACKING = "\x04\x06\x13\x14\x16\x1d"  # no token of SmolLM2 spells these bytes


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer) -> BpeTokenizer:
    return smollm2_tokenizer


def test_prompts_and_texts_are_those_of_the_independent_implementation(tokenizer, greedy_cases):
    for case in greedy_cases:
        assert tokenizer.encode_prompt(case["prompt"], raw=case["raw"]) == case["prompt_ids"]
        assert tokenizer.decode(case["output_ids"]) == case["text"]


@settings(deadline=None)
@given(text=st.text(st.characters(max_codepoint=0x3FFFF, codec="utf-8")))
def test_text_comes_back_but_for_what_the_vocabulary_lacks(smollm2_tokenizer, text):
    kept = text.translate(dict.fromkeys(map(ord, LACKING)))
    assert smollm2_tokenizer.decode(smollm2_tokenizer.encode(text)) == kept


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 49151)))
def test_streamed_pieces_join_to_the_decoded_text(smollm2_tokenizer, ids):
    stream = smollm2_tokenizer.stream()
    pieces = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == smollm2_tokenizer.decode(ids)


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 49151)))
def test_decoding_equals_that_of_the_tokenizers_package(smollm2_tokenizer, ids):
    theirs = smollm2_tokenizer._tokenizer.decode(ids, skip_special_tokens=True)
    assert smollm2_tokenizer.decode(ids) == theirs


def test_streaming_never_gives_half_a_character(tokenizer):
    ids = tokenizer.encode("naïve 🦙 日本")
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in ids]
    assert "" in pieces, "this text should have a character of several tokens"
    assert not any("\ufffd" in piece for piece in pieces)


def test_digits_are_split_and_special_tokens_recognised(tokenizer):
    assert len(tokenizer.encode("2024")) == 4
    assert tokenizer.encode("<|im_end|>") == [tokenizer.eos]
    assert tokenizer.decode([tokenizer.bos, tokenizer.eos]) == ""


def test_bad_text_and_ids_are_refused(tokenizer):
    with pytest.raises(ClusterError, match="empty"):
        tokenizer.encode_prompt("", raw=True)
    with pytest.raises(ClusterError, match="not valid Unicode"):
        tokenizer.encode("\udcff")
    with pytest.raises(ClusterError, match="token 49152"):
        tokenizer.decode([49152])


def test_a_chat_template_comes_from_the_file(tiny_gguf):
    tokenizer = BpeTokenizer(GgufFile(tiny_gguf))
    assert tokenizer.has_chat_template
    assert tokenizer.render_chat([{"role": "user", "content": "hi"}]) == "[user]hi[assistant]"
    assert tokenizer.encode("the the")[1] == tokenizer.encode(" the")[0]


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no\nsystem role') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{% for %}",
    ],
)
def test_a_template_that_fails_or_pries_is_one_line(tiny_gguf, template):
    tokenizer = BpeTokenizer(GgufFile(tiny_gguf))
    tokenizer._template = template
    with pytest.raises(ModelError, match="chat template fails") as error:
        tokenizer.render_chat([])
    assert "\n" not in str(error.value)


def test_an_inconsistent_tokeniser_is_refused(write_gguf, tmp_path):
    path = write_gguf(tmp_path / "other.gguf", **{"tokenizer.ggml.eos_token_id": 999})
    with pytest.raises(ModelError, match="eos token 999"):
        BpeTokenizer(GgufFile(path))
