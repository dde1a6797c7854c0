"""Mistral 7B (Jiang et al. 2023): a Llama whose attention may look back a window only."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.settings import Settings


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings, slides=True), activation(settings)
    layers = d.of_windows(lambda window: layer(d, function, window=window))
    return d.model(name, "mistral", layers)


ARCHITECTURE = Architecture(
    name="mistral",
    write=write,
    model_types=("mistral",),
    safetensors=safetensors_names(),
    gguf={},  # llama.cpp writes it as a llama
)
