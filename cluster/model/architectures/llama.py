"""Llama (Touvron et al. 2023; Dubey et al. 2024), and models that share its layers."""

from cluster.model.architecture import Architecture
from cluster.model.decoder import Decoder, activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import mixture
from cluster.model.settings import Settings


def layer(
    d: Decoder, function: str, bias: bool = False, ffn_bias: bool = False,
    window: int | None = None, experts: Experts | None = None,
) -> Section:  # fmt: skip
    """A layer, with a gate of `function`; its FFN is a mixture, if there are `experts`."""
    b = Builder(d.hidden)
    h = b.norm(b.x, "attn_norm", d.eps)
    q = b.rotary(b.linear(h, "wq", d.heads, d.head_dim, bias=bias, rotary=True), d.rotary)
    k = b.rotary(b.linear(h, "wk", d.kv_heads, d.head_dim, bias=bias, rotary=True), d.rotary)
    v = b.linear(h, "wv", d.kv_heads, d.head_dim, bias=bias)
    y = b.attention(q, k, v, d.scale, window=window)
    x = b.add(b.x, b.linear(y, "wo", d.hidden, bias=bias))
    h = b.norm(x, "ffn_norm", d.eps)
    if experts is not None:
        b.add(x, mixture(b, h, experts, function, d.hidden))
        return b.section()
    gate, up = (b.linear(h, name, d.ffn, bias=ffn_bias) for name in ("w_gate", "w_up"))
    b.add(x, b.linear(b.gate(gate, up, function), "w_down", d.hidden, bias=ffn_bias))
    return b.section()


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings), activation(settings)
    biases = settings.flag("attention_bias", False), settings.flag("mlp_bias", False)
    return d.model(name, "llama", (layer(d, function, *biases),) * d.layers)


ARCHITECTURE = Architecture(
    name="llama",
    write=write,
    model_types=("llama",),
    safetensors=safetensors_names(),
    gguf={"llama": gguf_names(adjacent_pairs=True)},
)
