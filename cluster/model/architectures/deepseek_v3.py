"""DeepSeek V3 and R1 (DeepSeek-AI 2024) and Kimi K2, until ops exist as a dense multi-head model.

Latent attention expands to heads of `nope + rope` elements; the first layers have a dense FFN.
"""

from dataclasses import replace

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import Decoder, activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.stand_in import Experts
from cluster.model.graph.values import Dim
from cluster.model.mixture import all_experts, without
from cluster.model.rotary_settings import rotary_table
from cluster.model.settings import Settings

_MISSING = ("latent attention",)
_NOTES = ("latent attention as the multi-head attention it expands to",)


def read_experts(settings: Settings) -> Experts:
    """Its mixture; the router's settings change no cost."""
    ffn = settings.whole("moe_intermediate_size")
    for key in ("n_group", "topk_group"):
        settings.whole(key, 1)
    settings.number("routed_scaling_factor", 1.0)
    settings.flag("norm_topk_prob", True)
    if settings.whole("moe_layer_freq", 1) != 1:
        raise settings.error("has dense layers among its mixtures, which is not known")
    return Experts(
        settings.whole("n_routed_experts"),
        settings.whole("num_experts_per_tok"),
        ffn,
        settings.whole("n_shared_experts", 0, least=0) * ffn,
        settings.whole("first_k_dense_replace", 0, least=0),
    )


def routers(d: Decoder, experts: Experts) -> int:
    """Weights of a layer's router, with a correction for each expert."""
    return (d.hidden.size + 1) * experts.count


def _attention_parameters(settings: Settings, d: Decoder, rope: int) -> tuple[int, int]:
    """(weights of latent attention in a layer, elements that a token adds to its cache)."""
    rank, kv_rank = settings.whole("q_lora_rank", 0, least=0), settings.whole("kv_lora_rank")
    values, rows = settings.whole("v_head_dim"), d.heads.size * d.head_dim.size
    queries = rank * (d.hidden.size + 1 + rows) if rank else d.hidden.size * rows
    keys = d.hidden.size * (kv_rank + rope) + kv_rank
    expanded = kv_rank * d.heads.size * (d.head_dim.size - rope + values)
    return queries + keys + expanded + d.heads.size * values * d.hidden.size, kv_rank + rope


def _attention_of(section: Section) -> int:
    """Weights of a layer's attention without norms."""
    matrices = (w for w in section.weights if w.name in ("wq", "wk", "wv", "wo"))
    return sum(w.shape[0] * w.shape[1] for w in matrices)


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    rope = settings.whole("qk_rope_head_dim")
    width = settings.whole("qk_nope_head_dim") + rope
    d = replace(read_decoder(settings, head_dim=width), head_dim=Dim("head_dim", width))
    kv_heads = Dim("kv_heads", d.heads.size)
    d = replace(d, rotary=rotary_table(settings, width), kv_heads=kv_heads)
    if settings.whole("qk_head_dim", width) != width:
        raise settings.error("'qk_head_dim' is not the sum of its two parts")
    for key, usual in (("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")):
        if settings.text(key, usual) != usual:
            raise settings.error(f"'{key}' is not '{usual}'")
    settings.flag("rope_interleave", True)
    experts, function = read_experts(settings), activation(settings)
    dense, mixed = layer(d, function), layer(all_experts(d, experts), function)
    first = min(experts.dense_layers, d.layers)
    latent, cached = _attention_parameters(settings, d, rope)
    more = d.layers * (latent - _attention_of(dense))
    more += (d.layers - first) * routers(d, experts)
    model = d.model(name, "deepseek_v3", (dense,) * first + (mixed,) * (d.layers - first))
    return without(model, _MISSING, _NOTES, more, experts, d.layers * cached)


ARCHITECTURE = Architecture(
    name="deepseek_v3",
    write=write,
    model_types=("deepseek_v3", "kimi_k2"),
    safetensors=safetensors_names(),
    gguf={},
)
