"""Qwen 3 with experts (Yang et al. 2025): its FFNs are mixtures.

More experts than a bank holds of a tile stand as a dense model of all of them.
"""

from cluster.model.architecture import Architecture
from cluster.model.architectures.qwen3 import layer
from cluster.model.decoder import activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import all_experts, gatherable, without
from cluster.model.settings import Settings


def write(settings: Settings, name: str) -> Model:
    """The model of some settings; transformers 5 calls the number of experts as Mixtral does."""
    d = read_decoder(settings, head_dim=128, slides=False)
    if not settings.flag("norm_topk_prob", False):
        raise settings.error("'norm_topk_prob' is false: gates that do not add up to 1")
    if settings.whole("decoder_sparse_step", 1) != 1 or settings.items("mlp_only_layers"):
        raise settings.error("has dense layers among its mixtures, which is not known")
    key = "num_experts" if settings.has("num_experts") else "num_local_experts"
    experts = Experts(
        settings.whole(key),
        settings.whole("num_experts_per_tok"),
        settings.whole("moe_intermediate_size"),
    )
    function = activation(settings)
    if not gatherable(experts):
        wide, routers = all_experts(d, experts), d.layers * d.hidden.size * experts.count
        layers = d.of_windows(lambda window: layer(wide, function, window))
        model = d.model(name, "qwen3_moe", layers)
        return without(model, more_parameters=routers, experts=experts)
    layers = d.of_windows(lambda window: layer(d, function, window, experts))
    return d.model(name, "qwen3_moe", layers)


ARCHITECTURE = Architecture(
    name="qwen3_moe",
    write=write,
    model_types=("qwen3_moe",),
    safetensors=safetensors_names(
        {
            "router": "mlp.gate",
            "w_gate": "mlp.experts.{}.gate_proj",
            "w_up": "mlp.experts.{}.up_proj",
            "w_down": "mlp.experts.{}.down_proj",
        }
    ),
    gguf={"qwen3moe": gguf_names(experts=True)},
    implied={"norm_topk_prob": True},
)
