"""The tokenizer in a GGUF header, as a fast tokenizer of `transformers`.

The reader in `transformers` takes no notice of `tokenizer.ggml.pre`, and so splits digits wrongly.
"""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from cluster.model.gguf_file import GgufFile
from cluster.model.tokenizer import TextTokenizer, fast_tokenizer_class

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
_TEMPLATE = "tokenizer.chat_template"
# Each key of the format's definition (gguf.constants.Keys.Tokenizer) is in one of three lists.
_IDS = {  # what ends a generation: end of sequence, of a turn, of a message
    name: f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")
}
USED = {
    "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
    "tokenizer.chat_template", "tokenizer.chat_templates", *_IDS.values(),
}  # fmt: skip
HARMLESS = {  # of other kinds of tokenizer or of other uses; or said by the vocabulary, too
    "tokenizer.ggml.token_type_count", "tokenizer.ggml.scores", "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.mask_token_id", "tokenizer.ggml.cls_token_id",
    "tokenizer.huggingface.json", "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id", "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id", "tokenizer.ggml.middle_token_id",
}  # fmt: skip
REFUSED = {  # where they are set: they change a text before it is split
    "tokenizer.ggml.add_sep_token", "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.rwkv.world",
}  # fmt: skip


def read_gguf_tokenizer(file: GgufFile) -> TextTokenizer:
    """Return the tokenizer of `file`.

    Raises ModelError when it is absent, damaged, of another kind, or has keys we do not know.
    """
    model = file.value("tokenizer.ggml.model", str)
    kind = file.value("tokenizer.ggml.pre", str, "unknown")
    if model != "gpt2" or kind != "smollm":
        raise file.error(
            f"has a tokenizer of kind '{model}/{kind}'", "only 'gpt2/smollm' is supported"
        )
    _check_keys(file)
    tokens = file.value("tokenizer.ggml.tokens", list)
    bos, eos, *others = (_special_id(file, name, len(tokens)) for name in ("bos", *_IDS))
    added = {
        "bos_token": None if bos is None else tokens[bos],
        "eos_token": None if eos is None else tokens[eos],
    }
    library = fast_tokenizer_class()(
        tokenizer_object=_build(file, tokens, bos, eos), chat_template=_templates(file), **added
    )
    stop = frozenset(token for token in (eos, *others) if token is not None)
    return TextTokenizer(str(file.path), library, stop)


def _check_keys(file: GgufFile) -> None:
    for key in sorted(file.metadata_keys()):
        if not key.startswith("tokenizer.") or key in USED | HARMLESS:
            continue
        if key in REFUSED:
            if file.raw(key):
                raise file.error(f"sets '{key}', which is not supported", "use another file")
        elif not key.startswith(f"{_TEMPLATE}."):
            raise file.error(f"has the key '{key}', which is not known", "use another file")


def _special_id(file: GgufFile, name: str, vocab: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata_keys():
        return None
    token = file.value(key, int)
    if not 0 <= token < vocab:
        raise file.error(f"{name} token {token} is not in the vocabulary of {vocab}")
    return token


def _templates(file: GgufFile) -> str | dict[str, str] | None:
    """Return the chat template, or those by name where there are several."""
    names = file.value("tokenizer.chat_templates", list, [])
    named = {name: file.value(f"{_TEMPLATE}.{name}", str) for name in names}
    default = file.value(_TEMPLATE, str, "")
    if not named:
        return default or None
    return {"default": default} | named if default else named


def _build(file: GgufFile, tokens: list[str], bos: int | None, eos: int | None) -> Tokenizer:
    types = file.value("tokenizer.ggml.token_type", list)
    if len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise file.error("has an inconsistent vocabulary")
    merges = file.value("tokenizer.ggml.merges", list)
    try:
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        vocabulary = {token: index for index, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # tokenizers raises bare Exceptions on a merge it cannot apply
        raise file.error(f"has unusable merges ({error})") from error
    # What SmolLM2's own tokenizer.json says, and llama.cpp's "smollm": each digit alone, then
    # the GPT-2 pattern over bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for kind in (_CONTROL, _USER_DEFINED):
        special = kind == _CONTROL
        of_kind = [
            AddedToken(token, special=special, normalized=False)
            for token, its_kind in zip(tokens, types, strict=True)
            if its_kind == kind
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(of_kind)
    tokenizer.post_processor = _around(file, tokens, bos, eos)
    return tokenizer


def _around(file: GgufFile, tokens: list[str], bos: int | None, eos: int | None) -> Any:
    """Return what puts the tokens around a raw prompt that the header asks for."""
    ends = {"bos": bos, "eos": eos}
    put = {}
    for name, token in ends.items():
        if file.value(f"tokenizer.ggml.add_{name}_token", bool, False):
            if token is None:
                raise file.error(f"sets add_{name}_token without a {name} token")
            put[name] = (tokens[token], token)
    before, after = (f"{put[n][0]}:0" if n in put else "" for n in ("bos", "eos"))
    return processors.TemplateProcessing(
        single=[part for part in (before, "$A:0", after) if part],
        pair=["$A:0", "$B:1"],
        special_tokens=list(put.values()),
    )
