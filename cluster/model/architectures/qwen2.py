"""Qwen 2 and 2.5 (Yang et al. 2024): biases on queries, keys and values."""

from cluster.model.architecture import Architecture
from cluster.model.decoder import Decoder, activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model, Section
from cluster.model.settings import Settings


def layer(d: Decoder, function: str, window: int | None) -> Section:
    """A layer, with a gate of `function`."""
    b = Builder(d.hidden)
    h = b.norm(b.x, "attn_norm", d.eps)
    q = b.rotary(b.linear(h, "wq", d.heads, d.head_dim, bias=True, rotary=True), d.rotary)
    k = b.rotary(b.linear(h, "wk", d.kv_heads, d.head_dim, bias=True, rotary=True), d.rotary)
    v = b.linear(h, "wv", d.kv_heads, d.head_dim, bias=True)
    x = b.add(b.x, b.linear(b.attention(q, k, v, d.scale, window=window), "wo", d.hidden))
    h = b.norm(x, "ffn_norm", d.eps)
    y = b.gate(b.linear(h, "w_gate", d.ffn), b.linear(h, "w_up", d.ffn), function)
    b.add(x, b.linear(y, "w_down", d.hidden))
    return b.section()


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings, slides=False), activation(settings)
    return d.model(name, "qwen2", d.of_windows(lambda window: layer(d, function, window)))


ARCHITECTURE = Architecture(
    name="qwen2",
    write=write,
    model_types=("qwen2",),
    safetensors=safetensors_names(),
    gguf={"qwen2": gguf_names()},
)
