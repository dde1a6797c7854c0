"""The shape of a BERT-like encoder and its float32 arrays; weights are [out, in]."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.errors import ModelError, UnknownName
from cluster.model.graph.op import F32


@dataclass(frozen=True)
class EncoderSpec:
    """Shape and constants of a post-norm encoder; sizes in elements, `tokens_max` in tokens."""

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    eps: float
    tokens_max: int

    def check(self) -> "EncoderSpec":
        """Return self; raise ModelError when a size cannot be."""
        if min(self.layers, self.hidden, self.heads, self.ffn, self.vocab, self.tokens_max) < 1:
            raise ModelError(self.name, "a size is not positive")
        if self.hidden % self.heads or self.head_dim % 8 or self.head_dim > 320:
            problem = f"{self.heads} heads of {self.hidden} elements"
            raise ModelError(self.name, problem, "heads must have a multiple of 8, at most 320")
        return self

    @property
    def head_dim(self) -> int:
        """Return elements per head."""
        return self.hidden // self.heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a layer, by the last part of its published name."""
        h, f = self.hidden, self.ffn
        found: dict[str, tuple[int, ...]] = {}
        for name, (rows, columns) in _MATRICES.items():
            sizes = {"h": h, "f": f}
            found[f"{name}.weight"] = (sizes[rows], sizes[columns])
            found[f"{name}.bias"] = (sizes[rows],)
        for name in _NORMS:
            found[f"{name}.weight"] = found[f"{name}.bias"] = (h,)
        return found


_MATRICES = {
    "attention.self.query": ("h", "h"),
    "attention.self.key": ("h", "h"),
    "attention.self.value": ("h", "h"),
    "attention.output.dense": ("h", "h"),
    "intermediate.dense": ("f", "h"),
    "output.dense": ("h", "f"),
}
_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
# layers, hidden, heads, ffn, vocab, eps, tokens. Source: the config.json published with each model.
_SHAPES = {
    "minilm-l6": (6, 384, 12, 1536, 30522, 1e-12, 512),
    "bert-base": (12, 768, 12, 3072, 30522, 1e-12, 512),
    "bert-large": (24, 1024, 16, 4096, 30522, 1e-12, 512),
    "tiny-encoder": (2, 64, 4, 96, 128, 1e-12, 64),
}
ENCODERS = (*_SHAPES, "minilm")


def encoder_spec(name: str) -> EncoderSpec:
    """Return the shape of an encoder by name. Raises UnknownName."""
    full = {"minilm": "minilm-l6"}.get(name.lower(), name.lower())
    if full not in _SHAPES:
        raise UnknownName("encoder", name, ENCODERS)
    return EncoderSpec(full, *_SHAPES[full]).check()


class EncoderWeights(Protocol):
    """A source of the float32 arrays of an encoder."""

    @property
    def spec(self) -> EncoderSpec:
        """Return the shape of the model."""

    def layer(self, index: int) -> dict[str, F32]:
        """Return the arrays of layer `index`, as `EncoderSpec.shapes`."""

    @property
    def embedding_norm(self) -> tuple[F32, F32]:
        """Return weight and bias [hidden] of the norm of the embeddings."""

    def embeddings(self, ids: Sequence[int]) -> F32:
        """Return word + position + type 0 embeddings [len(ids), hidden], before their norm."""


@dataclass(frozen=True)
class RandomEncoder:
    """Random weights of any shape; equal arguments give equal weights."""

    spec: EncoderSpec
    seed: int = 0

    def layer(self, index: int) -> dict[str, F32]:
        """Return the arrays of layer `index`."""
        return {
            name: self._array(16 * (1 + index) + part, shape, "LayerNorm.weight" in name)
            for part, (name, shape) in enumerate(self.spec.shapes().items())
        }

    @property
    def embedding_norm(self) -> tuple[F32, F32]:
        """Return weight and bias."""
        return self._array(0, (self.spec.hidden,), True), self._array(1, (self.spec.hidden,))

    def embeddings(self, ids: Sequence[int]) -> F32:
        """Return the sum of the embeddings."""
        words = self._array(2, (self.spec.vocab, self.spec.hidden))
        places = self._array(3, (self.spec.tokens_max, self.spec.hidden))
        total: F32 = words[list(ids)] + places[: len(ids)]
        return total

    def _array(self, key: int, shape: tuple[int, ...], around_one: bool = False) -> F32:
        drawn = np.random.default_rng([self.seed, key]).standard_normal(shape, np.float32)
        if len(shape) == 1:
            drawn = np.float32(0.1) * drawn + np.float32(around_one)
        else:
            drawn /= np.float32(shape[-1] ** 0.5)
        array: F32 = drawn
        return array


class SafetensorsEncoder:
    """An encoder from a safetensors file with the names of the BERT checkpoints."""

    def __init__(self, path: Path, spec: EncoderSpec) -> None:
        self.spec, self.path = spec, path
        try:
            self._file: Any = safe_open(str(path), framework="numpy")
            self._names: set[str] = set(self._file.keys())  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise ModelError(str(path), f"cannot be read as safetensors: {error}") from error

    def layer(self, index: int) -> dict[str, F32]:
        """Return the arrays of layer `index`; raises ModelError where one is missing or wrong."""
        names = self.spec.shapes()
        return {n: self._array(f"encoder.layer.{index}.{n}", names[n]) for n in names}

    @property
    def embedding_norm(self) -> tuple[F32, F32]:
        """Return weight and bias."""
        shape = (self.spec.hidden,)
        first, second = (f"embeddings.LayerNorm.{part}" for part in ("weight", "bias"))
        return self._array(first, shape), self._array(second, shape)

    def embeddings(self, ids: Sequence[int]) -> F32:
        """Return the sum of the three embeddings."""
        words, places, kinds = self._tables
        total: F32 = words[list(ids)] + places[: len(ids)] + kinds[0]
        return total

    @cached_property
    def _tables(self) -> tuple[F32, F32, F32]:
        spec, prefix = self.spec, "embeddings."
        return (
            self._array(f"{prefix}word_embeddings.weight", (spec.vocab, spec.hidden)),
            self._array(f"{prefix}position_embeddings.weight", (spec.tokens_max, spec.hidden)),
            self._array(f"{prefix}token_type_embeddings.weight", (2, spec.hidden)),
        )

    def _array(self, name: str, shape: tuple[int, ...]) -> F32:
        if name not in self._names:
            raise ModelError(str(self.path), f"has no tensor {name}")
        array = np.asarray(self._file.get_tensor(name))
        if array.shape != shape:
            found = f"{name} is {list(array.shape)}, expected {list(shape)}"
            raise ModelError(str(self.path), found)
        return array.astype(np.float32)
