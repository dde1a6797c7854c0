"""What of a section ranks do alone, between the points at which they exchange what they have."""

from collections.abc import Iterator

from cluster.model.graph.add import Add
from cluster.model.graph.attention import Attention
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.op import Op
from cluster.model.graph.values import Value


def segments(section: Section) -> Iterator[tuple[tuple[Op, ...], Op]]:
    """Ops of a section up to each residual connection or all-reduce, and that one."""
    ops: list[Op] = []
    for op in section.ops:
        if isinstance(op, Add | AllReduce):
            yield tuple(ops), op
            ops = []
        else:
            ops.append(op)
    if ops:
        yield tuple(ops[:-1]), ops[-1]


def by_heads(value: Value) -> bool:
    """Whether ranks may hold a value in different lanes."""
    return any(dim.name == "heads" for dim in value.dims)


def what_of(ops: tuple[Op, ...]) -> str:
    """What reports call these ops of a layer."""
    return "attention" if any(isinstance(op, Attention) for op in ops) else "ffn"


def has_experts(section: Section) -> bool:
    """Whether a section multiplies by gathered matrices, which are cut to a chip's banks."""
    return any(isinstance(op, ExpertLinear) for op in section.ops)
