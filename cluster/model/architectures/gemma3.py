"""Gemma 3 (Gemma Team 2025), the text model: two rotary bases, norms of q and k."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.gemma2 import CAPS, NAMES, layer
from cluster.model.decoder import activation, read_decoder
from cluster.model.graph.graph import Model
from cluster.model.graph.rotary import RotaryTable
from cluster.model.rotary_settings import rotary_table
from cluster.model.settings import Settings

_SLIDING, _FULL = "sliding_attention", "full_attention"


def _kinds(settings: Settings, layers: int) -> tuple[str, ...]:
    """The kind of each layer: as listed, or every sixth (or so) sees all of the context."""
    every = 6
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        every = settings.whole(key, every)
    kinds = settings.items("layer_types")
    if kinds and len(kinds) != layers:
        raise settings.error(f"'layer_types' has {len(kinds)} layers of {layers}")
    return kinds or tuple(_SLIDING if (n + 1) % every else _FULL for n in range(layers))


def _tables(settings: Settings, width: int) -> dict[str, RotaryTable]:
    """The rotary table of each kind of layer; transformers 5 has one object for each."""
    local = settings.number("rope_local_base_freq", 10000.0)
    both = settings.table("rope_parameters")
    if both.has(_FULL) or both.has(_SLIDING):
        thetas = {_FULL: 1e6, _SLIDING: local}
        return {
            kind: rotary_table(settings, width, theta, both.table(kind))
            for kind, theta in thetas.items()
        }
    full = rotary_table(settings, width, 1e6, settings.table("rope_scaling"))
    return {_FULL: full, _SLIDING: RotaryTable(local, width)}


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    tables = _tables(settings, settings.whole("head_dim", 256))
    d = read_decoder(settings, tied=True, head_dim=256, slides=True, rotary=tables[_FULL])
    if activation(settings, "hidden_activation") != "gelu":
        raise settings.error("'hidden_activation' is not gelu_pytorch_tanh")
    for key in CAPS:
        if settings.has(key):
            raise settings.error(f"'{key}' is set, which Gemma 3 does not have")
    scale = settings.number("query_pre_attn_scalar", 256.0) ** -0.5
    of_kind = {kind: layer(d, table, scale, qk_norm=True) for kind, table in tables.items()}
    layers = tuple(of_kind[kind] for kind in _kinds(settings, d.layers))
    return d.model(name, "gemma3", layers, scale=d.hidden.size**0.5)


ARCHITECTURE = Architecture(
    name="gemma3",
    write=write,
    model_types=("gemma3_text",),
    safetensors=NAMES,
    gguf={},
)
