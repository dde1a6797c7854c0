"""Phi 3 and 4 (Abdin et al. 2024): a Llama whose files have q, k and v, and gate and up, fused."""

from dataclasses import replace

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, gguf_names, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.settings import Settings

_FUSED = (("wq", "wk", "wv"), ("w_gate", "w_up"))  # one below the other


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    d, function = read_decoder(settings, slides=True), activation(settings)
    if settings.number("partial_rotary_factor", 1.0) != 1.0:
        raise settings.error("'partial_rotary_factor' is not 1: heads that rotate in part")
    layers = d.of_windows(lambda window: layer(d, function, window=window))
    return d.model(name, "phi3", layers)


_QKV, _UP = _FUSED
_FILES = dict.fromkeys(_QKV, "self_attn.qkv_proj") | dict.fromkeys(_UP, "mlp.gate_up_proj")
_GGUF = dict.fromkeys(_QKV, "attn_qkv") | dict.fromkeys(_UP, "ffn_up")
ARCHITECTURE = Architecture(
    name="phi3",
    write=write,
    model_types=("phi3",),
    safetensors=replace(safetensors_names(_FILES), fused=_FUSED),
    gguf={"phi3": replace(gguf_names(_GGUF), fused=_FUSED)},
)
