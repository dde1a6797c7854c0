"""Text to token ids and back, built from the vocabulary, merges and template in a GGUF file.

Byte-level BPE (GPT-2): every token of the vocabulary spells bytes, with a printable character for
each byte. Decoding therefore needs no library: look the bytes up and read them as UTF-8.
"""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from cluster.errors import ClusterError
from cluster.model.gguf_file import GgufFile

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type


def _byte_of_char() -> dict[str, int]:
    """Return GPT-2's printable stand-in of each byte: itself if visible, else from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {chr(byte): byte for byte in visible}
    return table | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF_CHAR = _byte_of_char()


class BpeTokenizer:
    """The tokeniser and chat template of a model. `eos` ends a generation."""

    def __init__(self, file: GgufFile) -> None:
        """Raise ModelError when the file's tokeniser is absent, damaged or of another kind."""
        model = file.value("tokenizer.ggml.model", str)
        kind = file.value("tokenizer.ggml.pre", str, "unknown")
        if model != "gpt2" or kind != "smollm":
            raise file.error(
                f"has a tokeniser of kind '{model}/{kind}'", "only 'gpt2/smollm' is supported"
            )
        self._file = file
        self._tokens = file.value("tokenizer.ggml.tokens", list)
        self._types = file.value("tokenizer.ggml.token_type", list)
        self.bos = self._special_id("bos")
        self.eos = self._special_id("eos")
        self._add_bos = file.value("tokenizer.ggml.add_bos_token", bool, False)
        self._template = file.value("tokenizer.chat_template", str, "")
        self._tokenizer = self._build()

    @property
    def has_chat_template(self) -> bool:
        """Return whether `encode_prompt(raw=False)` is possible."""
        return bool(self._template)

    def _special_id(self, name: str) -> int:
        token = self._file.value(f"tokenizer.ggml.{name}_token_id", int)
        if not 0 <= token < len(self._tokens):
            raise self._file.error(f"{name} token {token} is not in the vocabulary")
        return token

    def _build(self) -> Tokenizer:
        if len(self._types) != len(self._tokens) or len(set(self._tokens)) != len(self._tokens):
            raise self._file.error("has an inconsistent vocabulary")
        merges = self._file.value("tokenizer.ggml.merges", list)
        try:
            pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
            vocabulary = {token: index for index, token in enumerate(self._tokens)}
            tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
        except Exception as error:  # tokenizers raises bare Exceptions on a merge it cannot apply
            raise self._file.error(f"has unusable merges ({error})") from error
        # What SmolLM2's own tokenizer.json says, and llama.cpp's "smollm": each digit alone, then
        # the GPT-2 pattern over bytes.
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(self._added(_CONTROL))
        tokenizer.add_tokens(self._added(_USER_DEFINED))
        return tokenizer

    def _added(self, kind: int) -> list[AddedToken]:
        return [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, its_kind in zip(self._tokens, self._types, strict=True)
            if its_kind == kind
        ]

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised.

        A byte that no token spells is dropped, as Hugging Face's tokeniser does; SmolLM2 lacks six
        control characters and the bytes of unassigned planes.
        Raises ClusterError when the text is not valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ClusterError(f"the text is not valid Unicode: {error.reason}") from error
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Return the ids of one user message in the chat template, or of the text as it is.

        Raises ClusterError when nothing is left to run, ModelError when the template fails.
        """
        ids = self.encode(text if raw else self.render_chat([{"role": "user", "content": text}]))
        if raw and self._add_bos:
            ids = [self.bos, *ids]
        if not ids:
            raise ClusterError("the prompt is empty")
        return ids

    def render_chat(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the messages as one text that ends where the assistant is to speak.

        The template is foreign code: it runs in jinja2's sandbox. Raises ModelError if it fails.
        """
        if not self._template:
            raise self._file.error("has no chat template", "use --raw")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise_template_error
        try:
            text = environment.from_string(self._template).render(
                messages=list(messages),
                add_generation_prompt=True,
                bos_token=self._tokens[self.bos],
                eos_token=self._tokens[self.eos],
            )
        except Exception as error:  # a template can divide by zero, index past an end, and so on
            raise self._file.error(f"chat template fails ({error})", "use --raw") from error
        return text

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token spells; nothing for a control token."""
        if not 0 <= token < len(self._tokens):
            raise ClusterError(f"token {token} is not in the vocabulary of {len(self._tokens)}")
        text, kind = self._tokens[token], self._types[token]
        if kind == _CONTROL:
            return b""
        if kind == _USER_DEFINED or not all(char in _BYTE_OF_CHAR for char in text):
            return bytes(text, "utf-8")
        return bytes(_BYTE_OF_CHAR[char] for char in text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without control tokens; broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self) -> "StreamDecoder":
        """Return a decoder for one generation."""
        return StreamDecoder(self)


class StreamDecoder:
    """Decodes token by token and never gives half a character.

    All pieces and `finish()` joined equal `decode` of all ids.
    """

    def __init__(self, tokenizer: BpeTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that became complete with `token`, perhaps none."""
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """Return U+FFFD if the last character stayed incomplete, else nothing."""
        return self._utf8.decode(b"", final=True)


def _raise_template_error(message: Any) -> None:
    raise TemplateError(str(message))
