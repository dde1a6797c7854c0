import inspect
import json
import re
import shutil
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedTokenizerBase

from cluster.cli import main
from cluster.errors import ClusterError, ModelError
from cluster.model import gguf_tokenizer, stop_tokens, tokenizer_files
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_tokenizer import read_gguf_tokenizer
from cluster.model.hf_tokenizer import read_tokenizer
from cluster.model.tokenizer import TextTokenizer, fast_tokenizer_class
from cluster.model.tokenizer_files import check_tokenizer_files
from cluster.model.toy import ToyTokenizer

LACKING = "\x04\x06\x13\x14\x16\x1d"  # no token of SmolLM2 spells these bytes
DATA = Path(__file__).resolve().parents[2] / "data"
TWO_STOPS, CUT = DATA / "two-stop-tokens", DATA / "truncates-and-pads"
TEMPLATES = json.loads((DATA / "chat-templates.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer) -> TextTokenizer:
    return smollm2_tokenizer


def changed(source: Path, target: Path, **files: object) -> Path:
    """A copy of a folder with other contents for some files; None takes one away."""
    shutil.copytree(source, target)
    for name, content in files.items():
        path = target / name.replace("__", ".")
        if content is None:
            path.unlink()
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
    return target


# --- text to ids and back ---------------------------------------------------------------------
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


def test_streaming_never_gives_half_a_character(tokenizer):
    ids = tokenizer.encode("naïve 🦙 日本")
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in ids]
    assert "" in pieces, "this text should have a character of several tokens"
    assert not any("\ufffd" in piece for piece in pieces)


def test_digits_are_split_and_special_tokens_recognised(tokenizer):
    assert len(tokenizer.encode("2024")) == 4
    assert tokenizer.encode("<|im_end|>") == [*tokenizer.stop]
    assert tokenizer.decode([1, *tokenizer.stop]) == ""


@pytest.mark.parametrize("raw", [False, True])
def test_no_tokenizer_takes_invalid_unicode_or_nothing(tokenizer, raw):
    for one in (tokenizer, read_tokenizer(TWO_STOPS), ToyTokenizer()):
        with pytest.raises(ClusterError, match="not valid Unicode"):
            one.encode_prompt("a\udcff", raw=raw)
    with pytest.raises(ClusterError, match="empty"):
        tokenizer.encode_prompt("", raw=True)


# --- files of a folder ------------------------------------------------------------------------
def test_prompts_are_neither_cut_nor_filled_as_texts_of_training_are():
    golden = json.loads((CUT / "golden.json").read_text())
    ids = read_tokenizer(CUT).encode_prompt(golden["raw_prompt"], raw=True)
    assert ids == golden["prompt_ids"] and len(ids) > 8


def test_a_template_in_a_file_of_its_own_is_used():
    assert read_tokenizer(TWO_STOPS).encode_prompt("hello world") == [3, 318, 319, 4, 34]


def test_a_run_ends_at_any_stop_token_of_generation_config(capsys):
    golden = json.loads((TWO_STOPS / "golden.json").read_text())
    prompt, most = ",".join(map(str, golden["prompt_ids"])), str(golden["max_new_tokens"])
    command = ["run", str(TWO_STOPS), "--prompt-ids", prompt, "--max-new-tokens", most, "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["output_ids"] == golden["output_ids"]


def test_stop_tokens_are_the_union_of_what_the_files_name(tmp_path):
    def stop(name: str, **files: object) -> frozenset[int]:
        return read_tokenizer(changed(TWO_STOPS, tmp_path / name, **files)).stop

    assert stop("all") == {2, 176}
    config = json.loads((TWO_STOPS / "config.json").read_text())
    listed = config | {"eos_token_id": [7, 9]}
    assert stop("none", generation_config__json=None) == {2}
    assert stop("list", generation_config__json=None, config__json=listed) == {2, 7, 9}
    ids = {"tokenizer__json": None, "generation_config__json": None}
    assert stop("ids", config__json=listed, **ids) == {7, 9}
    assert stop("null", config__json=config | {"eos_token_id": None}, **ids) == set()


@pytest.mark.parametrize("eos", ["</s>", -1, True, [2, None], 1.5, {"id": 2}])
def test_an_eos_that_is_no_id_is_refused_by_name(eos, tmp_path):
    folder = changed(TWO_STOPS, tmp_path / "m", generation_config__json={"eos_token_id": eos})
    with pytest.raises(ModelError, match=r"generation_config.json: eos_token_id"):
        read_tokenizer(folder)


def test_every_generation_setting_is_used_harmless_or_refused_by_name(tmp_path):
    used, harmless, refused = stop_tokens.USED, stop_tokens.HARMLESS, set(stop_tokens.REFUSED)
    assert vars(GenerationConfig()).keys() <= used | harmless | refused
    assert not used & harmless and not (used | harmless) & refused
    path = tmp_path / "generation_config.json"
    for key in harmless:
        path.write_text(json.dumps({key: 3}))
        stop_tokens.stop_tokens(tmp_path)
    for key in [*refused, "num_beems"]:
        path.write_text(json.dumps({key: 3}))
        with pytest.raises(ModelError, match=f"'{key}'"):
            stop_tokens.stop_tokens(tmp_path)
        if key in refused:
            for value in [None, *stop_tokens.REFUSED[key]]:
                path.write_text(json.dumps({key: value}))
                stop_tokens.stop_tokens(tmp_path)


def test_every_tokenizer_setting_is_used_harmless_or_refused_by_name(tmp_path):
    """Public are the fields that the libraries write, and those that they read."""
    path = tmp_path / "tokenizer.json"
    public = json.loads(Tokenizer(models.BPE()).to_str()).keys()
    assert public == tokenizer_files.JSON_USED | tokenizer_files.JSON_HARMLESS
    for key in public:
        path.write_text(json.dumps({key: None}))
        check_tokenizer_files(tmp_path)
    path.write_text(json.dumps({"normaliser": {"type": "Lowercase"}}))
    with pytest.raises(ModelError, match=r"tokenizer.json: has the key 'normaliser'"):
        check_tokenizer_files(tmp_path)
    path.unlink()

    path = tmp_path / "tokenizer_config.json"
    lists = tokenizer_files.USED, tokenizer_files.HARMLESS, tokenizer_files.REFUSED.keys()
    assert sum(map(len, lists)) == len(set.union(*map(set, lists)))
    library = fast_tokenizer_class().from_pretrained(str(TWO_STOPS))
    public = library.init_kwargs.keys() | library.SPECIAL_TOKENS_ATTRIBUTES
    popped = re.findall(
        r'kwargs\.pop\("(\w+)"', inspect.getsource(PreTrainedTokenizerBase.__init__)
    )
    assert len(popped) > 10 and public | set(popped) <= set.union(*map(set, lists))
    for key in [*tokenizer_files.USED, *tokenizer_files.HARMLESS, "image_token"]:
        path.write_text(json.dumps({key: 1}))
        check_tokenizer_files(tmp_path)
    for key in [*tokenizer_files.REFUSED, "ad_bos_token_"]:
        path.write_text(json.dumps({key: True}))
        with pytest.raises(ModelError, match=f"tokenizer_config.json: .*'{key}'"):
            check_tokenizer_files(tmp_path)
        for value in (None, *tokenizer_files.REFUSED.get(key, ())):
            path.write_text(json.dumps({key: value}))
            check_tokenizer_files(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"x"', "\ufeff{}", "[" * 10**5])
@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_config", "generation_config"])
def test_a_damaged_file_beside_the_weights_is_named(name, text, tmp_path):
    folder = changed(TWO_STOPS, tmp_path / "m", **{f"{name}__json": text})
    with pytest.raises(ModelError, match=f"/{name}.json: ") as error:
        read_tokenizer(folder)
    assert "\n" not in str(error.value)


# --- chat templates ---------------------------------------------------------------------------
@pytest.mark.parametrize("case", TEMPLATES["cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_templates_met_in_the_wild_give_what_the_public_renderer_gives(
    case, kind, write_gguf, tmp_path
):
    if kind == "folder":
        folder = changed(TWO_STOPS, tmp_path / "m", chat_template__jinja=case["template"])
        tokenizer = read_tokenizer(folder)
    else:
        given = {"tokenizer.chat_template": case["template"]}
        tokenizer = read_gguf_tokenizer(GgufFile(write_gguf(tmp_path / "m.gguf", **given)))
    messages = [{"role": "user", "content": TEMPLATES["user_message"]}]
    if case["error"]:
        with pytest.raises(ModelError, match=case["right"].removeprefix("TemplateError: ")):
            tokenizer.render_chat(messages)
    elif case["name"] == "strftime":
        assert tokenizer.render_chat(messages).startswith("<|user|>20")
    else:
        assert tokenizer.render_chat(messages) == case["right"]


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
def test_a_template_that_fails_or_pries_is_one_line(write_gguf, tmp_path, template):
    path = write_gguf(tmp_path / "m.gguf", **{"tokenizer.chat_template": template})
    with pytest.raises(ModelError, match="chat template fails") as error:
        read_gguf_tokenizer(GgufFile(path)).render_chat([{"role": "user", "content": "x"}])
    assert "\n" not in str(error.value)


def test_named_templates_need_one_called_default(tmp_path):
    text = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}>"
    for first, works in (("default", True), ("rag", False)):
        named = [{"name": first, "template": text}, {"name": "tools", "template": "T"}]
        settings_ = json.loads((TWO_STOPS / "tokenizer_config.json").read_text())
        settings_ |= {"chat_template": named}
        files = {"chat_template__jinja": None, "tokenizer_config__json": settings_}
        tokenizer = read_tokenizer(changed(TWO_STOPS, tmp_path / first, **files))
        if works:
            assert tokenizer.encode_prompt("hello world") == [3, 318, 319, 4, 34]
        else:
            with pytest.raises(ModelError, match=r"rag.*tools.*; use --raw"):
                tokenizer.encode_prompt("hello world")


def test_no_template_at_all_says_so(tmp_path):
    folder = changed(TWO_STOPS, tmp_path / "m", chat_template__jinja=None)
    with pytest.raises(ModelError, match="has no chat template; use --raw"):
        read_tokenizer(folder).encode_prompt("hi")


# --- GGUF headers -----------------------------------------------------------------------------
def test_a_chat_template_comes_from_the_header(tiny_gguf):
    tokenizer = read_gguf_tokenizer(GgufFile(tiny_gguf))
    assert tokenizer.render_chat([{"role": "user", "content": "hi"}]) == "[user]hi[assistant]"
    assert tokenizer.encode("the the")[1] == tokenizer.encode(" the")[0]


def test_a_header_s_ends_of_turn_and_of_message_stop_too(write_gguf, tmp_path):
    ids = {"tokenizer.ggml.eot_token_id": 101, "tokenizer.ggml.eom_token_id": 102}
    path = write_gguf(tmp_path / "m.gguf", **ids)
    assert read_gguf_tokenizer(GgufFile(path)).stop == {1, 101, 102}


def test_a_raw_prompt_gets_the_ends_that_the_header_asks_for(write_gguf, tmp_path):
    bare = read_gguf_tokenizer(GgufFile(write_gguf(tmp_path / "bare.gguf")))
    asks = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    both = read_gguf_tokenizer(GgufFile(write_gguf(tmp_path / "both.gguf", **asks)))
    ids = bare.encode_prompt("the end", raw=True)
    assert both.encode_prompt("the end", raw=True) == [0, *ids, 1]
    assert both.encode_prompt("the end") == bare.encode_prompt("the end")


def test_a_header_without_bos_is_sound(write_gguf, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", **{"tokenizer.ggml.bos_token_id": None})
    assert read_gguf_tokenizer(GgufFile(path)).encode_prompt("the end", raw=True)


def test_every_tokenizer_key_of_gguf_is_used_harmless_or_refused_by_name(write_gguf, tmp_path):
    lists = gguf_tokenizer.USED, gguf_tokenizer.HARMLESS, gguf_tokenizer.REFUSED
    assert sum(map(len, lists)) == len(set.union(*map(set, lists)))
    keys = vars(gguf.Keys.Tokenizer).values()
    public = {key for key in keys if str(key).startswith("tokenizer.") and "{" not in key}
    assert public <= set.union(*map(set, lists))
    for key in [*gguf_tokenizer.REFUSED, "tokenizer.ggml.new_token_id"]:
        with pytest.raises(ModelError, match=f"'{key}'"):
            read_gguf_tokenizer(GgufFile(write_gguf(tmp_path / "m.gguf", **{key: 1})))
    read_gguf_tokenizer(
        GgufFile(write_gguf(tmp_path / "m.gguf", **{gguf.Keys.Tokenizer.ADD_PREFIX: False}))
    )


def test_an_id_outside_the_vocabulary_is_refused(write_gguf, tmp_path):
    for name in ("bos", "eos", "eot"):
        path = write_gguf(tmp_path / "other.gguf", **{f"tokenizer.ggml.{name}_token_id": 999})
        with pytest.raises(ModelError, match=f"{name} token 999"):
            read_gguf_tokenizer(GgufFile(path))
