"""A mixture with real weights and a known answer: a dense model whose FFN is every expert.

Gates that add up to 1 make its result that of the dense model, whichever experts a router chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.model.graph.graph import Model, Place
from cluster.model.graph.op import F32
from cluster.model.graph.source import Weights
from cluster.model.graph.values import Weight

ROUTER = "router"


@dataclass(frozen=True)
class CopiedExperts:
    """Weights of `model`: those of `dense`, copied for each expert, and a router of `seed`."""

    model: Model
    dense: Weights
    seed: int = 0

    def array(self, place: Place, weight: Weight, rows: slice = slice(None)) -> F32:
        """Some rows of a weight, [out, in] or a vector."""
        if weight.name == ROUTER and isinstance(place, int):
            drawn = np.random.default_rng([self.seed, place])
            router: F32 = drawn.standard_normal(weight.shape, np.float32)[rows]
            return router / np.float32(weight.shape[1] ** 0.5)
        if weight.out[0].name != "experts" or not isinstance(place, int):
            return self.dense.array(place, weight, rows)
        theirs = self.dense.model.layers[place].weights
        one = self.dense.array(place, next(w for w in theirs if w.name == weight.name))
        copies: F32 = np.concatenate([one] * weight.out[0].size)
        return copies[rows]

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Embeddings [len(ids), hidden] as the first section reads them."""
        return self.dense.embedding_rows(ids)
