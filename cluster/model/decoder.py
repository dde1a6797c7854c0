"""What decoders have in common: sizes in their settings, names of tensors, and their two ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cluster.model.architecture import Tensors
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
_GGUF_OUTSIDE = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
_NONE: Mapping[str, str] = MappingProxyType({})
FREQUENCY_FACTORS = "rope_freqs.weight"  # llama.cpp's form of what a config calls llama3
LAYERS_MAX = 4096  # so that a damaged header cannot ask for millions
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

    @property
    def scale(self) -> float:
        """Of the scores of attention: 1 / sqrt(head_dim)."""
        return float(self.head_dim.size**-0.5)

    def head(self) -> Section:
        """The last norm, and a logit for every token of the vocabulary."""
        b = Builder(self.hidden)
        b.linear(b.norm(b.x, "final_norm", self.eps), "head", self.vocab)
        return b.section()

    def model(
        self, name: str, architecture: str, layers: tuple[Section, ...], scale: float = 1.0
    ) -> Model:
        """The whole model; `scale` multiplies embeddings."""
        table = Weight("embedding", (self.vocab,), (self.hidden,))
        return Model(
            name, architecture, self.hidden, self.vocab.size, self.context_max,
            Embedding(table, scale), layers, self.head(), tied_head=self.tied_head,
        )  # fmt: skip


def read_decoder(
    settings: Settings,
    tied: bool = False,
    theta: float = THETA,
    head_dim: int | None = None,
    slides: bool | None = None,
    rotary: RotaryTable | None = None,
) -> Decoder:
    """The sizes in some settings; `tied`, `theta` and `head_dim` hold where they say nothing.

    With `slides`, what they call a window counts unless they say that it does not.
    """
    heads, hidden = settings.whole("num_attention_heads"), settings.whole("hidden_size")
    width = settings.whole("head_dim", head_dim or max(1, hidden // heads))
    context = settings.whole("max_position_embeddings")
    if slides is not None:
        context = min(context, window(settings, slides) or context)
    return Decoder(
        hidden=Dim("hidden", hidden),
        heads=Dim("heads", heads),
        kv_heads=Dim("kv_heads", settings.whole("num_key_value_heads", heads)),
        head_dim=Dim("head_dim", width),
        ffn=Dim("ffn", settings.whole("intermediate_size")),
        vocab=Dim("vocab", settings.whole("vocab_size")),
        layers=settings.whole("num_hidden_layers", most=LAYERS_MAX),
        eps=settings.number("rms_norm_eps"),
        rotary=rotary or rotary_table(settings, width, theta),
        context_max=context,
        tied_head=settings.flag("tie_word_embeddings", tied),
    )


def window(settings: Settings, slides: bool) -> int | None:
    """Tokens that a row of any layer looks back at; None where all layers see all of them.

    Caches do not slide yet: a model is right up to its window only.
    """
    size = settings.whole("sliding_window") if settings.has("sliding_window") else None
    slides = settings.flag("use_sliding_window", slides)
    if settings.whole("max_window_layers", 0, least=0) >= settings.whole("num_hidden_layers"):
        slides = False
    kinds = settings.items("layer_types")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise settings.error(f"has a layer of type {kind!r}, which is not known")
    if kinds:
        slides = "sliding_attention" in kinds
    return size if slides else None


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


def gguf_names(changed: Mapping[str, str] = _NONE, adjacent_pairs: bool = False) -> Tensors:
    """Names that llama.cpp gives them."""
    names = _GGUF_INSIDE | dict(changed)
    return Tensors("blk.{}.", names, _GGUF_OUTSIDE, adjacent_pairs, ignored=(FREQUENCY_FACTORS,))
