"""Small models with random weights: any shape, no files, for tests and experiments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.model.spec import F32, LayerWeights, ModelSpec

TINY = ModelSpec(
    name="tiny",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=96,
    vocab=128,
    rms_eps=1e-5,
    rope_theta=10000.0,
    tied_head=True,
    context_max=512,
)


@dataclass(frozen=True)
class SyntheticWeights:
    """Weights drawn anew at each call from (seed, part), so nothing is kept and order is free.

    Matrices are scaled by 1/sqrt(columns): activations keep the size they have in real models.
    """

    spec: ModelSpec
    seed: int

    @property
    def final_norm(self) -> F32:
        """Return the last norm's weights [hidden], around 1."""
        return self._norm(0)

    def layer(self, index: int) -> LayerWeights:
        """Return layer `index`."""
        arrays = {}
        for part, (name, shape) in enumerate(self.spec.layer_shapes().items()):
            key = (1 + index) * 16 + part
            arrays[name] = (
                self._vector(name, key, shape) if len(shape) == 1 else (self._matrix(key, shape))
            )
        return LayerWeights(**arrays).check(self.spec)

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Return the embeddings [len(ids), hidden]."""
        return self._table(1)[list(ids)]

    def head_rows(self, low: int, high: int) -> F32:
        """Return rows low..high-1 of the output head."""
        return self._table(1 if self.spec.tied_head else 2)[low:high]

    def _table(self, key: int) -> F32:
        return self._matrix(key, (self.spec.vocab, self.spec.hidden))

    def _norm(self, key: int) -> F32:
        return self._vector("norm", key, (self.spec.hidden,))

    def _vector(self, name: str, key: int, shape: tuple[int, ...]) -> F32:
        """Norm weights are around 1, biases around 0."""
        weights: F32 = np.float32(0.1) * self._normal(key, shape)
        return weights if name.endswith("_bias") else np.float32(1) + weights

    def _matrix(self, key: int, shape: tuple[int, ...]) -> F32:
        matrix: F32 = self._normal(key, shape) / np.float32(shape[-1] ** 0.5)
        return matrix

    def _normal(self, key: int, shape: tuple[int, ...]) -> F32:
        return np.random.default_rng([self.seed, key]).standard_normal(shape, np.float32)


def tiny_weights(spec: ModelSpec = TINY, seed: int = 0) -> SyntheticWeights:
    """Return random weights of any shape; equal arguments give equal weights."""
    return SyntheticWeights(spec.check(), seed)
