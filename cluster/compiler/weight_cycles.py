"""Cycles in which the weights of a section enter the arrays, as it is assigned to them."""

from chip.program import word_columns
from cluster.compiler import fused
from cluster.compiler.assign import Assigned, Product
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.linear import Linear


def column_cycles(assigned: Assigned) -> int:
    """Cycles in which all weights can enter the two arrays at best, a word of columns each."""
    words: dict[str, list[int]] = {}
    for op in assigned.section.ops:
        if isinstance(op, Product):
            sides = words.setdefault(op.x.name, [0, 0])
            times = op.chosen if isinstance(op, ExpertLinear) else 1
            for matrix in assigned.all_matrices(op):
                sides[matrix.side] += times * matrix.vectors // word_columns(matrix.dtype)
    return sum(max(sides) for sides in words.values())


def hidden_cycles(assigned: Assigned) -> int:
    """Cycles in which weights may enter while norms are still looking for their factors.

    A factor takes two rounds over the SXMs, each the length of the chip and as long again at
    most for what comes back.
    """
    values = {op.x.name: op.x for op in assigned.section.ops if isinstance(op, Linear)}
    section = assigned.section
    left = (not v.integers and fused.factor_left(section, v) for v in values.values())
    return sum(left) * 4 * assigned.spec.positions
