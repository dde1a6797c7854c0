"""Random weights of any model: no files, for tests and experiments."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cluster.model.graph.graph import Model, Place
from cluster.model.graph.op import F32
from cluster.model.graph.values import Weight
from cluster.model.weights.files import check_ids, norm_weights

_PARTS = 16  # keys of a layer's weights; what comes behind them has a key of two numbers
_OUTSIDE = ("final_norm", "embedding", "head")  # by key; other sections follow


@dataclass(frozen=True)
class SyntheticWeights:
    """Weights drawn anew at each call from (seed, part), so nothing is kept and order is free.

    Matrices are scaled by 1/sqrt(columns): activations keep the size they have in real models.
    Norm weights are around 1, biases around 0.
    """

    model: Model
    seed: int = 0

    @cached_property
    def _norms(self) -> frozenset[Weight]:
        return norm_weights(self.model)

    @cached_property
    def _outside(self) -> tuple[str, ...]:
        opening = self.model.opening.weights if self.model.opening else ()
        tables = (self.model.embedding.positions, self.model.embedding.kinds)
        others = [weight.name for weight in (*opening, *tables) if weight is not None]
        return (*_OUTSIDE, *others)

    def _key(self, place: Place, weight: Weight) -> tuple[int, ...]:
        if isinstance(place, int):
            part = self.model.layers[place].weights.index(weight)
            first = (1 + place) * _PARTS + part % _PARTS
            return (first, part // _PARTS) if part >= _PARTS else (first,)
        if place == "head" and self.model.reads_embedding(weight):
            return (_OUTSIDE.index("embedding"),)
        return (self._outside.index(weight.name),)

    def array(self, place: Place, weight: Weight, rows: slice = slice(None)) -> F32:
        """Some rows of a weight, [out, in] or a vector."""
        drawn: F32 = np.random.default_rng([self.seed, *self._key(place, weight)]).standard_normal(
            weight.shape, np.float32
        )
        if len(weight.shape) > 1:
            return drawn[rows] / np.float32(weight.shape[-1] ** 0.5)
        drawn = np.float32(0.1) * drawn[rows]
        return np.float32(1) + drawn if weight in self._norms else drawn

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Embeddings [len(ids), hidden] as the first section reads them."""
        check_ids(self.model, ids)
        tables = self.model.embedding
        total = self.array("embedding", tables.table)[list(ids)]
        if tables.scale != 1.0:
            total *= np.float32(tables.scale)
        if tables.positions is not None:
            total += self.array("embedding", tables.positions, slice(0, len(ids)))
        if tables.kinds is not None:
            total += self.array("embedding", tables.kinds, slice(0, 1))
        return total
