"""Mixtral (Jiang et al. 2024), until ops exist as a dense model of all its experts."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import all_experts, without
from cluster.model.settings import Settings


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d = read_decoder(settings, theta=1e6, slides=True)
    count = settings.whole("num_local_experts")
    experts = Experts(count, settings.whole("num_experts_per_tok"), d.ffn.size)
    wide, function = all_experts(d, experts), activation(settings)
    layers = d.of_windows(lambda window: layer(wide, function, window=window))
    routers = d.layers * d.hidden.size * experts.count
    return without(d.model(name, "mixtral", layers), more_parameters=routers, experts=experts)


ARCHITECTURE = Architecture(
    name="mixtral",
    write=write,
    model_types=("mixtral",),
    safetensors=safetensors_names(),
    gguf={},
)
