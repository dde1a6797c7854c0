"""What rows are multiplied by to become integers of fixed steps, as it rests beside the weights."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from chip.kernels.gate import left_to_steps
from chip.program import Region
from cluster.compiler.assign import INVERSE
from cluster.compiler.quantise import fixed_steps
from cluster.compiler.shard import Sharded
from cluster.compiler.stage import Stage
from cluster.model.graph.gate import Activation
from cluster.model.graph.graph import Place
from cluster.model.graph.int8 import inverse_of
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.source import Weights

Rows = npt.NDArray[np.float32]


def inverses(stage: Stage, first: int, weights: Weights) -> Iterator[tuple[int, Region, Rows]]:
    """(rank, region, rows) of each value of a stage that becomes integers of fixed steps.

    What a section leaves becomes those of the next one on the chip; behind the last, nothing.
    """
    shape, counts = stage.shape, dict.fromkeys(stage.shape.kinds, 0)
    sections: list[tuple[Sharded, str, int, Place]] = []
    if shape.opening is not None:
        sections.append((shape.opening, "opening.", 0, "opening"))
    for number, sharded in enumerate(shape.layers, first):
        prefix = stage.prefix(shape.kinds.index(sharded))
        sections.append((sharded, prefix, counts[sharded], number))
        counts[sharded] += 1
    for (sharded, prefix, layer, place), following in zip(
        sections, (*sections[1:], None), strict=False
    ):
        section = sharded.section
        found = [(op.x, op.steps, place) for op in section.ops if isinstance(op, Quantise)]
        if following is not None:
            onward = following[0].section
            found.append((section.out, fixed_steps(onward, onward.x), following[-1]))
        for value, steps, of in found:
            if steps is None:
                continue
            whole, name = inverse_of(weights.array(of, steps)), prefix + INVERSE.format(value.name)
            maker = next((op for op in section.ops if op.out == value), None)
            if isinstance(maker, Activation):
                whole = whole * np.float32(left_to_steps(maker.function))
            for rank in range(stage.members):
                layout = stage.assigned(sharded, rank, stage.most_rows(sharded)).layout(value)
                rows = layout.rows(sharded.shares.cut(whole, steps, rank))
                for region, own in stage.memory.at_rest(name, layer, rows):
                    yield rank, region, own
