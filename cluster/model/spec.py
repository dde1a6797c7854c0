"""The shape of a model and the arrays of a layer: what every weight source provides.

All weights are [out, in]. Rotary pairs are interleaved: rows 2i and 2i+1 of each head of `wq` and
`wk` rotate together by position * rope_theta ** (-2i / head_dim).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.errors import ModelError, UnknownName

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class ModelSpec:
    """Shape and constants of a dense Llama-like decoder; sizes in elements, context in tokens."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rms_eps: float
    rope_theta: float
    tied_head: bool
    context_max: int

    def check(self) -> "ModelSpec":
        """Return self; raise ModelError when a size cannot be."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float) and not value > 0:
                raise ModelError(self.name, f"{field.name} is {value}, it must be positive")
        if self.heads % self.kv_heads:
            raise ModelError(
                self.name, f"{self.heads} heads are not a multiple of {self.kv_heads} KV heads"
            )
        if self.head_dim % 2:
            raise ModelError(self.name, f"head_dim {self.head_dim} is odd, rotary needs pairs")
        return self

    @property
    def q_rows(self) -> int:
        """Return the rows of wq."""
        return self.heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        """Return the rows of wk and of wv."""
        return self.kv_heads * self.head_dim

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each field of LayerWeights."""
        return {
            "attn_norm": (self.hidden,),
            "wq": (self.q_rows, self.hidden),
            "wk": (self.kv_rows, self.hidden),
            "wv": (self.kv_rows, self.hidden),
            "wo": (self.hidden, self.q_rows),
            "ffn_norm": (self.hidden,),
            "w_gate": (self.ffn, self.hidden),
            "w_up": (self.ffn, self.hidden),
            "w_down": (self.hidden, self.ffn),
        }

    def parameters(self) -> int:
        """Return the number of weights; a tied head counts once.

        >>> named_spec("smollm2").parameters()
        134515008
        """
        per_layer = sum(int(np.prod(shape)) for shape in self.layer_shapes().values())
        tables = self.vocab * self.hidden * (1 if self.tied_head else 2)
        return self.layers * per_layer + tables + self.hidden


@dataclass(frozen=True)
class LayerWeights:
    """The float32 arrays of one layer, shapes as `ModelSpec.layer_shapes`."""

    attn_norm: F32
    wq: F32
    wk: F32
    wv: F32
    wo: F32
    ffn_norm: F32
    w_gate: F32
    w_up: F32
    w_down: F32

    def check(self, spec: ModelSpec) -> "LayerWeights":
        """Return self; raise ModelError on a wrong shape or type."""
        for name, shape in spec.layer_shapes().items():
            array: F32 = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                found = f"{array.dtype}{list(array.shape)}"
                raise ModelError(spec.name, f"{name} is {found}, expected float32{list(shape)}")
        return self


class Weights(Protocol):
    """A source of float32 weights, dequantised anew at each call and not kept."""

    @property
    def spec(self) -> ModelSpec:
        """Return the shape of the model."""

    @property
    def final_norm(self) -> F32:
        """Return the last norm's weights [hidden]."""

    def layer(self, index: int) -> LayerWeights:
        """Return layer `index` in 0..layers-1."""

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Return the embeddings [len(ids), hidden]."""

    def head_rows(self, low: int, high: int) -> F32:
        """Return rows low..high-1 of the output head, [high - low, hidden]."""


def permute_rotary(rows: NDArray[np.generic], heads: int) -> NDArray[np.generic]:
    """Return rows of a Q or K matrix reordered from half-split to interleaved rotary pairs.

    Hugging Face checkpoints pair row i of a head with row i + head_dim/2. llama.cpp stores its
    llama architecture already interleaved (its converter does this same reordering).
    """
    head_dim = rows.shape[0] // heads
    halves = rows.reshape(heads, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


# name: layers, hidden, heads, KV heads, head_dim, ffn, vocab, rms_eps, rope_theta, tied, context.
# Source: the config.json that the makers publish with each model.
_SHAPES: dict[str, tuple[int, int, int, int, int, int, int, float, float, bool, int]] = {
    "smollm2-135m": (30, 576, 9, 3, 64, 1536, 49152, 1e-5, 100e3, True, 8192),
    "llama-2-7b": (32, 4096, 32, 32, 128, 11008, 32000, 1e-5, 10e3, False, 4096),
    "llama-2-13b": (40, 5120, 40, 40, 128, 13824, 32000, 1e-5, 10e3, False, 4096),
    "llama-2-70b": (80, 8192, 64, 8, 128, 28672, 32000, 1e-5, 10e3, False, 4096),
    "llama-3-8b": (32, 4096, 32, 8, 128, 14336, 128256, 1e-5, 500e3, False, 8192),
    "llama-3-70b": (80, 8192, 64, 8, 128, 28672, 128256, 1e-5, 500e3, False, 8192),
    "llama-3-405b": (126, 16384, 128, 8, 128, 53248, 128256, 1e-5, 500e3, False, 131072),
}
_ALIASES = {"smollm2": "smollm2-135m"}

NAMES = (*_ALIASES, *_SHAPES)


def named_spec(name: str) -> ModelSpec:
    """Return the shape of a model by name (case does not matter). Raises UnknownName."""
    full = _ALIASES.get(name.lower(), name.lower())
    if full not in _SHAPES:
        raise UnknownName("model", name, NAMES)
    return ModelSpec(full, *_SHAPES[full]).check()
