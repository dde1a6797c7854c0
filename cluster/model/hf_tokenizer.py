"""The tokeniser of a Hugging Face folder, or a stand-in for a folder without one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as Library

from cluster.errors import ClusterError, ModelError

NO_TOKEN = -1  # an `eos` that never comes


def read_tokenizer(folder: Path) -> "HfTokenizer | IdsOnly":
    """Return the tokeniser of `folder`; raises ModelError when it is damaged."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return IdsOnly(str(folder), _eos(folder))
    try:
        library = Library.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelError(str(path), f"cannot be read ({error})") from error
    return HfTokenizer(folder, library)


class HfTokenizer:
    """`tokenizer.json` as the library reads it, with the chat template beside it."""

    def __init__(self, folder: Path, library: Library) -> None:
        self._folder, self._library = folder, library
        self._settings = _json(folder / "tokenizer_config.json")
        self.eos = self._eos_id()

    def _special(self, name: str) -> str:
        token = self._settings.get(name, "")
        return str(token.get("content", "") if isinstance(token, dict) else token or "")

    def _eos_id(self) -> int:
        known = self._library.token_to_id(self._special("eos_token"))
        return _eos(self._folder) if known is None else int(known)

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Return the ids of one user message in the chat template, or of the text as it is."""
        text, special = (text, True) if raw else (self._chat(text), False)
        ids = list(self._library.encode(text, add_special_tokens=special).ids)
        if not ids:
            raise ClusterError("the prompt is empty")
        return ids

    def _chat(self, text: str) -> str:
        template = self._settings.get("chat_template")
        if not isinstance(template, str):
            raise ModelError(str(self._folder), "has no chat template", "use --raw")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            return environment.from_string(template).render(
                messages=[{"role": "user", "content": text}],
                add_generation_prompt=True,
                bos_token=self._special("bos_token"),
                eos_token=self._special("eos_token"),
            )
        except Exception as error:  # a template is foreign code
            problem = f"chat template fails ({error})"
            raise ModelError(str(self._folder), problem, "use --raw") from error

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without control tokens."""
        return str(self._library.decode(list(ids), skip_special_tokens=True))

    def stream(self) -> "Growing":
        """Return a decoder for one generation."""
        return Growing(self)


class IdsOnly:
    """A folder without tokenizer.json: prompts are ids, and so is the text."""

    def __init__(self, source: str, eos: int) -> None:
        self._source, self.eos = source, eos

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Raise ModelError: there is nothing to encode with."""
        raise ModelError(self._source, "has no tokenizer.json", "use --prompt-ids 1,2,3")

    def decode(self, ids: Iterable[int]) -> str:
        """Return the numbers."""
        return " ".join(map(str, ids))

    def stream(self) -> "Growing":
        """Return a decoder for one generation."""
        return Growing(self)


class Growing:
    """Decodes all ids so far and gives what is new, but never half a character."""

    def __init__(self, tokenizer: HfTokenizer | IdsOnly) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Return the text that became complete with `token`."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        return "" if text.endswith("�") else self._new(text)

    def finish(self) -> str:
        """Return what is left."""
        return self._new(self._tokenizer.decode(self._ids))

    def _new(self, text: str) -> str:
        piece, self._shown = text[self._shown :], len(text)
        return piece


def _eos(folder: Path) -> int:
    found = _json(folder / "config.json").get("eos_token_id")
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, int) else NO_TOKEN


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(str(path), f"cannot be read ({error})") from error
    return found if isinstance(found, dict) else {}
