"""A model by name or path: its graph, or its weights."""

from collections.abc import Callable
from pathlib import Path

from cluster.errors import ModelError
from cluster.model.architecture import registry
from cluster.model.fetch import fetch_minilm, fetch_smollm2
from cluster.model.gguf_file import GgufFile
from cluster.model.graph.graph import Model
from cluster.model.graph.source import Weights
from cluster.model.known import known_model
from cluster.model.weights.files import FileWeights
from cluster.model.weights.gguf import open_gguf, read_header
from cluster.model.weights.safetensors import Shards, open_folder, read_config
from cluster.model.weights.synthetic import SyntheticWeights

Progress = Callable[[int, int], None]
FETCHED = ("smollm2-135m", "minilm-l6")
RANDOM = ("tiny", "tiny-encoder")


def find_model(name: str) -> Model:
    """The graph of any model that can be planned; reads no weights.

    `name` is a known one, a GGUF file, a `config.json` or the folder of one. Raises UnknownName
    or ModelError.
    """
    path = Path(name)
    if path.is_dir() or path.name == "config.json":
        folder = path if path.is_dir() else path.parent
        return read_config(folder / "config.json", folder.absolute().name)
    if path.suffix == ".gguf" or path.is_file():
        return read_header(GgufFile(path))
    return known_model(name)


def find_weights(name: str, progress: Progress | None = None) -> Weights:
    """The weights of a model that can run: fetched ones by name, else a GGUF file or a folder.

    Raises UnknownName, FetchError, or ModelError (also for a model that is a shape only, or that
    no kernel executes).
    """
    path = Path(name)
    if path.is_dir():
        runnable(find_model(name))
        return open_folder(path, path.absolute().name)
    if path.suffix == ".gguf" or path.is_file():
        file = GgufFile(path)
        runnable(read_header(file))
        return open_gguf(file)
    model = known_model(name)
    if model.name in RANDOM:
        return SyntheticWeights(model)
    if model.name not in FETCHED:
        runnable(model)
        problem = "is known as a shape only, without weights"
        raise ModelError(name, problem, "give a GGUF file or a folder")
    if model.name == "minilm-l6":
        shards = Shards(fetch_minilm(progress=progress).path.parent)
        return FileWeights(model, shards, registry()["bert"].safetensors)
    return open_gguf(GgufFile(fetch_smollm2(progress=progress).path), model.name)


def runnable(model: Model) -> Model:
    """Return the model; raises ModelError where it has what no kernel executes."""
    if model.stand_in:
        problem = f"has {', '.join(model.stand_in.missing)}, which no kernel executes yet"
        raise ModelError(model.name, problem, "`lpu plan` can still time it")
    return model
