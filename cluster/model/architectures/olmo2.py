"""OLMo 2 (OLMo et al. 2024): norms behind attention and FFN, and over all heads of q and of k."""

from cluster.model.architecture import Architecture
from cluster.model.decoder import activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model
from cluster.model.settings import Settings


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings), activation(settings)

    b = Builder(d.hidden)
    q = b.linear(b.x, "wq", d.heads, d.head_dim, rotary=True)
    q = b.rotary(b.norm(q, "q_norm", d.eps, over=2, rotary=True), d.rotary)
    k = b.linear(b.x, "wk", d.kv_heads, d.head_dim, rotary=True)
    k = b.rotary(b.norm(k, "k_norm", d.eps, over=2, rotary=True), d.rotary)
    v = b.linear(b.x, "wv", d.kv_heads, d.head_dim)
    y = b.linear(b.attention(q, k, v, d.scale), "wo", d.hidden)
    x = b.add(b.x, b.norm(y, "attn_norm", d.eps))
    y = b.gate(b.linear(x, "w_gate", d.ffn), b.linear(x, "w_up", d.ffn), function)
    b.add(x, b.norm(b.linear(y, "w_down", d.hidden), "ffn_norm", d.eps))

    return d.model(name, "olmo2", (b.section(),) * d.layers)


ARCHITECTURE = Architecture(
    name="olmo2",
    write=write,
    model_types=("olmo2",),
    safetensors=safetensors_names(
        {"attn_norm": "post_attention_layernorm", "ffn_norm": "post_feedforward_layernorm"}
    ),
    gguf={"olmo2": gguf_names({"attn_norm": "post_attention_norm", "ffn_norm": "post_ffw_norm"})},
)
