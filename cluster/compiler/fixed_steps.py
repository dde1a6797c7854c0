"""Fixed steps of int8 activations, as they rest: factors of scales, and what rows meet as made."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from chip.program import Region
from cluster.compiler.assign import INVERSE
from cluster.compiler.stage import Stage
from cluster.model.graph.graph import Place, Section
from cluster.model.graph.int8 import inverse_of
from cluster.model.graph.op import F32
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.source import Weights
from cluster.model.graph.values import Value, Weight

Rows = npt.NDArray[np.float32]


def step_of(section: Section, value: Value) -> Weight | None:
    """The fixed step of integers, or of what they are made of; None if there is none."""
    fixed = (op for op in section.ops if isinstance(op, Quantise) and op.step is not None)
    return next((op.step for op in fixed if value in (op.x, op.out)), None)


def with_steps(section: Section, value: Value, scales: F32, place: Place, weights: Weights) -> F32:
    """Scales of a matrix that meets a value, times the value's step if that is fixed."""
    step = step_of(section, value)
    return scales if step is None else scales * weights.array(place, step)


def inverses(stage: Stage, first: int, weights: Weights) -> Iterator[tuple[int, Region, Rows]]:
    """(rank, region, row) of what rows of a stage are multiplied by to become integers.

    What a section leaves becomes those of the next one on the chip; behind the last, nothing.
    """
    shape, counts = stage.shape, dict.fromkeys(stage.shape.kinds, 0)
    places: list[tuple[Section, str, int, Place]] = []
    if shape.opening is not None:
        places.append((shape.opening.section, "opening.", 0, "opening"))
    for number, sharded in enumerate(shape.layers, first):
        prefix = stage.prefix(shape.kinds.index(sharded))
        places.append((sharded.section, prefix, counts[sharded], number))
        counts[sharded] += 1
    for here, following in zip(places, (*places[1:], None), strict=True):
        section, prefix, layer, place = here
        found = {
            op.x.name: weights.array(place, op.step)
            for op in section.ops
            if isinstance(op, Quantise) and op.step is not None
        }
        if following is not None:
            onward, _, _, where = following
            step = step_of(onward, onward.x)
            if step is not None:
                found[section.out.name] = weights.array(where, step)
        for name, value in found.items():
            buffer = prefix + INVERSE.format(name)
            row = np.full((1, stage.spec.lanes), inverse_of(value)[0], np.float32)
            for rank in range(stage.members):
                for region, own in stage.memory.at_rest(buffer, layer, row):
                    yield rank, region, own
