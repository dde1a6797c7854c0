"""Steps of the SXM instructions that are no plain lane map: shift, select, rotate, transpose."""

from typing import Any

import numpy as np

from chip.errors import Misaligned
from chip.linker.graph import Graph, State, Step
from chip.linker.timeline import Ints, Issue


def lanes(graph: Graph, issue: Issue) -> int:
    """The op's function of its numbers and maps, then of its streams, in operand order."""
    found = [graph.operand(issue, index) for index in issue.op.sources]
    needs = set().union(*(more for _, more in found))
    fetches = [fetch for fetch, _ in found]
    constants: list[Any] = []
    for operand, value in zip(issue.op.operands, issue.instruction.args, strict=True):
        if operand.kind == "int":
            if value > graph.spec.lanes:
                raise issue.hazard(Misaligned, f"shifts by {value} of {graph.spec.lanes} lanes")
            constants.append(value)
        elif operand.kind == "map":
            constants.append(_choice(graph, issue, value))
    function = issue.op.function

    def make(number: int) -> Step:
        def step(state: State) -> None:
            operands = (fetch(state.values) for fetch in fetches)
            state.values[number] = function(*constants, *operands)

        return step

    return graph.add((issue,), needs, make)


def _choice(graph: Graph, issue: Issue, number: int) -> Ints:
    """A map of a select: one 0 or 1 per lane."""
    map = graph.maps[number]
    if len(map) != graph.spec.lanes or not np.isin(map, (0, 1)).all():
        raise issue.hazard(Misaligned, f"map {number} is none of a {issue.op.name}")
    return map
