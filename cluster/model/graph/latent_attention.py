"""Multi-head latent attention (DeepSeek-AI 2024), absorbed: one row per token is all it caches.

Keys and values of all heads are products of one latent row. Instead of expanding the cache, each
query is brought into the space of latents and each head's result out of it, so that the heads share
one key, [latent, key], and one value, the latent. On an LPU this is the shorter form of the two for
every launch: to expand a block of the cache takes 320 activations for each head and matrix, more
than the queries of 32 rows take.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.kernels.layout import even
from chip.numerics import exp, reciprocal
from cluster.model.graph.attention import Attention
from cluster.model.graph.int8 import dot_by_blocks, dot_fp16, fp16
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value, names


@register
@dataclass(frozen=True)
class LatentAttention(Op):
    """out = softmax(scale * (q . latent + q_turned . k)) latent, for every head, over the cache.

    Latents and keys of the rows are appended to the cache first; a row looks at its sequence up to
    itself. `k` has one head, which all share.
    """

    kind: ClassVar[str] = "latent_attention"
    mixes_rows: ClassVar[bool] = True
    window: ClassVar[int | None] = None

    q: Value
    q_turned: Value
    latent: Value
    k: Value
    scale: float

    def check(self) -> None:
        """q is [heads, latent], q_turned [heads, turned]; latent [latent] and k [1, turned]."""
        q, turned, k = self.q.dims, self.q_turned.dims, self.k.dims
        self.require(len(q) == len(turned) == len(k) == 2, "q and k must be [heads, elements]")
        self.require(q[0] == turned[0], "q and q_turned have different heads")
        self.require(k[0].size == 1, f"k has {k[0].size} heads, all queries share one")
        self.require(turned[1] == k[1], f"q has {names(turned)} of {turned[1].size}")
        self.require(self.latent.dims == q[1:], "queries are not of the space of latents")
        self.require(self.out.dims == q, "the result has other dimensions")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Heads of queries are cut; the cache is whole on every rank."""
        q, turned, latent, k = inputs
        self.require(q is turned, "queries must be cut alike")
        self.require(q is not Spread.PARTIAL, "its inputs must be summed up before")
        self.require(latent is k is Spread.WHOLE, "latents and keys must be whole on every rank")
        return q

    def products_per_row(self, context: int) -> int:
        """Scores, and the sum of latents."""
        return context * (self.q.width + self.q_turned.width + self.out.width)

    @property
    def cached_elements(self) -> int:
        """A latent and a key."""
        return self.latent.width + self.k.width

    def reference(self, run: Run, q: F32, q_turned: F32, latent: F32, k: F32) -> F32:
        """In float32."""
        latents, keys = (rows[0] for rows in run.append(self, latent[:, None], k))
        scores = (q @ latents.T + q_turned @ keys.T) * np.float32(self.scale)
        scores[self._unseen(run, scores)] = -np.inf
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed: F32 = (powers / powers.sum(axis=-1, keepdims=True)) @ latents
        return mixed

    def exact(self, run: Run, q: F32, q_turned: F32, latent: F32, k: F32) -> F32:
        """As chips compute it: what is multiplied is fp16, scores add up block by block."""
        q, q_turned, latent, k = (fp16(value) for value in (q, q_turned, latent, k))
        latents, keys = (rows[0] for rows in run.append(self, latent[:, None], k))
        scores: F32 | None = None
        for span in even(latents.shape[1], "i8").spans:
            mine = slice(span.first, span.first + span.count)
            part = dot_fp16(q[..., mine], latents[:, mine].T)
            scores = part if scores is None else scores + part
        assert scores is not None
        scores = (scores + dot_fp16(q_turned, keys.T)) * np.float32(self.scale)
        scores[self._unseen(run, scores)] = -np.inf
        powers = fp16(exp(scores - fp16(scores).max(axis=-1, keepdims=True)))
        mixed = dot_by_blocks(powers, latents)
        mixed *= reciprocal(dot_by_blocks(powers, np.ones_like(latents[:, :1])))
        return mixed

    def _unseen(self, run: Run, scores: F32) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Tokens [rows, heads, tokens] that a row does not see: those behind it."""
        behind = np.arange(scores.shape[2]) > run.positions()[:, None]
        return np.broadcast_to(behind[:, None], scores.shape)


ATTENTIONS = (Attention, LatentAttention)  # all have `q`, and a `k` whose heads queries look at
