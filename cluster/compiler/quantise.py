"""Products with int8 weights: their inputs become int8 (W8A8), or 16-bit integers (W8A16)."""

from dataclasses import replace

from cluster.model.graph.graph import Section
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import GraphError, Op
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.values import Value, Weight


def quantise(section: Section, dtype: str = "i8", fixed: bool = False) -> Section:
    """The section with inputs of integers of all that multiplies by a matrix: i8 or i16.

    With `fixed` steps those of each of these are known before, and a weight of the section.

    A norm that only feeds such products makes them itself: then the largest magnitude is that of
    x * weight, and the norm's own factor only joins the step. Elsewhere rows are made so first.
    """
    ops: list[Op] = []
    found: dict[Value, Value] = {}
    for op in section.ops:
        if (
            not fixed
            and isinstance(op, Norm)
            and op.may_be_int8
            and _only_multiplied(section, op.out)
        ):
            found[op.out] = replace(op.out, dtype=dtype)
            op = replace(op, out=found[op.out])
        for value in multiplied(op):
            if value not in found:
                found[value] = Value(f"{value.name}.{dtype}", value.dims, dtype)
                steps = Weight(f"{value.name}.steps", value.dims) if fixed else None
                ops.append(Quantise(found[value], value, steps))
        ops.append(op.with_values({value: found[value] for value in multiplied(op)}))
    return check_quantised(replace(section, ops=tuple(ops)).check())


def multiplied(op: Op) -> tuple[Value, ...]:
    """Inputs of an op that a matrix multiplies."""
    return tuple(getattr(op, name) for name in op.multiplied)


def fixed_steps(section: Section, value: Value) -> Weight | None:
    """The fixed steps of integers, or of what they are made of; None if there are none."""
    rounding = (op for op in section.ops if isinstance(op, Quantise))
    return next((op.steps for op in rounding if value in (op.x, op.out)), None)


def _only_multiplied(section: Section, value: Value) -> bool:
    """Whether a value goes nowhere but into products."""
    readers = section.consumers(value)
    return value != section.out and all(op.inputs.count(value) == multiplied(op).count(value)
                                        for op in readers)  # fmt: skip


def check_quantised(section: Section) -> Section:
    """Return the section; raise GraphError unless integers are what is multiplied, and only."""
    for op in section.ops:
        wanted = set(multiplied(op))
        for value in op.inputs:
            if value.integers != (value in wanted):
                rule = "must be integers" if value in wanted else "must not be integers"
                op.require(False, f"{value.name} {rule}")
    if section.out.integers:
        raise GraphError("section", (section.out.name,), "its result must not be integers")
    return section
