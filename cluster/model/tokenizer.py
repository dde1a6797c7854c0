"""Text to token ids and back, by the tokenizer classes of `transformers`, which need no torch.

The library is imported when the first tokenizer is made: it takes a second.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLACEMENT = "\ufffd"  # what the library decodes half a character to
_QUIET = {"TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "TRANSFORMERS_VERBOSITY": "error"}


def fast_tokenizer_class() -> Any:
    """Return `transformers.PreTrainedTokenizerFast`, imported without a word about torch."""
    with _environment(_QUIET):
        from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast


class TextTokenizer:
    """The tokenizer and chat template of a model; a token of `stop` ends a generation.

    `library` is a fast tokenizer of `transformers`, `source` the file or folder to name in errors.
    """

    def __init__(self, source: str, library: Any, stop: frozenset[int]) -> None:
        self._source, self._library, self.stop = source, library, stop

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it are recognised, none is added.

        A byte that no token spells is dropped, as in the library. Raises ClusterError when the
        text is not valid Unicode.
        """
        return self._encode(text, special=False)

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Return the ids of one user message in the chat template, or of the text as it is.

        Raises ClusterError when nothing is left to run, ModelError when the template fails.
        """
        check_unicode(text)
        if not raw:
            text = self.render_chat([{"role": "user", "content": text}])
        ids = self._encode(text, special=raw)
        if not ids:
            raise ClusterError("the prompt is empty")
        return ids

    def _encode(self, text: str, special: bool) -> list[int]:
        check_unicode(text)
        # A length limit in the files is that of training, and not applied, here as there.
        try:
            return list(self._library(text, add_special_tokens=special, verbose=False).input_ids)
        except Exception as error:  # settings of a wrong type show only now
            raise ModelError(self._source, f"its tokenizer fails ({error})") from error

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Return the ids of a chat in the chat template; raises as `render_chat`."""
        return self._encode(self.render_chat(messages, tools), special=False)

    def token_text(self, token: int) -> str:
        """Return how a token is spelled, control tokens too; U+FFFD is half a character."""
        return str(self._library.decode([token], skip_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, of which several may make one character.

        They are spelled by the characters of byte-level BPE, or as <0x0A>; others are text.
        """
        text = self.token_text(token)
        if REPLACEMENT not in text:
            return text.encode()
        spelled = str(self._library.convert_ids_to_tokens(token))
        if byte := re.fullmatch("<0x([0-9A-F]{2})>", spelled):
            return bytes.fromhex(byte[1])
        known = _byte_characters()
        return bytes(known[sign] for sign in spelled) if set(spelled) <= set(known) else b""

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Return the messages as one text that ends where the assistant is to speak.

        The template is foreign code: the library runs it in jinja2's sandbox. Raises ModelError
        if it fails, or if there is none.
        """
        if not self._library.chat_template:
            raise ModelError(self._source, "has no chat template", "use --raw")
        if tools and "tools" not in str(self._library.chat_template):
            problem = "has a chat template without a place for tools"
            raise ModelError(self._source, problem, "say in a message what they are")
        try:
            text = self._library.apply_chat_template(
                list(messages), tools=tools, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template can divide by zero, index past an end, and so on
            problem = f"chat template fails ({error})"
            raise ModelError(self._source, problem, "use --raw") from error
        return str(text)

    def files(self) -> dict[str, str]:
        """The texts of tokenizer.json and tokenizer_config.json, as any `transformers` reads them.

        The class is named as releases before 5 know it, and the template stands in the file.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self._library.bos_token,
            "eos_token": self._library.eos_token,
            "clean_up_tokenization_spaces": False,
            "chat_template": self._library.chat_template,
        }
        return {
            "tokenizer.json": str(self._library.backend_tokenizer.to_str()),
            "tokenizer_config.json": json.dumps(config, indent=1),
        }

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without control tokens; broken UTF-8 becomes U+FFFD.

        An id beyond the vocabulary, as models with a padded one have, spells nothing.
        """
        return str(self._library.decode(list(ids), skip_special_tokens=True))

    def stream(self) -> "TextStream":
        """Return a decoder for one generation."""
        return TextStream(self)


class TextStream:
    """Decodes token by token and never gives half a character.

    A token's text can depend on the one before (a space at the beginning), so the last complete
    piece is decoded with what follows it. All pieces and `finish()` joined equal `decode` of all.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # the tokens of the last piece
        self._ids: list[int] = []  # those since

    def push(self, token: int) -> str:
        """Return the text that became complete with `token`, perhaps none."""
        self._ids.append(token)
        piece = self._piece()
        if not piece or piece.endswith(REPLACEMENT):
            return ""
        self._before, self._ids = self._ids, []
        return piece

    def finish(self) -> str:
        """Return what is left, U+FFFD for a character that stayed incomplete."""
        return self._piece()

    def _piece(self) -> str:
        shown = len(self._tokenizer.decode(self._before))
        return self._tokenizer.decode([*self._before, *self._ids])[shown:]


@cache
def _byte_characters() -> dict[str, int]:
    """The byte that each character of byte-level BPE stands for, as in GPT-2."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): b for n, b in enumerate(others)}


def check_unicode(text: str) -> None:
    """Raise ClusterError unless `text` can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ClusterError(f"the text is not valid Unicode: {error.reason}") from error


@contextmanager
def _environment(names: dict[str, str]) -> "Iterator[None]":
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
