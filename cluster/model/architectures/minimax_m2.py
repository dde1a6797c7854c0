"""MiniMax M2 (MiniMax 2025), until ops exist as a dense model of all its experts."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import all_experts, without
from cluster.model.settings import Settings

_MISSING = ("norms of all queries and of all keys", "heads that rotate in part")


def write(settings: Settings, name: str) -> Model:
    """The model of some settings; its router adds a correction to sigmoid scores."""
    d, function = read_decoder(settings), activation(settings)
    count = settings.whole("num_local_experts")
    experts = Experts(count, settings.whole("num_experts_per_tok"), d.ffn.size)
    if settings.text("scoring_func", "sigmoid") != "sigmoid":
        raise settings.error("'scoring_func' is not 'sigmoid'")
    if settings.whole("shared_intermediate_size", 0, least=0):
        raise settings.error("has shared experts, which its class does not have")
    if settings.text("qk_norm_type", "per_layer") != "per_layer":
        raise settings.error("'qk_norm_type' is not 'per_layer'")
    settings.whole("rotary_dim", d.head_dim.size // 2)
    router = d.hidden.size * count + count * settings.flag("use_routing_bias", True)
    norms = (d.heads.size + d.kv_heads.size) * d.head_dim.size
    more = d.layers * (router + norms * settings.flag("use_qk_norm", True))
    layers = (layer(all_experts(d, experts), function),) * d.layers
    return without(d.model(name, "minimax_m2", layers), _MISSING, None, more, experts)


ARCHITECTURE = Architecture(
    name="minimax_m2",
    write=write,
    model_types=("minimax_m2",),
    safetensors=safetensors_names(),
    gguf={},
    harmless=frozenset(("attn_type_list", "use_mtp", "num_mtp_modules", "mtp_transformer_layers")),
)
