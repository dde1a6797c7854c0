"""The shape of a model and the arrays of a layer: what every weight source provides.

All weights are [out, in]. Rotary pairs are interleaved: rows 2i and 2i+1 of each head of `wq` and
`wk` rotate together by position * rope_theta ** (-2i / head_dim), perhaps scaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.errors import ModelError
from cluster.model.graph.stand_in import Experts as Experts
from cluster.model.rope import RopeScaling

F32 = NDArray[np.float32]
ACTIVATIONS = ("silu", "gelu")  # of the gate; gelu is its tanh form


@dataclass(frozen=True)
class Latent:
    """Attention over a compressed cache (DeepSeek-V2, section 2.1); sizes in elements.

    Heads are `head_dim` wide in queries and keys, `rope_dim` of it rotary, `value_dim` in values.
    """

    q_rank: int
    kv_rank: int
    rope_dim: int
    value_dim: int


@dataclass(frozen=True)
class ModelSpec:
    """Shape and constants of a model; sizes in elements, context in tokens.

    Without the fields from `qkv_bias` on it is a plain Llama. `unsupported` says in words what
    else it has that no kernel executes.
    """

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
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: str = "silu"
    rope_scaling: RopeScaling | None = None
    experts: Experts | None = None
    latent: Latent | None = None
    unsupported: tuple[str, ...] = ()

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
        if self.activation not in ACTIVATIONS:
            raise ModelError(self.name, f"activation {self.activation} is not one of {ACTIVATIONS}")
        return self

    def obstacles(self) -> tuple[str, ...]:
        """Return what of this model no kernel executes yet, in words; empty if it can run."""
        found = list(self.unsupported)
        if self.qk_norm:
            found.append("norms of queries and keys")
        if self.experts:
            found.append(f"a mixture of {self.experts.count} experts")
        if self.latent:
            found.append("latent attention")
        return tuple(found)

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
        shapes: dict[str, tuple[int, ...]] = {
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
        if self.qkv_bias:
            shapes |= {"q_bias": (self.q_rows,), "k_bias": (self.kv_rows,)}
            shapes["v_bias"] = (self.kv_rows,)
        if self.qk_norm:
            shapes |= {"q_norm": (self.head_dim,), "k_norm": (self.head_dim,)}
        return shapes

    def parameters(self) -> int:
        """Return the number of weights; a tied head counts once, experts all count."""
        tables = self.vocab * self.hidden * (1 if self.tied_head else 2)
        attention = (
            self._latent_weights()
            if self.latent
            else sum(
                int(np.prod(shape))
                for name, shape in self.layer_shapes().items()
                if not name.startswith("w_") and not name.endswith("_norm")
            )
        )
        norms = sum(s[0] for n, s in self.layer_shapes().items() if n.endswith("_norm"))
        dense = 3 * self.hidden * self.ffn
        if self.experts is None:
            return self.layers * (attention + norms + dense) + tables + self.hidden
        experts = self.experts
        wide = experts.count * experts.ffn + experts.shared_ffn
        mixed = 3 * self.hidden * wide + self.hidden * experts.count  # and the router
        feeds = experts.dense_layers * dense + (self.layers - experts.dense_layers) * mixed
        return self.layers * (attention + norms) + feeds + tables + self.hidden

    def _latent_weights(self) -> int:
        latent = self.latent
        assert latent is not None
        plain = self.head_dim - latent.rope_dim
        queries = (
            self.hidden * latent.q_rank + latent.q_rank * self.q_rows
            if latent.q_rank
            else (self.hidden * self.q_rows)
        )
        keys = self.hidden * (latent.kv_rank + latent.rope_dim)
        expanded = latent.kv_rank * self.heads * (plain + latent.value_dim)
        return queries + keys + expanded + self.heads * latent.value_dim * self.hidden


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
    q_bias: F32 | None = None
    k_bias: F32 | None = None
    v_bias: F32 | None = None
    q_norm: F32 | None = None
    k_norm: F32 | None = None

    def check(self, spec: ModelSpec) -> "LayerWeights":
        """Return self; raise ModelError on a wrong shape or type."""
        for name, shape in spec.layer_shapes().items():
            array: F32 | None = getattr(self, name)
            if array is None:
                raise ModelError(spec.name, f"{name} is missing")
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
