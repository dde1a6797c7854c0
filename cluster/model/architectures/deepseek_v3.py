"""DeepSeek V3 and R1 (DeepSeek-AI 2024) and Kimi K2: latent attention, and mixtures with a shared
expert behind some dense layers.
"""

from dataclasses import dataclass, replace

from cluster.model.architecture import Architecture, Stacked
from cluster.model.decoder import activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.stand_in import Experts
from cluster.model.graph.values import Dim, Value
from cluster.model.rope import yarn_magnitude
from cluster.model.rotary_settings import rotary_table
from cluster.model.settings import Settings

KEY = Dim("key", 1)  # the one head of turned keys, which all queries look at


@dataclass(frozen=True)
class Latent:
    """Sizes of latent attention; without a `rank` queries come straight from the layer's input."""

    rank: int
    kv_rank: int
    plain: int  # elements of a head that do not turn
    turned: int
    values: int
    scale: float


@dataclass(frozen=True)
class Router:
    """How experts are chosen; see graph.grouped_route."""

    groups: int
    kept: int
    normed: bool
    scale: float


def read_latent(settings: Settings, rope: Settings) -> Latent:
    """Its attention; YaRN's magnitude of all dimensions is in the scale of scores."""
    plain, turned = settings.whole("qk_nope_head_dim"), settings.whole("qk_rope_head_dim")
    if settings.whole("qk_head_dim", plain + turned) != plain + turned:
        raise settings.error("'qk_head_dim' is not the sum of its two parts")
    if not settings.flag("rope_interleave", True):
        raise settings.error("'rope_interleave' is false, only true can be computed")
    scale, all_dims = (plain + turned) ** -0.5, rope.number("mscale_all_dim", 0.0, positive=False)
    if all_dims:
        scale *= yarn_magnitude(rope.number("factor"), all_dims) ** 2
    ranks = settings.whole("q_lora_rank", 0, least=0), settings.whole("kv_lora_rank")
    return Latent(*ranks, plain, turned, settings.whole("v_head_dim"), scale)


def read_experts(settings: Settings) -> Experts:
    """Its mixture."""
    ffn = settings.whole("moe_intermediate_size")
    if settings.whole("moe_layer_freq", 1) != 1:
        raise settings.error("has dense layers among its mixtures, which is not known")
    return Experts(
        settings.whole("n_routed_experts"),
        settings.whole("num_experts_per_tok"),
        ffn,
        settings.whole("n_shared_experts", 0, least=0) * ffn,
        settings.whole("first_k_dense_replace", 0, least=0),
    )


def read_router(settings: Settings) -> Router:
    """Its router; other ways to score or to choose are refused."""
    for key, usual in (("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")):
        if settings.text(key, usual) != usual:
            raise settings.error(f"'{key}' is not '{usual}'")
    return Router(
        settings.whole("n_group", 1),
        settings.whole("topk_group", 1),
        settings.flag("norm_topk_prob", True),
        settings.number("routed_scaling_factor", 1.0),
    )


def add_attention(b: Builder, heads: Dim, eps: float, table: RotaryTable, latent: Latent) -> Value:
    """A layer's input with what latent attention adds to it."""
    plain, turned = Dim("plain", latent.plain), Dim("turned", latent.turned)
    row, values = Dim("latent", latent.kv_rank), Dim("head_dim", latent.values)
    h = b.norm(b.x, "attn_norm", eps)
    source, names = h, ("wq_plain", "wq_turned")
    if latent.rank:
        rank = b.linear(h, "wq_a", Dim("query_rank", latent.rank))
        source, names = b.norm(rank, "q_a_norm", eps), ("wq_b_plain", "wq_b_turned")
    q = b.linear(source, names[0], heads, plain)
    q_turned = b.rotary(b.linear(source, names[1], heads, turned, rotary=True), table)
    cached = b.norm(b.linear(h, "wkv_a", row), "kv_a_norm", eps)
    k = b.rotary(b.linear(h, "wk_turned", KEY, turned, rotary=True), table)
    q = b.head_linear(q, "wk_b", row)
    mixed = b.latent_attention(q, q_turned, cached, k, latent.scale)
    return b.add(b.x, b.linear(b.head_linear(mixed, "wv_b", values), "wo", *b.x.dims))


def ffn(b: Builder, h: Value, names: tuple[str, str, str], size: int, function: str) -> Value:
    """An FFN of three matrices with a gate."""
    gate, up = (b.linear(h, name, Dim("ffn", size)) for name in names[:2])
    return b.linear(b.gate(gate, up, function), names[2], h.dims[0])


