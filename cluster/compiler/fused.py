"""Ops of a section that are not placed by themselves, as a neighbour makes their result."""

from chip.kernels.ranks import few
from cluster.model.graph.add import Add
from cluster.model.graph.attention import Attention
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Section
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import Op
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.rotary import Rotary
from cluster.model.graph.route import Route
from cluster.model.graph.values import Value, names


def left_to_another(section: Section, op: Op) -> bool:
    """Whether a norm beside it, or the product before it, makes what this op would."""
    for other in section.ops:
        if isinstance(other, Norm) and op in (summed(section, other), added(section, other)):
            return True
        if isinstance(other, Linear) and turned_behind(section, other) == op:
            return True
    return False


def summed(section: Section, op: Norm) -> Add | None:
    """The residual connection that a LayerNorm makes itself, as it first reads its input."""
    maker = next((other for other in section.ops if other.out == op.x), None)
    first = section.consumers(op.x)[0]
    return maker if op.form == "layer" and first == op and isinstance(maker, Add) else None


def added(section: Section, op: Norm) -> Add | None:
    """The residual connection that an RMSNorm makes with its result, which goes nowhere else."""
    after = section.ops[section.ops.index(op) + 1 :][:1]
    whole = op.form == "rms" and op.over == names(op.x.dims)
    if not whole or section.consumers(op.out) != after or op.out == section.out:
        return None
    (reader,) = after
    return reader if isinstance(reader, Add) and reader.x != op.out else None


def turned_before(section: Section, op: Norm) -> Rotary | None:
    """The rotary embedding that applies the factors of a norm of heads to what it has turned.

    So nobody waits for both of them one after the other.
    """
    heads = op.form == "rms" and len(op.x.dims) == 2 and op.over == names(op.x.dims[-1:])
    readers = section.consumers(op.out) if heads and op.out != section.out else ()
    return readers[0] if len(readers) == 1 and isinstance(readers[0], Rotary) else None


def normed(section: Section, op: Rotary) -> Norm | None:
    """The norm of heads that is `turned_before` its factors are applied."""
    makers = (other for other in section.ops if isinstance(other, Norm) and other.out == op.x)
    return next((norm for norm in makers if turned_before(section, norm) == op), None)


def rounded_before(section: Section, op: Op) -> Attention | None:
    """What may round its result to integers itself, in few rows, as only an op behind it wants."""
    if not isinstance(op, Quantise) or section.consumers(op.x) != (op,):
        return None
    maker = next((other for other in section.ops if other.out == op.x), None)
    return maker if isinstance(maker, Attention) and not maker.takes_sequence else None


def turned_behind(section: Section, op: Linear) -> Rotary | None:
    """The rotary embedding of what products leave, made on their way from the array."""
    readers = section.consumers(op.out)
    plain = op.bias is None and len(readers) == 1
    return readers[0] if plain and isinstance(readers[0], Rotary) else None


def raced_behind(section: Section, op: Linear) -> Route | None:
    """The router whose few scores these products are, which are ranked on their way from there."""
    readers = section.consumers(op.out)
    plain = op.bias is None and len(readers) == 1 and few(op.out.width)
    return readers[0] if plain and isinstance(readers[0], Route) else None


def raced_before(section: Section, op: Route) -> Linear | None:
    """The product whose sums a router ranks."""
    makers = (other for other in section.ops if isinstance(other, Linear))
    return next((maker for maker in makers if raced_behind(section, maker) == op), None)


def factor_left(section: Section, value: Value) -> bool:
    """Whether the norm that makes an fp16 value leaves its one factor of a row to products with it.

    Not where norms are added to the residual stream: it may grow beyond what fp16 holds.
    """
    maker = next((op for op in section.ops if op.out == value), None)
    if not isinstance(maker, Norm) or not maker.may_be_int8 or value == section.out:
        return False
    added = {op.y.name for op in section.ops if isinstance(op, Add)}
    if any(op.out.name in added for op in section.ops if isinstance(op, Norm)):
        return False
    return all(isinstance(reader, Linear) for reader in section.consumers(value))


def with_one_x(section: Section, op: ExpertLinear) -> tuple[ExpertLinear, ...]:
    """The products with the experts' matrices of one x, which are placed with the first of them."""
    return tuple(one for one in section.ops if isinstance(one, ExpertLinear) and one.x == op.x)
