"""Fixed steps of int8 activations, from the magnitudes that sentences give in float32.

A compiler finds them so before a model runs: nothing is looked for then, and what is larger than it
has been is cut off.
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

# Of what elements of a row differ by, as an exponent: 0.65 to 0.8 do as well, 0.5 and 1 far less.
ROWS_SHARE = 0.75
MARGIN = 1.25  # rows may be so much larger than those of the calibration before they are cut off
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
    """Weights with the steps of each value that becomes int8, by place and name."""

    weights: Weights
    steps: Mapping[tuple[Place, str], F32]

    @property
    def model(self) -> Model:
        """The model that these weights are of."""
        return self.weights.model

    def array(self, place: Place, weight: Weight, rows: slice = slice(None)) -> F32:
        """Some rows of a weight, or steps."""
        steps = self.steps.get((place, weight.name))
        return self.weights.array(place, weight, rows) if steps is None else steps[rows]

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Embeddings [len(ids), hidden]."""
        return self.weights.embedding_rows(ids)


def calibrated(weights: Weights, sentences: Iterable[Sequence[int]]) -> Calibrated:
    """The weights, with steps from the largest magnitudes in float32 over token ids."""
    rows = [weights.embedding_rows(ids) for ids in sentences]
    steps: dict[tuple[Place, str], F32] = {}
    for place, whole in weights.model.places:
        section = compiled(whole, 1, STATIC)
        arrays = {weight: weights.array(place, weight) for weight in whole.weights}
        stage = Stage(section, arrays, max(map(len, rows)))
        found = [stage.values(x, np.arange(len(x))) for x in rows]
        for op in section.section.ops:
            if isinstance(op, Quantise) and op.steps is not None:
                values = np.concatenate([all_of[op.x.name][0] for all_of in found])
                readers = section.section.consumers(op.out)
                matrices = [arrays[w] for reader in readers for w in reader.weights if w.inner]
                steps[place, op.steps.name] = steps_of(values.reshape(len(values), -1), matrices)
        rows = [values[section.section.out.name][0] for values in found]
    return Calibrated(weights, steps)


def steps_of(rows: F32, matrices: Sequence[F32]) -> F32:
    """The step of each element of rows [count, width] that meet matrices [out, width].

    Elements that are larger than others get larger steps, and the matrices the rest of the
    difference: then neither have a few numbers that are far above all others, which rounding to
    127 steps of the largest would not survive (SmoothQuant, Xiao et al., 2022).
    """
    peaks = np.maximum(np.abs(rows).max(axis=0), SMALLEST_PEAK)
    met = np.max([np.abs(matrix).max(axis=0) for matrix in matrices], axis=0)
    smooth = peaks**ROWS_SHARE / np.maximum(met, SMALLEST_PEAK) ** (1 - ROWS_SHARE)
    steps: F32 = (smooth * ((peaks / smooth).max() * MARGIN / LEVELS)).astype(np.float32)
    return steps
