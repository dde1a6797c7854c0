"""Qwen 3 (Yang et al. 2025): queries and keys are normed head by head, biases are gone."""

from cluster.model.architecture import Architecture
from cluster.model.decoder import Decoder, activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import mixture
from cluster.model.settings import Settings


def layer(
    d: Decoder, function: str, window: int | None = None, experts: Experts | None = None
) -> Section:
    """A layer, with a gate of `function`; its FFN is a mixture, if there are `experts`."""
    b = Builder(d.hidden)
    h = b.norm(b.x, "attn_norm", d.eps)
    q = b.linear(h, "wq", d.heads, d.head_dim, rotary=True)
    q = b.rotary(b.norm(q, "q_norm", d.eps, rotary=True), d.rotary)
    k = b.linear(h, "wk", d.kv_heads, d.head_dim, rotary=True)
    k = b.rotary(b.norm(k, "k_norm", d.eps, rotary=True), d.rotary)
    v = b.linear(h, "wv", d.kv_heads, d.head_dim)
    x = b.add(b.x, b.linear(b.attention(q, k, v, d.scale, window=window), "wo", d.hidden))
    h = b.norm(x, "ffn_norm", d.eps)
    if experts is not None:
        b.add(x, mixture(b, h, experts, function, d.hidden))
        return b.section()
    y = b.gate(b.linear(h, "w_gate", d.ffn), b.linear(h, "w_up", d.ffn), function)
    b.add(x, b.linear(y, "w_down", d.hidden))
    return b.section()


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings, head_dim=128, slides=False), activation(settings)
    return d.model(name, "qwen3", d.of_windows(lambda window: layer(d, function, window)))


ARCHITECTURE = Architecture(
    name="qwen3",
    write=write,
    model_types=("qwen3",),
    safetensors=safetensors_names(),
    gguf={"qwen3": gguf_names()},
)
