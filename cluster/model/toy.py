"""The model `tiny`: random weights and one token per ASCII character, for quick tries and tests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cluster.errors import ClusterError
from cluster.model.known import known_model
from cluster.model.tokenizer import check_unicode

EOS = 0


class ToyTokenizer:
    """Token n is ASCII character n; 0 ends a text. No chat template: a prompt is taken as it is."""

    stop = frozenset({EOS})
    vocab = known_model("tiny").vocab

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Return the ids of `text`; what is not ASCII becomes `?`."""
        if not text:
            raise ClusterError("the prompt is empty")
        return self.encode(text)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> list[int]:
        """Return the ids of all messages, one a line."""
        return self.encode_prompt("\n".join(message["content"] for message in messages))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`."""
        check_unicode(text)
        return list(text.encode("ascii", "replace"))

    def token_text(self, token: int) -> str:
        """Return the character of a token."""
        return chr(token)

    def token_bytes(self, token: int) -> bytes:
        """Return the character of a token."""
        return chr(token).encode()

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without the end token."""
        return "".join(chr(token) for token in ids if token != EOS)

    def stream(self) -> "ToyStream":
        """Return a decoder for one generation."""
        return ToyStream(self)


class ToyStream:
    """Decodes token by token."""

    def __init__(self, tokenizer: ToyTokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, token: int) -> str:
        """Return the text of `token`."""
        return self._tokenizer.decode([token])

    def finish(self) -> str:
        """Nothing is ever left over."""
        return ""
