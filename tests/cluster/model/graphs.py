"""Small decoders as graphs, written by hand, with random weights."""

from dataclasses import dataclass

from cluster.model.graph.builder import Builder
from cluster.model.graph.graph import Embedding, Model, Section
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.values import Dim, Value, Weight
from cluster.model.weights.synthetic import SyntheticWeights

EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; `qk_norm` is of each head, of all heads together, or missing."""

    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    vocab: int = 128
    layers: int = 2
    bias: bool = False
    qk_norm: str = ""
    norms_after: bool = False
    function: str = "silu"
    tied_head: bool = True
    window: int | None = None
    cap: float | None = None
    sinks: str = ""


TINY = Shape()  # as the model `tiny`


def decoder(shape: Shape) -> Model:
    """A decoder of that shape."""
    hidden, vocab = Dim("hidden", shape.hidden), Dim("vocab", shape.vocab)
    head = Builder(hidden)
    head.linear(head.norm(head.x, "final_norm", EPS), "head", vocab)
    table = Embedding(Weight("embedding", (vocab,), (hidden,)))
    layers = (layer(shape),) * shape.layers
    return Model(
        "tiny", "llama", hidden, shape.vocab, 512, table, layers, head.section(),
        tied_head=shape.tied_head,
    ).check()  # fmt: skip


def layer(shape: Shape) -> Section:
    """One layer."""
    hidden, head_dim = Dim("hidden", shape.hidden), Dim("head_dim", shape.head_dim)
    heads, kv_heads = Dim("heads", shape.heads), Dim("kv_heads", shape.kv_heads)
    ffn = Dim("ffn", shape.ffn)
    b, table = Builder(hidden), RotaryTable(10000.0, shape.head_dim)

    def before(x: Value, name: str) -> Value:
        return x if shape.norms_after else b.norm(x, name, EPS)

    def after(y: Value, name: str) -> Value:
        return b.norm(y, name, EPS) if shape.norms_after else y

    def qk(x: Value, name: str) -> Value:
        if shape.qk_norm:
            x = b.norm(x, name, EPS, over={"head": 1, "all": 2}[shape.qk_norm], rotary=True)
        return b.rotary(x, table)

    h = before(b.x, "attn_norm")
    q = qk(b.linear(h, "wq", heads, head_dim, bias=shape.bias, rotary=True), "q_norm")
    k = qk(b.linear(h, "wk", kv_heads, head_dim, bias=shape.bias, rotary=True), "k_norm")
    v = b.linear(h, "wv", kv_heads, head_dim, bias=shape.bias)
    scores = {"window": shape.window, "cap": shape.cap, "sinks": shape.sinks or None}
    y = b.attention(q, k, v, shape.head_dim**-0.5, **scores)
    y = b.linear(y, "wo", hidden, bias=shape.bias)
    x = b.add(b.x, after(y, "attn_norm"))
    h = before(x, "ffn_norm")
    gated = b.gate(b.linear(h, "w_gate", ffn), b.linear(h, "w_up", ffn), shape.function)
    b.add(x, after(b.linear(gated, "w_down", hidden), "ffn_norm"))
    return b.section()


def tiny_weights(shape: Shape = TINY, seed: int = 0) -> SyntheticWeights:
    """Random weights of a decoder; equal arguments give equal weights."""
    return SyntheticWeights(decoder(shape), seed)
