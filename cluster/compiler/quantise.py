"""Products with int8 weights: their inputs become int8 (W8A8)."""

from dataclasses import replace

from cluster.model.graph.graph import Section
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import GraphError, Op
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.values import Value


def quantise(section: Section) -> Section:
    """The section with int8 inputs of all that multiplies by a matrix.

    A norm that only feeds such products makes int8 itself: then the largest magnitude is that of
    x * weight, and the norm's own factor only joins the step. Elsewhere rows are made int8 first.
    """
    ops: list[Op] = []
    int8: dict[Value, Value] = {}
    for op in section.ops:
        if isinstance(op, Norm) and op.may_be_int8 and _only_multiplied(section, op.out):
            int8[op.out] = replace(op.out, dtype="i8")
            op = replace(op, out=int8[op.out])
        for value in multiplied(op):
            if value not in int8:
                int8[value] = Value(f"{value.name}.i8", value.dims, "i8")
                ops.append(Quantise(int8[value], value))
        ops.append(op.with_values({value: int8[value] for value in multiplied(op)}))
    return check_quantised(replace(section, ops=tuple(ops)).check())


def multiplied(op: Op) -> tuple[Value, ...]:
    """Inputs of an op that a matrix multiplies."""
    return tuple(getattr(op, name) for name in op.multiplied)


def _only_multiplied(section: Section, value: Value) -> bool:
    """Whether a value goes nowhere but into products."""
    readers = section.consumers(value)
    return value != section.out and all(op.inputs.count(value) == multiplied(op).count(value)
                                        for op in readers)  # fmt: skip


def check_quantised(section: Section) -> Section:
    """Return the section; raise GraphError unless int8 values are what is multiplied, and only."""
    for op in section.ops:
        wanted = set(multiplied(op))
        for value in op.inputs:
            if (value.dtype == "i8") != (value in wanted):
                rule = "must be int8" if value in wanted else "must not be int8"
                op.require(False, f"{value.name} {rule}")
    if section.out.dtype == "i8":
        raise GraphError("section", (section.out.name,), "its result must not be int8")
    return section
