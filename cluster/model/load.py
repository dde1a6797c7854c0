"""A model by name or path: weights and tokeniser from one open file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ModelError
from cluster.model.fetch import fetch_smollm2
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_weights import GgufWeights
from cluster.model.spec import ModelSpec, Weights, named_spec
from cluster.model.tokenizer import BpeTokenizer

_FETCHED = "smollm2-135m"


@dataclass(frozen=True)
class Model:
    """A runnable model."""

    spec: ModelSpec
    weights: Weights
    tokenizer: BpeTokenizer


def load_model(name: str, progress: Callable[[int, int], None] | None = None) -> Model:
    """Return the model: `smollm2` (fetched when not in the cache) or the path of a GGUF file.

    Raises UnknownName, FetchError, or ModelError (also for a name that is a shape only).
    """
    if name.endswith(".gguf") or Path(name).is_file():
        return _open(Path(name))
    spec = named_spec(name)
    if spec.name != _FETCHED:
        raise ModelError(name, "is known as a shape only, without weights", "give a GGUF file")
    return _open(fetch_smollm2(progress=progress).path, spec.name)


def _open(path: Path, name: str = "") -> Model:
    file = GgufFile(path)
    weights = GgufWeights(file, name)
    return Model(weights.spec, weights, BpeTokenizer(file))
