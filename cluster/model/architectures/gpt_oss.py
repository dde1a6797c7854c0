"""gpt-oss (OpenAI 2025): sinks, windows in every second layer, experts with a clamped gate.

More experts than a bank holds of a tile stand as a dense model of all of them.
"""

from dataclasses import replace

from cluster.model.architecture import Architecture, Stacked
from cluster.model.architectures.llama import layer as plain_layer
from cluster.model.decoder import Decoder, activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import all_experts, clamped_mixture, gatherable, without
from cluster.model.settings import Settings

_MISSING = ("attention sinks", "the clamped gate and the biases of experts")


def layer(
    d: Decoder, experts: Experts, slope: float, limit: float, bias: bool, window: int | None
) -> Section:
    """A layer; `slope` and `limit` are those of the gate."""
    b = Builder(d.hidden)
    h = b.norm(b.x, "attn_norm", d.eps)
    q = b.rotary(b.linear(h, "wq", d.heads, d.head_dim, bias=bias, rotary=True), d.rotary)
    k = b.rotary(b.linear(h, "wk", d.kv_heads, d.head_dim, bias=bias, rotary=True), d.rotary)
    v = b.linear(h, "wv", d.kv_heads, d.head_dim, bias=bias)
    y = b.attention(q, k, v, d.scale, window=window, sinks="sinks")
    x = b.add(b.x, b.linear(y, "wo", d.hidden, bias=bias))
    h = b.norm(x, "ffn_norm", d.eps)
    b.add(x, clamped_mixture(b, h, experts, slope, limit, d.hidden))
    return b.section()


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    if not settings.has("rope_scaling") and not settings.has("rope_parameters"):
        raise settings.error("has no 'rope_scaling'", "its class means YaRN by that")
    d = read_decoder(settings, theta=150000.0, head_dim=64, slides=True, full_every=2)
    slope, limit = settings.number("swiglu_alpha", 1.702), settings.number("swiglu_limit", 7.0)
    bias, function = settings.flag("attention_bias", True), activation(settings)
    width = settings.whole("moe_intermediate_size", d.ffn.size)  # as GGUF headers call it
    count = settings.whole("num_local_experts")
    experts = Experts(count, settings.whole("num_experts_per_tok"), width)
    if gatherable(experts):
        layers = d.of_windows(lambda window: layer(d, experts, slope, limit, bias, window))
        return d.model(name, "gpt_oss", layers)
    wide = all_experts(d, experts)
    layers = d.of_windows(lambda window: plain_layer(wide, function, bias, window=window))
    router = (d.hidden.size + 1) * count
    biases = count * (2 * width + d.hidden.size)
    more = d.layers * (router + biases + d.heads.size)
    return without(d.model(name, "gpt_oss", layers), _MISSING, None, more, experts)


# Gate and up take turns in the rows of one tensor.
_FUSED = (("w_gate", "w_up"), ("w_gate.bias", "w_up.bias"))
_UP, _UP_BIAS = (Stacked(f"mlp.experts.gate_up_proj{end}", not end) for end in ("", "_bias"))
_STACKED = dict.fromkeys(_FUSED[0], _UP) | dict.fromkeys(_FUSED[1], _UP_BIAS)
_STACKED["w_down"] = Stacked("mlp.experts.down_proj", turned=True)
_STACKED["w_down.bias"] = Stacked("mlp.experts.down_proj_bias")
_FILES = {"router": "mlp.router", "sinks": "self_attn.sinks"}
_GGUF = {"ffn_norm": "post_attention_norm", "sinks": "attn_sinks"}
ARCHITECTURE = Architecture(
    name="gpt_oss",
    write=write,
    model_types=("gpt_oss",),
    safetensors=replace(
        safetensors_names(_FILES), stacked=_STACKED, fused=_FUSED, bare=frozenset(("sinks",))
    ),
    gguf={"gpt-oss": gguf_names(_GGUF, experts=True)},
    harmless=frozenset(("initial_context_length", "experts_per_token")),
    quantised=frozenset(("mxfp4",)),
)
