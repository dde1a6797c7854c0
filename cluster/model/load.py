"""A model by name or path: weights and tokeniser from one open file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.errors import ModelError
from cluster.model.fetch import fetch_smollm2
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_tokenizer import read_gguf_tokenizer
from cluster.model.gguf_weights import GgufWeights, read_spec
from cluster.model.hf_config import Config, read_config
from cluster.model.presets import named_spec
from cluster.model.spec import ModelSpec, Weights
from cluster.model.synthetic import TINY, tiny_weights
from cluster.model.toy import ToyTokenizer

_FETCHED = "smollm2-135m"


class Stream(Protocol):
    """Decodes one generation token by token."""

    def push(self, token: int) -> str:
        """Return the text that became complete with `token`."""

    def finish(self) -> str:
        """Return what is left at the end."""


class Tokenizer(Protocol):
    """Text to ids and back; a token of `stop` ends a generation."""

    stop: frozenset[int]

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
    """Return the model: `smollm2` (fetched when not in the cache), the path of a GGUF file, or of
    a Hugging Face folder.

    `tiny`, random weights of two layers, is there for quick tries.
    Raises UnknownName, FetchError, or ModelError (also for a name that is a shape only, and for
    a model that no kernel executes).
    """
    if Path(name).is_dir():
        return _open_folder(Path(name))
    if name.endswith(".gguf") or Path(name).is_file():
        return _open(Path(name))
    if name == TINY.name:
        weights = tiny_weights()
        return Model(weights.spec, weights, ToyTokenizer())
    spec = runnable(named_spec(name))
    if spec.name != _FETCHED:
        raise ModelError(
            name, "is known as a shape only, without weights", "give a GGUF file or a folder"
        )
    return _open(fetch_smollm2(progress=progress).path, spec.name)


def load_spec(name: str) -> ModelSpec:
    """Return the shape of any model that `lpu plan` takes; reads no weights.

    Raises UnknownName or ModelError.
    """
    path = Path(name)
    if path.is_dir() or path.name == "config.json":
        folder = path if path.is_dir() else path.parent
        return read_config(folder / "config.json", folder.absolute().name)
    if name.endswith(".gguf") or path.is_file():
        return read_spec(GgufFile(path))
    return TINY if name == TINY.name else named_spec(name)


def runnable(spec: ModelSpec) -> ModelSpec:
    """Return the spec; raise ModelError when it has what no kernel executes."""
    obstacles = spec.obstacles()
    if obstacles:
        advice = "`lpu plan` can still time it" if not spec.unsupported else ""
        problem = f"has {', '.join(obstacles)}, which no kernel executes yet"
        raise ModelError(spec.name, problem, advice)
    return spec


def _open_folder(folder: Path) -> Model:
    from cluster.model.hf_tokenizer import read_tokenizer
    from cluster.model.hf_weights import HfWeights

    path = folder / "config.json"
    spec = runnable(read_config(path, folder.absolute().name))
    weights = HfWeights(spec, folder, Config(path).kind)
    return Model(spec, weights, read_tokenizer(folder))


def _open(path: Path, name: str = "") -> Model:
    file = GgufFile(path)
    weights = GgufWeights(file, name)
    return Model(weights.spec, weights, read_gguf_tokenizer(file))