def mixture(b: Builder, h: Value, experts: Experts, router: Router, function: str) -> Value:
    """The experts that a row goes to, and those that all rows go to.

    These come first, as arrays have nothing else to do until the others are known.
    """
    scores = b.linear(h, "router", Dim("experts", experts.count))
    how = (router.groups, router.kept, router.normed, router.scale)
    choice = b.grouped_route(scores, "router.e_score_correction_bias", experts.chosen, *how)
    names, shared = ("shared_gate", "shared_up", "shared_down"), None
    if experts.shared_ffn:
        shared = ffn(b, h, names, experts.shared_ffn, function)
    columns = Dim("expert_ffn", experts.ffn)
    gate, up = (b.experts(h, choice, name, columns) for name in ("expert_gate", "expert_up"))
    y = b.experts(b.gate(gate, up, function), choice, "expert_down", h.dims[0])
    return y if shared is None else b.add(y, shared)


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    rope = settings.table("rope_scaling", "rope_parameters")
    latent, function = read_latent(settings, rope), activation(settings)
    d = read_decoder(settings, rotary=rotary_table(settings, latent.turned, table=rope))
    d = replace(d, head_dim=Dim("head_dim", latent.values))
    experts, router = read_experts(settings), read_router(settings)

    def layer(dense: bool) -> Section:
        b = Builder(d.hidden)
        x = add_attention(b, d.heads, d.eps, d.rotary, latent)
        h = b.norm(x, "ffn_norm", d.eps)
        if dense:
            b.add(x, ffn(b, h, ("w_gate", "w_up", "w_down"), d.ffn.size, function))
        else:
            b.add(x, mixture(b, h, experts, router, function))
        return b.section()

    first = min(experts.dense_layers, d.layers)
    layers = (layer(True),) * first + (layer(False),) * (d.layers - first)
    return d.model(name, "deepseek_v3", layers)


_FUSED = (
    ("wq_plain", "wq_turned"),
    ("wq_b_plain", "wq_b_turned"),
    ("wkv_a", "wk_turned"),
    ("wk_b", "wv_b"),
)
_BY_HEAD = frozenset(("wq_plain", "wq_turned", "wq_b_plain", "wq_b_turned"))
_EXPERT, _SHARED, _ATTENTION = "mlp.experts.{}.", "mlp.shared_experts.", "self_attn."
ARCHITECTURE = Architecture(
    name="deepseek_v3",
    write=write,
    model_types=("deepseek_v3", "kimi_k2"),
    safetensors=replace(
        safetensors_names(
            {
                "wq_plain": f"{_ATTENTION}q_proj",
                "wq_turned": f"{_ATTENTION}q_proj",
                "wq_a": f"{_ATTENTION}q_a_proj",
                "q_a_norm": f"{_ATTENTION}q_a_layernorm",
                "wq_b_plain": f"{_ATTENTION}q_b_proj",
                "wq_b_turned": f"{_ATTENTION}q_b_proj",
                "wkv_a": f"{_ATTENTION}kv_a_proj_with_mqa",
                "wk_turned": f"{_ATTENTION}kv_a_proj_with_mqa",
                "kv_a_norm": f"{_ATTENTION}kv_a_layernorm",
                "wk_b": f"{_ATTENTION}kv_b_proj",
                "wv_b": f"{_ATTENTION}kv_b_proj",
                "router": "mlp.gate",
                "expert_gate": f"{_EXPERT}gate_proj",
                "expert_up": f"{_EXPERT}up_proj",
                "expert_down": f"{_EXPERT}down_proj",
                "shared_gate": f"{_SHARED}gate_proj",
                "shared_up": f"{_SHARED}up_proj",
                "shared_down": f"{_SHARED}down_proj",
            }
        ),
        adjacent_pairs=True,
        fused=_FUSED,
        by_head=_BY_HEAD | {"wk_b", "wv_b"},
        transposed=frozenset(("wk_b",)),
    ),
    gguf={
        "deepseek2": replace(
            gguf_names(
                {
                    "wq_plain": "attn_q",
                    "wq_turned": "attn_q",
                    "wq_a": "attn_q_a",
                    "q_a_norm": "attn_q_a_norm",
                    "wq_b_plain": "attn_q_b",
                    "wq_b_turned": "attn_q_b",
                    "wkv_a": "attn_kv_a_mqa",
                    "wk_turned": "attn_kv_a_mqa",
                    "kv_a_norm": "attn_kv_a_norm",
                    "router": "ffn_gate_inp",
                    "router.e_score_correction_bias": "exp_probs_b.bias",
                    "shared_gate": "ffn_gate_shexp",
                    "shared_up": "ffn_up_shexp",
                    "shared_down": "ffn_down_shexp",
                },
                adjacent_pairs=True,
            ),
            fused=_FUSED[:3],
            by_head=_BY_HEAD,
            stacked={
                "wk_b": Stacked("attn_k_b.weight"),
                "wv_b": Stacked("attn_v_b.weight"),
                "expert_gate": Stacked("ffn_gate_exps.weight"),
                "expert_up": Stacked("ffn_up_exps.weight"),
                "expert_down": Stacked("ffn_down_exps.weight"),
            },
        )
    },
)
