"""Ops of a section that are not placed by themselves, as a neighbour makes their result."""

from cluster.model.graph.add import Add
from cluster.model.graph.graph import Section
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import Op
from cluster.model.graph.rotary import Rotary
from cluster.model.graph.values import Value


def left_to_another(section: Section, op: Op) -> bool:
    """Whether a LayerNorm behind it, or the product before it, makes what this op would."""
    for other in section.ops:
        if isinstance(other, Norm) and summed(section, other) == op:
            return True
        if isinstance(other, Linear) and turned_behind(section, other) == op:
            return True
    return False


def summed(section: Section, op: Norm) -> Add | None:
    """The residual connection that a LayerNorm makes itself, as it first reads its input."""
    maker = next((other for other in section.ops if other.out == op.x), None)
    first = section.consumers(op.x)[0]
    return maker if op.form == "layer" and first == op and isinstance(maker, Add) else None


def turned_behind(section: Section, op: Linear) -> Rotary | None:
    """The rotary embedding of what products leave, made on their way from the array."""
    readers = section.consumers(op.out)
    plain = op.bias is None and len(readers) == 1
    return readers[0] if plain and isinstance(readers[0], Rotary) else None


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
