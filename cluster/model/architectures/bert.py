"""BERT (Devlin et al. 2019) as an encoder of sentences: post-norm layers, and the mean of rows."""

from cluster.model.architecture import Architecture, Tensors
from cluster.model.decoder import LAYERS_MAX
from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Embedding, Model
from cluster.model.graph.values import Dim, Weight
from cluster.model.settings import Settings

ACTIVATIONS = {"gelu": "gelu_erf", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "silu": "silu"}


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    hidden = Dim("hidden", settings.whole("hidden_size"))
    ffn = Dim("ffn", settings.whole("intermediate_size"))
    count = settings.whole("num_attention_heads")
    if hidden.size % count:
        raise settings.error(f"has {count} heads of {hidden.size} elements in all")
    heads, head_dim = Dim("heads", count), Dim("head_dim", hidden.size // count)
    vocab, eps = Dim("vocab", settings.whole("vocab_size")), settings.number("layer_norm_eps")
    tokens = Dim("tokens", settings.whole("max_position_embeddings"))
    kinds = Dim("kinds", settings.whole("type_vocab_size", 2))
    tables = (Weight(n, (d,), (hidden,)) for n, d in (("positions", tokens), ("kinds", kinds)))

    opening = Builder(hidden)
    opening.norm(opening.x, "embedding_norm", eps, form="layer")

    b = Builder(hidden)
    q, k, v = (b.linear(b.x, n, heads, head_dim, bias=True) for n in ("wq", "wk", "wv"))
    y = b.attention(q, k, v, float(head_dim.size**-0.5), causal=False)
    x = b.add(b.x, b.linear(y, "wo", hidden, bias=True))
    x = b.norm(x, "attn_norm", eps, form="layer")
    y = b.activation(b.linear(x, "w_up", ffn, bias=True), _function(settings))
    x = b.add(x, b.linear(y, "w_down", hidden, bias=True))
    b.norm(x, "ffn_norm", eps, form="layer")

    head = Builder(hidden)
    head.pool(head.x)
    return Model(
        name, "bert", hidden, vocab.size, tokens.size,
        Embedding(Weight("embedding", (vocab,), (hidden,)), 1.0, *tables),
        (b.section(),) * settings.whole("num_hidden_layers", most=LAYERS_MAX),
        head.section(), opening.section(),
    )  # fmt: skip


def _function(settings: Settings) -> str:
    name = settings.text("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise settings.error(f"has the activation '{name}'", f"known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


ARCHITECTURE = Architecture(
    name="bert",
    write=write,
    model_types=("bert",),
    safetensors=Tensors(
        "encoder.layer.{}.",
        {
            "wq": "attention.self.query",
            "wk": "attention.self.key",
            "wv": "attention.self.value",
            "wo": "attention.output.dense",
            "attn_norm": "attention.output.LayerNorm",
            "w_up": "intermediate.dense",
            "w_down": "output.dense",
            "ffn_norm": "output.LayerNorm",
        },
        {
            "embedding": "embeddings.word_embeddings",
            "positions": "embeddings.position_embeddings",
            "kinds": "embeddings.token_type_embeddings",
            "embedding_norm": "embeddings.LayerNorm",
            "head": "cls.predictions.decoder",
        },
        # a table of 0, 1, .., and a layer behind the first token that mean pooling does not use
        ignored=("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"),
    ),
    gguf={},
)
