"""Weights of a GGUF file, dequantised to float32 as they are asked for."""

from pathlib import Path

from cluster.model.architecture import Architecture, by_gguf_name
from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_header import header_settings
from cluster.model.graph.graph import Model
from cluster.model.settings import Settings
from cluster.model.weights.files import FileWeights


def read_header(file: GgufFile, name: str = "") -> Model:
    """The graph that a header describes, under `name` if given; raises ModelError."""
    architecture, settings, _ = _settings(file)
    return architecture.model(settings, name or _name(file))


def open_gguf(file: GgufFile, name: str = "") -> FileWeights:
    """The weights of an open file; raises ModelError for settings or tensors that do not fit."""
    architecture, settings, kind = _settings(file)
    model = architecture.model(settings, name or _name(file))
    return FileWeights(model, file, architecture.gguf[kind])


def _name(file: GgufFile) -> str:
    return file.value("general.name", str, Path(file.path).stem)


def _settings(file: GgufFile) -> tuple[Architecture, Settings, str]:
    kind = file.value("general.architecture", str)
    known = by_gguf_name(mixture=file.value(f"{kind}.expert_count", int, 0) > 0)
    if kind not in known:
        raise file.error(f"is of architecture '{kind}'", f"known are {', '.join(sorted(known))}")
    return known[kind], header_settings(file, known[kind].harmless, known[kind].implied), kind
