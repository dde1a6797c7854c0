"""BERT (Devlin et al. 2018) and MiniLM (Wang et al. 2020): norms after, every row sees all others.

The head is that of sentence transformers: the mean of the rows, of length 1.
"""

from cluster.model.architecture import Architecture, Tensors
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Embedding, Model, Section
from cluster.model.graph.values import Dim, Weight
from cluster.model.settings import Settings

_FUNCTIONS = {"gelu": "gelu_erf", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}


def layer(hidden: Dim, heads: Dim, ffn: Dim, function: str, eps: float) -> Section:
    """A layer."""
    head_dim = Dim("head_dim", hidden.size // heads.size)
    kv_heads = Dim("kv_heads", heads.size)
    b = Builder(hidden)
    k = b.linear(b.x, "wk", kv_heads, head_dim, bias=True)  # of all rows, before any is scored
    v = b.linear(b.x, "wv", kv_heads, head_dim, bias=True)
    q = b.linear(b.x, "wq", heads, head_dim, bias=True)
    y = b.attention(q, k, v, head_dim.size**-0.5, causal=False)
    x = b.add(b.x, b.linear(y, "wo", hidden, bias=True))
    x = b.norm(x, "attn_norm", eps, form="layer")
    y = b.activation(b.linear(x, "w_up", ffn, bias=True), function)
    x = b.add(x, b.linear(y, "w_down", hidden, bias=True))
    b.norm(x, "ffn_norm", eps, form="layer")
    return b.section()


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    if settings.flag("is_decoder", False):
        raise settings.error("'is_decoder' is True: each token would see only those before it")
    width, count = settings.whole("hidden_size"), settings.whole("num_attention_heads")
    if width % count:
        raise settings.error(f"'hidden_size' {width} is not a multiple of {count} heads")
    hidden, heads = Dim("hidden", width), Dim("heads", count)
    vocab, ffn = settings.whole("vocab_size"), Dim("ffn", settings.whole("intermediate_size"))
    context, eps = settings.whole("max_position_embeddings"), settings.number("layer_norm_eps")
    called = settings.text("hidden_act", "gelu")
    if called not in _FUNCTIONS:
        known = f"known: {', '.join(_FUNCTIONS)}"
        raise settings.error(f"has the activation '{called}'", known)
    opening, head = Builder(hidden), Builder(hidden)
    opening.norm(opening.x, "embedding_norm", eps, form="layer")
    head.pool(head.x)
    tables = Embedding(
        Weight("embedding", (Dim("vocab", vocab),), (hidden,)),
        positions=Weight("positions", (Dim("positions", context),), (hidden,)),
        kinds=Weight("kinds", (Dim("kinds", settings.whole("type_vocab_size", 2)),), (hidden,)),
    )
    section = layer(hidden, heads, ffn, _FUNCTIONS[called], eps)
    return Model(
        name, "bert", hidden, vocab, context, tables,
        (section,) * settings.whole("num_hidden_layers", most=4096),
        head.section(), opening.section(),
    )  # fmt: skip


ARCHITECTURE = Architecture(
    name="bert",
    write=write,
    model_types=("bert",),
    safetensors=Tensors(
        layer="encoder.layer.{}.",
        inside={
            "wq": "attention.self.query",
            "wk": "attention.self.key",
            "wv": "attention.self.value",
            "wo": "attention.output.dense",
            "attn_norm": "attention.output.LayerNorm",
            "w_up": "intermediate.dense",
            "w_down": "output.dense",
            "ffn_norm": "output.LayerNorm",
        },
        outside={
            "embedding": "embeddings.word_embeddings",
            "positions": "embeddings.position_embeddings",
            "kinds": "embeddings.token_type_embeddings",
            "embedding_norm": "embeddings.LayerNorm",
            "head": "cls.predictions.decoder",  # of a language model, which this is not
        },
        # The pooler is for other tasks than embedding; the position ids are 0, 1, 2, ...
        ignored=("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"),
    ),
    gguf={},
    harmless=frozenset(("tie_word_embeddings",)),  # its head is not that of a language model
)
