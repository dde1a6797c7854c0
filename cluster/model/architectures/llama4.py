"""Llama 4 (Meta 2025), the text model, until ops exist as a dense model of all its experts."""

from dataclasses import replace

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.graph.stand_in import Experts
from cluster.model.graph.values import Dim
from cluster.model.mixture import all_experts, without
from cluster.model.settings import Settings

_MISSING = ("chunked attention", "layers without rotary embedding", "norms of queries and keys")


def write(settings: Settings, name: str) -> Model:
    """The model of some settings; some of its layers, or all, are mixtures."""
    d, function = read_decoder(settings, theta=500000.0), activation(settings)
    experts = Experts(
        settings.whole("num_local_experts"),
        settings.whole("num_experts_per_tok"),
        d.ffn.size,
        shared_ffn=d.ffn.size,
    )
    step, listed = settings.whole("interleave_moe_layer_step", 1), settings.items("moe_layers")
    mixed = [number in listed if listed else (number + 1) % step == 0 for number in range(d.layers)]
    experts = replace(experts, dense_layers=mixed.count(False))
    dense = replace(d, ffn=Dim("ffn", settings.whole("intermediate_size_mlp")))
    kinds = {True: layer(all_experts(d, experts), function), False: layer(dense, function)}
    for key in ("attention_chunk_size", "floor_scale"):
        settings.whole(key, 8192)
    settings.number("attn_scale", 0.1)
    for key in ("attn_temperature_tuning", "use_qk_norm"):
        settings.has(key)
    model = d.model(name, "llama4", tuple(kinds[kind] for kind in mixed))
    more = mixed.count(True) * d.hidden.size * experts.count
    return without(model, _MISSING, None, more, experts)


ARCHITECTURE = Architecture(
    name="llama4",
    write=write,
    model_types=("llama4_text",),
    safetensors=safetensors_names(),
    gguf={},
    harmless=frozenset(
        ("for_llm_compression", "no_rope_layers", "no_rope_layer_interval", "layer_types")
    ),
)
