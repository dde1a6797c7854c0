"""The tokenizer of a Hugging Face folder, or a stand-in for a folder without one."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.model.stop_tokens import stop_tokens
from cluster.model.tokenizer import TextTokenizer, fast_tokenizer_class
from cluster.model.tokenizer_files import check_tokenizer_files


def read_tokenizer(folder: Path) -> "TextTokenizer | IdsOnly":
    """Return the tokenizer of `folder`; raises ModelError when it is damaged.

    tokenizer.json is taken as it stands, with what tokenizer_config.json and the chat templates
    beside it add. Its truncation and padding are for training: prompts are neither cut nor filled.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return IdsOnly(str(folder), stop_tokens(folder))
    check_tokenizer_files(folder)  # the library's words for a damaged one are many
    try:
        library = fast_tokenizer_class().from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelError(str(path), f"cannot be read ({error})") from error
    library.backend_tokenizer.no_truncation()
    library.backend_tokenizer.no_padding()
    eos = library.eos_token_id
    stop = stop_tokens(folder) | (frozenset() if eos is None else {eos})
    return TextTokenizer(str(folder), library, stop)


class IdsOnly:
    """A folder without tokenizer.json: prompts are ids, and so is the text."""

    def __init__(self, source: str, stop: frozenset[int]) -> None:
        self._source, self.stop = source, stop

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Raise ModelError: there is nothing to encode with."""
        raise ModelError(self._source, "has no tokenizer.json", "use --prompt-ids 1,2,3")

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> list[int]:
        """Raise ModelError: there is nothing to encode with."""
        raise ModelError(self._source, "has no tokenizer.json", "send token ids to completions")

    def encode(self, text: str) -> list[int]:
        """Raise ModelError: there is nothing to encode with."""
        raise ModelError(self._source, "has no tokenizer.json", "use token ids")

    def token_text(self, token: int) -> str:
        """Return the number."""
        return str(token)

    def token_bytes(self, token: int) -> bytes:
        """Return the digits of the number."""
        return str(token).encode()

    def decode(self, ids: Iterable[int]) -> str:
        """Return the numbers."""
        return " ".join(map(str, ids))

    def stream(self) -> "Numbers":
        """Return a decoder for one generation."""
        return Numbers()


class Numbers:
    """Gives token after token as a number."""

    def __init__(self) -> None:
        self._gap = ""

    def push(self, token: int) -> str:
        """Return the number of `token`, after a space unless it is the first."""
        gap, self._gap = self._gap, " "
        return f"{gap}{token}"

    def finish(self) -> str:
        """Nothing is ever left over."""
        return ""
