"""A model by name or path: weights and tokeniser from one open file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.errors import ModelError
from cluster.model.fetch import fetch_smollm2
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_weights import GgufWeights
from cluster.model.spec import ModelSpec, Weights, named_spec
from cluster.model.synthetic import TINY, tiny_weights
from cluster.model.tokenizer import BpeTokenizer
from cluster.model.toy import ToyTokenizer

_FETCHED = "smollm2-135m"


class Stream(Protocol):
    """Decodes one generation token by token."""

    def push(self, token: int) -> str:
        """Return the text that became complete with `token`."""

    def finish(self) -> str:
        """Return what is left at the end."""


class Tokenizer(Protocol):
    """Text to ids and back; `eos` ends a generation."""

    eos: int

    def encode_prompt(self, text: str, raw: bool = False) -> list[int]:
        """Return the ids of one user message, or of the text as it is."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without control tokens."""

    def stream(self) -> Stream:
        """Return a decoder for one generation."""


@dataclass(frozen=True)
class Model:
    """A runnable model."""

    spec: ModelSpec
    weights: Weights
    tokenizer: Tokenizer


def load_model(name: str, progress: Callable[[int, int], None] | None = None) -> Model:
    """Return the model: `smollm2` (fetched when not in the cache) or the path of a GGUF file.

    `tiny`, random weights of two layers, is there for quick tries.
    Raises UnknownName, FetchError, or ModelError (also for a name that is a shape only).
    """
    if name.endswith(".gguf") or Path(name).is_file():
        return _open(Path(name))
    if name == TINY.name:
        weights = tiny_weights()
        return Model(weights.spec, weights, ToyTokenizer())
    spec = named_spec(name)
    if spec.name != _FETCHED:
        raise ModelError(name, "is known as a shape only, without weights", "give a GGUF file")
    return _open(fetch_smollm2(progress=progress).path, spec.name)


def _open(path: Path, name: str = "") -> Model:
    file = GgufFile(path)
    weights = GgufWeights(file, name)
    return Model(weights.spec, weights, BpeTokenizer(file))
