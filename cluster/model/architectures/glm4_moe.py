"""GLM 4.5 (GLM Team 2025), until ops exist as a dense model of all its experts."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.deepseek_v3 import read_experts, read_router
from cluster.model.architectures.llama import layer as plain_layer
from cluster.model.architectures.qwen3 import layer as normed_layer
from cluster.model.decoder import activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.mixture import all_experts, without
from cluster.model.settings import Settings


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings), activation(settings)
    experts = read_experts(settings)
    read_router(settings)  # its settings change no cost
    layer = normed_layer if settings.flag("use_qk_norm", False) else plain_layer
    bias = settings.flag("attention_bias", False)
    missing = ["biases of queries, keys and values"] if bias else []
    if settings.number("partial_rotary_factor", 0.5) != 1.0:
        missing.append("heads that rotate in part")
    first = min(experts.dense_layers, d.layers)
    layers = (layer(d, function),) * first
    layers += (layer(all_experts(d, experts), function),) * (d.layers - first)
    biases = d.layers * (d.heads.size + 2 * d.kv_heads.size) * d.head_dim.size if bias else 0
    more = (d.layers - first) * (d.hidden.size + 1) * experts.count + biases
    return without(d.model(name, "glm4_moe", layers), missing, None, more, experts)


ARCHITECTURE = Architecture(
    name="glm4_moe",
    write=write,
    model_types=("glm4_moe",),
    safetensors=safetensors_names(),
    gguf={},
)
