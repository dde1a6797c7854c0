"""Gemma 3 (Gemma Team 2025), the text model: two rotary bases, norms of q and k."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.gemma2 import CAPS, NAMES, layer
from cluster.model.decoder import FULL, SLIDING, layer_kinds, read_decoder
from cluster.model.graph.graph import Model
from cluster.model.graph.rotary import RotaryTable
from cluster.model.rotary_settings import rotary_table
from cluster.model.settings import Settings


def _tables(settings: Settings, width: int) -> dict[str, RotaryTable]:
    """The rotary table of each kind of layer; transformers 5 has one object for each."""
    local = settings.number("rope_local_base_freq", 10000.0)
    both = settings.table("rope_parameters")
    if both.has(FULL) or both.has(SLIDING):
        thetas = {FULL: 1e6, SLIDING: local}
        return {
            kind: rotary_table(settings, width, theta, both.table(kind))
            for kind, theta in thetas.items()
        }
    full = rotary_table(settings, width, 1e6, settings.table("rope_scaling"))
    return {FULL: full, SLIDING: RotaryTable(local, width)}


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    tables, every = _tables(settings, settings.whole("head_dim", 256)), 6
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        every = settings.whole(key, every)
    d = read_decoder(
        settings, tied=True, head_dim=256, slides=True, full_every=every, rotary=tables[FULL]
    )
    if settings.text("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise settings.error("'hidden_activation' is not gelu_pytorch_tanh")
    for key in CAPS:
        if settings.has(key):
            raise settings.error(f"'{key}' is set, which Gemma 3 does not have")
    scale = settings.number("query_pre_attn_scalar", 256.0) ** -0.5
    kinds = tuple(zip(layer_kinds(settings, True, every), d.windows, strict=True))
    of_kind = {
        (kind, window): layer(d, tables[kind], scale, window, qk_norm=True)
        for kind, window in dict.fromkeys(kinds)
    }
    layers = tuple(of_kind[kind] for kind in kinds)
    return d.model(name, "gemma3", layers, scale=d.hidden.size**0.5)


ARCHITECTURE = Architecture(
    name="gemma3",
    write=write,
    model_types=("gemma3_text",),
    safetensors=NAMES,
    gguf={},
)
