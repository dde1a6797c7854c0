"""Gemma (Gemma Team 2024): scaled embeddings, a gate of GELU, norms whose weights are 1 + w."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import gguf_names, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.settings import Settings

_SAME = ("gelu", "gelu_pytorch_tanh")  # its first config files say gelu and mean the tanh form


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d = read_decoder(settings, tied=True, head_dim=256)
    for key in ("hidden_act", "hidden_activation"):
        if settings.text(key, "gelu") not in _SAME:
            raise settings.error(f"'{key}' is not one of {', '.join(_SAME)}")
    layers = (layer(d, "gelu"),) * d.layers
    return d.model(name, "gemma", layers, scale=d.hidden.size**0.5)


ARCHITECTURE = Architecture(
    name="gemma",
    write=write,
    model_types=("gemma",),
    safetensors=safetensors_names(norm_offset=1.0),
    gguf={"gemma": gguf_names()},  # llama.cpp stores 1 + w
)
