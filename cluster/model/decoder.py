"""What decoders have in common: sizes in their settings, names of tensors, and their two ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cluster.model.architecture import Stacked, Tensors
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Embedding, Model, Section
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.values import Dim, Weight
from cluster.model.rotary_settings import THETA, rotary_table
from cluster.model.settings import Settings

_INSIDE = {
    "attn_norm": "input_layernorm",
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}
_OUTSIDE = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
_GGUF_INSIDE = {
    "attn_norm": "attn_norm",
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm",
    "w_gate": "ffn_gate",
    "w_up": "ffn_up",
    "w_down": "ffn_down",
}
_GGUF_EXPERTS = {
    "w_gate": Stacked("ffn_gate_exps.weight"),
    "w_up": Stacked("ffn_up_exps.weight"),
    "w_down": Stacked("ffn_down_exps.weight"),
    "w_gate.bias": Stacked("ffn_gate_exps.bias"),
    "w_up.bias": Stacked("ffn_up_exps.bias"),
    "w_down.bias": Stacked("ffn_down_exps.bias"),
}
_GGUF_OUTSIDE = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
_NONE: Mapping[str, str] = MappingProxyType({})
FREQUENCY_FACTORS = "rope_freqs.weight"  # llama.cpp's form of what a config calls llama3
LAYERS_MAX = 4096  # so that a damaged header cannot ask for millions
SLIDING, FULL = "sliding_attention", "full_attention"
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}


@dataclass(frozen=True)
class Decoder:
    """Dimensions and constants that every decoder has."""

    hidden: Dim
    heads: Dim
    kv_heads: Dim
    head_dim: Dim
    ffn: Dim
    vocab: Dim
    layers: int
    eps: float
    rotary: RotaryTable
    context_max: int
    tied_head: bool
    windows: tuple[int | None, ...]  # how far back each layer looks; None is all of the sequence

    def of_windows(self, make: Callable[[int | None], Section]) -> tuple[Section, ...]:
        """Layers that differ by their windows alone."""
        made = {window: make(window) for window in dict.fromkeys(self.windows)}
        return tuple(made[window] for window in self.windows)

    @property
    def scale(self) -> float:
        """Of the scores of attention: 1 / sqrt(head_dim)."""
        return float(self.head_dim.size**-0.5)

    def head(self, cap: float | None = None) -> Section:
        """The last norm, and a logit for every token of the vocabulary, softly capped at +-cap."""
        b = Builder(self.hidden)
        logits = b.linear(b.norm(b.x, "final_norm", self.eps), "head", self.vocab)
        if cap is not None:
            b.soft_cap(logits, cap)
        return b.section()

    def model(
        self, name: str, architecture: str, layers: tuple[Section, ...], scale: float = 1.0,
        cap: float | None = None,
    ) -> Model:  # fmt: skip
        """The whole model; `scale` multiplies embeddings, `cap` bounds logits."""
        table = Weight("embedding", (self.vocab,), (self.hidden,))
        return Model(
            name, architecture, self.hidden, self.vocab.size, self.context_max,
            Embedding(table, scale), layers, self.head(cap), tied_head=self.tied_head,
        )  # fmt: skip


def read_decoder(
    settings: Settings,
    tied: bool = False,
    theta: float = THETA,
    head_dim: int | None = None,
    slides: bool | None = None,
    full_every: int = 0,
    rotary: RotaryTable | None = None,
) -> Decoder:
    """The sizes in some settings; `tied`, `theta` and `head_dim` hold where they say nothing.

    With `slides`, what they call a window counts, in the layers that `layer_kinds` says.
    """
    heads, hidden = settings.whole("num_attention_heads"), settings.whole("hidden_size")
    width = settings.whole("head_dim", head_dim or max(1, hidden // heads))
    layers = settings.whole("num_hidden_layers", most=LAYERS_MAX)
    windows: tuple[int | None, ...] = (None,) * layers
    if slides is not None:
        size = settings.whole("sliding_window") if settings.has("sliding_window") else None
        kinds = layer_kinds(settings, slides, full_every)
        windows = tuple(size if kind == SLIDING else None for kind in kinds)
    return Decoder(
        hidden=Dim("hidden", hidden),
        heads=Dim("heads", heads),
        kv_heads=Dim("kv_heads", settings.whole("num_key_value_heads", heads)),
        head_dim=Dim("head_dim", width),
        ffn=Dim("ffn", settings.whole("intermediate_size")),
        vocab=Dim("vocab", settings.whole("vocab_size")),
        layers=layers,
        eps=settings.number("rms_norm_eps"),
        rotary=rotary or rotary_table(settings, width, theta),
        context_max=settings.whole("max_position_embeddings"),
        tied_head=settings.flag("tie_word_embeddings", tied),
        windows=windows,
    )


def layer_kinds(settings: Settings, slides: bool, full_every: int = 0) -> tuple[str, ...]:
    """SLIDING or FULL for each layer: as listed, or by these rules of the public library.

    Layers slide, if they do at all, from `max_window_layers` on; every so manyth sees everything.
    """
    layers, listed = settings.whole("num_hidden_layers"), settings.items("layer_types")
    slides = settings.flag("use_sliding_window", slides)
    first = settings.whole("max_window_layers", 0, least=0)
    for kind in listed:
        if kind not in (FULL, SLIDING):
            raise settings.error(f"has a layer of type {kind!r}, which is not known")
    if listed and len(listed) != layers:
        raise settings.error(f"'layer_types' has {len(listed)} layers of {layers}")
    sliding = (
        slides and n >= first and bool(not full_every or (n + 1) % full_every)
        for n in range(layers)
    )
    return listed or tuple(SLIDING if one else FULL for one in sliding)


def activation(settings: Settings, key: str = "hidden_act") -> str:
    """The function of the gate; raises ModelError unless it is known."""
    name = settings.text(key, "silu")
    if name not in ACTIVATIONS:
        raise settings.error(f"has the activation '{name}'", f"known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def safetensors_names(changed: Mapping[str, str] = _NONE, norm_offset: float = 0.0) -> Tensors:
    """Names of the checkpoints of Llama and its kin; `changed` are modules of a layer."""
    # Old files carry this table, which follows from the config.
    return Tensors("model.layers.{}.", _INSIDE | dict(changed), _OUTSIDE, norm_offset=norm_offset,
                   ignored=("rotary_emb.inv_freq",))  # fmt: skip


def gguf_names(
    changed: Mapping[str, str] = _NONE, adjacent_pairs: bool = False, experts: bool = False
) -> Tensors:
    """Names that llama.cpp gives them, with FFNs of experts or dense ones."""
    names = _GGUF_INSIDE | dict(changed) | ({"router": "ffn_gate_inp"} if experts else {})
    stacked = _GGUF_EXPERTS if experts else {}
    return Tensors("blk.{}.", names, _GGUF_OUTSIDE, adjacent_pairs, ignored=(FREQUENCY_FACTORS,),
                   stacked=stacked)  # fmt: skip
