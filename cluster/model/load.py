"""A model by name or path: its graph, its weights, and its tokeniser from the same open file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cluster.errors import ModelError
from cluster.model.architecture import registry
from cluster.model.fetch import fetch_minilm, fetch_smollm2
from cluster.model.graph.graph import Model
from cluster.model.graph.source import Weights
from cluster.model.known import known_model, known_names
from cluster.model.toy import ToyTokenizer
from cluster.model.weights.copied import CopiedExperts
from cluster.model.weights.files import FileWeights
from cluster.model.weights.safetensors import Shards, open_folder, read_config
from cluster.model.weights.synthetic import SyntheticWeights

Progress = Callable[[int, int], None]
FETCHED = ("smollm2-135m", "smollm2-moe8", "minilm-l6")
RANDOM = ("tiny", "tiny-encoder")
MIXTURE = "smollm2-moe8"  # made of smollm2; as NAME:SEED with a router of another seed
_SHAPE_ONLY = "is known as a shape only, without weights"


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

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> list[int]:
        """Return the ids of a chat, up to where the assistant is to speak."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a piece of text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` without control tokens."""

    def token_text(self, token: int) -> str:
        """Return how a token is spelled, control tokens too."""

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, of which several may make one character."""

    def stream(self) -> Stream:
        """Return a decoder for one generation."""


@dataclass(frozen=True)
class Loaded:
    """A decoder that can run; `notes` say where its files disagree and what was done."""

    weights: Weights
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> Model:
        """Return its graph."""
        return self.weights.model


def find_model(name: str) -> Model:
    """The graph of any model that can be planned; reads no weights.

    `name` is a known one, a GGUF file, a `config.json` or the folder of one. Raises UnknownName
    or ModelError.
    """
    path = Path(name)
    if _is_folder(path) or path.name == "config.json":
        folder = path if path.is_dir() else path.parent
        return read_config(folder / "config.json", folder.absolute().name)
    if _is_file(path):
        from cluster.model.gguf_file import GgufFile
        from cluster.model.weights.gguf import read_header

        return read_header(GgufFile(path))
    return known_model(_seeded(name)[0])


def find_decoder(name: str) -> Model:
    """As `find_model`; raises ModelError for an encoder, which has no next token to plan."""
    model = find_model(name)
    if not model.has_logits:
        problem = "is an encoder, for which there is no token-by-token plan"
        raise ModelError(model.name, problem, "`lpu embed` runs encoders")
    return model


def load_model(name: str, progress: Progress | None = None) -> Loaded:
    """The decoder of that name: `smollm2` (fetched when not in the cache), `smollm2-moe8`, `tiny`
    (two layers of random weights), the path of a GGUF file or of a Hugging Face folder.

    Raises UnknownName, FetchError, or ModelError (also for a model that is a shape only, or that
    no kernel executes).
    """
    path = Path(name)
    if _is_folder(path):
        return _open_folder(path)
    if _is_file(path):
        return _open_gguf(path)
    name, seed = _seeded(name)
    model = runnable(known_model(name))
    if not model.has_logits:
        raise ModelError(name, "is an encoder", "`lpu embed` runs encoders")
    if model.name in RANDOM:
        return Loaded(SyntheticWeights(model), ToyTokenizer())
    if model.name not in FETCHED:
        raise ModelError(name, _SHAPE_ONLY, "give a GGUF file or a folder")
    path = fetch_smollm2(progress=progress).path
    if model.name != MIXTURE:
        return _open_gguf(path, model.name)
    dense = _open_gguf(path)
    return replace(dense, weights=CopiedExperts(model, dense.weights, seed))


def load_encoder(name: str, progress: Progress | None = None) -> Weights:
    """The weights of an encoder: `minilm` (fetched when not in the cache), or a folder of files.

    `tiny-encoder` has random weights. Raises as `load_model`.
    """
    path, model = Path(name), find_model(name)
    if model.has_logits:
        raise ModelError(name, "is no encoder", "`lpu run` runs decoders")
    if _is_folder(path):
        return open_folder(path, path.absolute().name)
    if model.name in RANDOM:
        return SyntheticWeights(model)
    if model.name not in FETCHED:
        raise ModelError(name, _SHAPE_ONLY, "embed with minilm, tiny-encoder or a folder")
    shards = Shards(fetch_minilm(progress=progress).path.parent)
    return FileWeights(model, shards, registry()[model.architecture].safetensors)


def runnable(model: Model) -> Model:
    """Return the model; raises ModelError where it has what no kernel executes."""
    if model.stand_in:
        problem = f"has {', '.join(model.stand_in.missing)}, which no kernel executes yet"
        raise ModelError(model.name, problem, "`lpu plan` can still time it")
    return model


def _seeded(name: str) -> tuple[str, int]:
    """The name of a model, and the seed of its router, which may follow that of a mixture."""
    mixture, colon, seed = name.partition(":")
    if mixture.lower() != MIXTURE or not colon:
        return name, 0
    if not seed.isascii() or not seed.isdigit():
        raise ModelError(name, f"'{seed}' is no seed of a router", f"say {MIXTURE}:7, for example")
    return mixture, int(seed)


def _is_folder(path: Path) -> bool:
    """Whether a name is of a folder: one of a known model needs a model in it to be meant."""
    known = str(path).lower() in known_names() and not (path / "config.json").exists()
    return path.is_dir() and not known


def _is_file(path: Path) -> bool:
    return path.suffix == ".gguf" or path.is_file()


def _open_folder(folder: Path) -> Loaded:
    from cluster.model.hf_tokenizer import read_tokenizer

    runnable(find_model(str(folder)))
    weights = open_folder(folder, folder.absolute().name)
    return Loaded(weights, read_tokenizer(folder), weights.notes)


def _open_gguf(path: Path, name: str = "") -> Loaded:
    from cluster.model.gguf_file import GgufFile
    from cluster.model.gguf_tokenizer import read_gguf_tokenizer
    from cluster.model.weights.gguf import open_gguf

    file = GgufFile(path)
    weights = open_gguf(file, name)
    return Loaded(weights, read_gguf_tokenizer(file), weights.notes)
