"""Mixtral (Jiang et al. 2024): a Mistral whose FFNs are mixtures, gates a softmax of the chosen."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.graph.stand_in import Experts
from cluster.model.settings import Settings


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d = read_decoder(settings, theta=1e6, slides=True)
    count = settings.whole("num_local_experts")
    experts = Experts(count, settings.whole("num_experts_per_tok"), d.ffn.size)
    function = activation(settings)
    layers = d.of_windows(lambda window: layer(d, function, window=window, experts=experts))
    return d.model(name, "mixtral", layers)


ARCHITECTURE = Architecture(
    name="mixtral",
    write=write,
    model_types=("mixtral",),
    safetensors=safetensors_names(
        {
            "router": "block_sparse_moe.gate",
            "w_gate": "block_sparse_moe.experts.{}.w1",
            "w_up": "block_sparse_moe.experts.{}.w3",
            "w_down": "block_sparse_moe.experts.{}.w2",
        }
    ),
    gguf={"llama": gguf_names(adjacent_pairs=True, experts=True)},
    mixture=True,
)
