"""Fixed steps of int8 activations: the largest magnitudes that sentences give, over 127.

Each value that a matrix multiplies has one step in each layer. A compiler finds them so before a
model runs, in float32: nothing is looked for then, and what is larger than it has been is cut off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chip.kernels.quantise import LEVELS, SMALLEST_PEAK
from cluster.compiler.limits import STATIC
from cluster.compiler.stage_shape import compiled
from cluster.files import read_lines
from cluster.model.graph.graph import Model, Place
from cluster.model.graph.op import F32
from cluster.model.graph.quantise import Quantise
from cluster.model.graph.source import Weights
from cluster.model.graph.values import Weight
from cluster.model.interpreter import Stage

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "How do I reset the password of my account?",
    "In 1969 two people walked on the Moon; a third stayed in orbit.",
    "Profits fell by 12.5 % in the second quarter, which nobody had expected.",
    "yes",
    "Add the flour and two eggs, stir until smooth, and bake for 40 minutes at 180 degrees.",
    "She read the letter twice, folded it, and put it back into the drawer without a word.",
    "def area(radius): return 3.14159 * radius ** 2  # of a circle",
    "A protein's shape follows from its sequence, but to work it out took decades.",
    "I would not recommend this hotel: the rooms were cold, the staff was rude, and it rained.",
)


def calibration_sentences(path: Path | None) -> tuple[str, ...]:
    """Those of a file, one a line, or ours; raises BadValue."""
    if path is None:
        return SENTENCES
    return tuple(text for _, text in read_lines(path, "--calibration", "sentence"))


@dataclass(frozen=True)
class Calibrated:
    """Weights with the step of each value that becomes int8, by place and name."""

    weights: Weights
    steps: Mapping[tuple[Place, str], F32]

    @property
    def model(self) -> Model:
        """The model that these weights are of."""
        return self.weights.model

    def array(self, place: Place, weight: Weight, rows: slice = slice(None)) -> F32:
        """Some rows of a weight, or a step [1]."""
        step = self.steps.get((place, weight.name))
        return self.weights.array(place, weight, rows) if step is None else step

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Embeddings [len(ids), hidden]."""
        return self.weights.embedding_rows(ids)


def calibrated(weights: Weights, sentences: Iterable[Sequence[int]]) -> Calibrated:
    """The weights, with steps from the largest magnitudes in float32 over token ids."""
    rows = [weights.embedding_rows(ids) for ids in sentences]
    steps: dict[tuple[Place, str], F32] = {}
    for place, section in weights.model.places:
        sharded = compiled(section, 1, STATIC)
        arrays = {weight: weights.array(place, weight) for weight in section.weights}
        stage = Stage(sharded, arrays, max(map(len, rows)))
        found = [stage.values(x, np.arange(len(x))) for x in rows]
        for op in sharded.section.ops:
            if isinstance(op, Quantise) and op.step is not None:
                peak = max(float(np.abs(values[op.x.name][0]).max()) for values in found)
                step = np.float32(max(peak, SMALLEST_PEAK) / LEVELS)
                steps[place, op.step.name] = np.array([step], np.float32)
        rows = [values[sharded.section.out.name][0] for values in found]
    return Calibrated(weights, steps)
