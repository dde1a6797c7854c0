"""Gemma 2 (Gemma Team 2024): norms before and after, soft caps, a window in every second layer."""

from cluster.model.architecture import Architecture
from cluster.model.decoder import Decoder, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.rotary import RotaryTable
from cluster.model.settings import Settings

CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
NAMES = safetensors_names(
    {
        "attn_after": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_after": "post_feedforward_layernorm",
    },
    norm_offset=1.0,
)


def layer(
    d: Decoder, rotary: RotaryTable, scale: float, window: int | None, cap: float | None = None,
    qk_norm: bool = False,
) -> Section:  # fmt: skip
    """A layer; with `qk_norm` as Gemma 3 has it."""
    b = Builder(d.hidden)
    h = b.norm(b.x, "attn_norm", d.eps)
    q = b.linear(h, "wq", d.heads, d.head_dim, rotary=True)
    k = b.linear(h, "wk", d.kv_heads, d.head_dim, rotary=True)
    if qk_norm:
        q = b.norm(q, "q_norm", d.eps, rotary=True)
        k = b.norm(k, "k_norm", d.eps, rotary=True)
    v = b.linear(h, "wv", d.kv_heads, d.head_dim)
    y = b.attention(b.rotary(q, rotary), b.rotary(k, rotary), v, scale, window=window, cap=cap)
    x = b.add(b.x, b.norm(b.linear(y, "wo", d.hidden), "attn_after", d.eps))
    h = b.norm(x, "ffn_norm", d.eps)
    y = b.gate(b.linear(h, "w_gate", d.ffn), b.linear(h, "w_up", d.ffn), "gelu")
    b.add(x, b.norm(b.linear(y, "w_down", d.hidden), "ffn_after", d.eps))
    return b.section()


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d = read_decoder(settings, tied=True, head_dim=256, slides=True, full_every=2)
    if settings.text("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise settings.error("'hidden_activation' is not gelu_pytorch_tanh")
    settings.text("hidden_act", "gelu_pytorch_tanh")
    scale = settings.number("query_pre_attn_scalar", d.head_dim.size) ** -0.5
    scores, logits = (settings.number(key) if settings.has(key) else None for key in CAPS)
    layers = d.of_windows(lambda window: layer(d, d.rotary, scale, window, scores))
    return d.model(name, "gemma2", layers, d.hidden.size**0.5, logits)


ARCHITECTURE = Architecture(
    name="gemma2",
    write=write,
    model_types=("gemma2",),
    safetensors=NAMES,
    gguf={},
    harmless=frozenset(("cache_implementation",)),
)
