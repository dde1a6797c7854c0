"""How the elements of a rank's values lie in the lanes of blocks."""

from collections.abc import Iterator
from math import prod

from chip.kernels.attention_to_all import by_powers
from chip.kernels.layout import Layout, even, grouped, one_by_one, repeated
from chip.program import word_columns
from cluster.compiler.rank import Rank
from cluster.model.graph.attention import Attention
from cluster.model.graph.graph import Section
from cluster.model.graph.head_linear import HeadLinear
from cluster.model.graph.latent_attention import LatentAttention
from cluster.model.graph.linear import Linear
from cluster.model.graph.op import Op
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.route import CHOICE
from cluster.model.graph.values import Dim, Value


def layouts(section: Section, rank: Rank, lanes: int, weights: str) -> dict[str, Layout]:
    """The layout of every value of a section: what reads it decides."""
    makers = {op.out.name: op for op in section.ops}
    found: dict[str, Layout] = {}
    for op in section.ops:
        if isinstance(op, Attention):
            heads = rank.heads
            assert heads is not None
            if to_all(op, rank):
                heads = by_powers(heads)
            columns = [kv % heads.per_row * heads.head_lanes for kv in heads.kv_of]
            kv = grouped(heads.kv_heads, heads.head_lanes, heads.per_row)
            q = kv if to_all(op, rank) else one_by_one(columns, heads.head_lanes)
            for value, layout in ((op.q, q), (op.k, kv), (op.v, kv)):
                for name in _chain_of(value, makers):
                    found[name] = layout
            out = grouped(len(heads.kv_of), heads.head_lanes, heads.per_pack)
            found[op.out.name] = out
        if isinstance(op, LatentAttention):
            for value in (op.q, op.q_turned):
                one = plain_layout(value.dims[1:], rank, lanes, weights)
                layout = repeated(one, rank.size(value.dims[0]))
                found |= dict.fromkeys(_chain_of(value, makers), layout)
            found[op.out.name] = found[op.q.name]
    values = (section.x, *(op.out for op in section.ops))
    for op in section.ops:
        if isinstance(op, Quantise):  # as its input, and the other way round
            both = {op.x.name, op.out.name}
            known = [found[name] for name in both if name in found]
            found |= {name: known[0] for name in both if known}
    for value in values:
        if value.name not in found:
            found[value.name] = plain_layout(value.dims, rank, lanes, weights)
    return found


def plain_layout(dims: tuple[Dim, ...], rank: Rank, lanes: int, weights: str) -> Layout:
    """The layout of a value that nobody wants otherwise: blocks by themselves of each expert.

    A choice of experts has its numbers in all lanes; heads that fill words are side by side.
    """
    count = prod(rank.size(dim) for dim in dims)
    if dims[:1] == (CHOICE,):
        return one_by_one([0] * count, 1)
    if len(dims) == 2 and dims[0].name == "heads":
        heads, width = (rank.size(dim) for dim in dims)
        per_row = min(heads, lanes // width)
        if per_row > 1 and width % word_columns(weights) == 0:
            return grouped(heads, width, per_row)
    if dims and dims[0].name in ("chosen", "heads"):
        return repeated(plain_layout(dims[1:], rank, lanes, weights), rank.size(dims[0]))
    return even(count, weights)


def to_all(op: Attention, rank: Rank) -> bool:
    """Whether all keys and values are those of the launch, and each head has its own."""
    heads = rank.heads
    assert heads is not None
    return op.takes_sequence and heads.kv_of == tuple(range(heads.kv_heads))


def _chain_of(value: Value, makers: dict[str, Op]) -> Iterator[str]:
    """A value and what it is made of, row by row, back to the product that makes heads."""
    yield value.name
    op = makers[value.name]
    while not isinstance(op, Linear | HeadLinear):
        before = op.inputs[0]
        yield before.name
        op = makers[before.name]
