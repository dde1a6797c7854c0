"""Where weights come from: what every format of files provides."""

from collections.abc import Sequence
from typing import Protocol

from cluster.model.graph.graph import Model, Place
from cluster.model.graph.op import F32
from cluster.model.graph.values import Weight

__all__ = ["Place", "Weights"]


class Weights(Protocol):
    """A source of float32 weights, dequantised anew at each call and not kept."""

    @property
    def model(self) -> Model:
        """The model that these weights are of."""

    def array(self, place: Place, weight: Weight, rows: slice = slice(None)) -> F32:
        """Some rows of a weight, [out, in] or a vector, rotary pairs adjacent; all finite."""

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Embeddings [len(ids), hidden] as the first section reads them (scaled, summed up)."""
