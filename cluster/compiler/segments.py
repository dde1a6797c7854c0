"""What of a section ranks do alone, between the points at which they exchange what they have."""

from collections.abc import Iterator

from cluster.model.graph.add import Add
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.latent_attention import ATTENTIONS
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import Op
from cluster.model.graph.values import Value


def residual_stream(section: Section) -> tuple[str, ...]:
    """Names of the values that each are the one before with something added, the last one first."""
    makers = {op.out.name: op for op in section.ops}
    found = [section.out.name]
    while (maker := makers.get(found[-1])) is not None:
        before = maker.x if isinstance(maker, Add | Norm) else None
        if isinstance(maker, AllReduce):
            before = maker.residual
        if before is None:
            return (section.x.name,)
        found.append(before.name)
    return tuple(found)


def segments(section: Section) -> Iterator[tuple[tuple[Op, ...], Op]]:
    """Ops of a section up to each residual connection or all-reduce, and that one."""
    ops: list[Op] = []
    stream = residual_stream(section)
    for op in section.ops:
        if isinstance(op, AllReduce) or (isinstance(op, Add) and op.out.name in stream):
            yield tuple(ops), op
            ops = []
        else:
            ops.append(op)
    if ops:
        yield tuple(ops[:-1]), ops[-1]


def by_heads(value: Value) -> bool:
    """Whether ranks may hold a value in different lanes."""
    return any(dim.name == "heads" for dim in value.dims)


def looks_back(ops: tuple[Op, ...]) -> bool:
    """Whether any of some ops reads caches: only what such do depends on the context."""
    return any(isinstance(op, ATTENTIONS) for op in ops)


def what_of(ops: tuple[Op, ...]) -> str:
    """What reports call these ops of a layer."""
    return "attention" if looks_back(ops) else "ffn"


def has_experts(section: Section) -> bool:
    """Whether a section multiplies by gathered matrices, which are cut to a chip's banks."""
    return any(isinstance(op, ExpertLinear) for op in section.ops)
