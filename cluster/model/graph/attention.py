"""Attention of the rows of a launch over the cache of their sequence."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import exp, reciprocal
from cluster.model.graph.int8 import dot_by_blocks, dot_fp16, fp16
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.soft_cap import soft_cap
from cluster.model.graph.values import Value, Weight, names


@register
@dataclass(frozen=True)
class Attention(Op):
    """out = softmax(scale * q . K) . V for every query head, over its KV head's cache.

    Keys and values of the rows are appended to the cache first. A causal row looks at its sequence
    up to itself, back to `window` tokens where it has one; others look at all of it. Scores are
    softly capped at +-`cap`. Query heads are in order of the KV head that they share. The score of
    its head in `sinks` takes part in the softmax, though it stands for no value.
    """

    kind: ClassVar[str] = "attention"
    mixes_rows: ClassVar[bool] = True

    q: Value
    k: Value
    v: Value
    scale: float
    causal: bool = True
    window: int | None = None
    cap: float | None = None
    sinks: Weight | None = None

    def check(self) -> None:
        """q is [heads, head_dim], k and v [kv_heads, head_dim], heads a multiple of kv_heads."""
        self.require(self.window is None or self.causal, "a window is of causal rows")
        self.require(self.window is None or self.window > 0, f"the window is {self.window}")
        self.require(self.cap is None or self.cap > 0, f"the cap is {self.cap}")
        q, k, v = (value.dims for value in (self.q, self.k, self.v))
        self.require(len(q) == len(k) == len(v) == 2, "q, k and v must be [heads, head_dim]")
        self.require(q[1] == k[1], f"q has {names(q)} of {q[1].size}, k of {k[1].size}")
        self.require(k[0] == v[0], "k and v have different heads")
        self.require(
            q[0].size % k[0].size == 0,
            f"{q[0].size} heads are not a multiple of {k[0].size} KV heads",
        )
        self.require(self.out.dims == (q[0], v[1]), "the result has other dimensions")
        if self.sinks is not None:
            self.require(self.causal, "sinks are of causal rows")
            self.require(self.sinks.out == q[:1], "there must be a sink for each head")

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.q.dims[0].size // self.k.dims[0].size

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Heads are cut alike in all three inputs; KV heads that two ranks need, both hold."""
        self.require(len(set(inputs)) == 1, "q, k and v must be cut alike")
        self.require(inputs[0] is not Spread.PARTIAL, "its inputs must be summed up before")
        return inputs[0]

    @property
    def takes_sequence(self) -> bool:
        """Where rows look ahead."""
        return not self.causal

    def products_per_row(self, context: int) -> int:
        """Scores, and the sum of values."""
        return min(context, self.window or context) * (self.q.width + self.out.width)

    @property
    def cached_elements(self) -> int:
        """A key and a value."""
        return self.k.width + self.v.width

    def reference(self, run: Run, q: F32, k: F32, v: F32) -> F32:
        """In float32."""
        keys, values = run.append(self, k, v)
        queries, keys, values = self._by_kv_head(run, q, keys, values)
        scores = queries @ keys.swapaxes(1, 2) * np.float32(self.scale)
        if self.cap is not None:
            scores = np.float32(self.cap) * np.tanh(scores / np.float32(self.cap))
        self._mask(run, scores)
        top, sinks = scores.max(axis=-1, keepdims=True), self._sinks(run, scores)
        if sinks is not None:
            top = np.maximum(top, sinks)
        powers = np.exp(scores - top)
        total = powers.sum(axis=-1, keepdims=True)
        if sinks is not None:
            total += np.exp(sinks - top)
        return self._by_row(powers / total @ values, len(q))

    def exact(self, run: Run, q: F32, k: F32, v: F32) -> F32:
        """As chips compute it: q, k, v and what is summed up are fp16, the maximum too."""
        keys, values = run.append(self, fp16(k), fp16(v))
        queries, keys, values = self._by_kv_head(run, fp16(q), keys, values)
        scores = dot_fp16(queries, keys.swapaxes(1, 2))
        if self.cap is None:
            scores *= np.float32(self.scale)
        else:
            scores = soft_cap(scores, self.cap, self.scale)
        self._mask(run, scores)
        top, sinks = fp16(scores.max(axis=-1, keepdims=True)), self._sinks(run, scores)
        if sinks is not None:
            top = np.maximum(top, fp16(sinks))
        powers = fp16(exp(scores - top))
        total = dot_by_blocks(powers, np.ones_like(values[..., :1]))
        if sinks is not None:
            total += fp16(exp(sinks - top))
        return self._by_row(dot_by_blocks(powers, values) * reciprocal(total), len(q))

    def _sinks(self, run: Run, scores: F32) -> F32 | None:
        """The score of its head's sink beside each row of scores [n, group * rows, tokens]."""
        if self.sinks is None:
            return None
        sinks = run.weight(self.sinks).reshape(len(scores), -1)
        rows = scores.shape[1] // sinks.shape[1]
        found: F32 = np.repeat(sinks, rows, axis=1)[..., None]
        return found

    def _by_kv_head(self, run: Run, q: F32, keys: F32, values: F32) -> tuple[F32, F32, F32]:
        """Queries [n, group * rows, head_dim] of one KV head each, keys and values [n, tokens, ..].

        n are the KV heads, or, where they do not have equally many query heads, the query heads.
        """
        kv_of = run.kv_of(self.q.dims[0], self.k.dims[0])
        group, odd = divmod(len(kv_of), len(keys))
        if odd or kv_of != tuple(head // group for head in range(len(kv_of))):
            keys, values = keys[list(kv_of)], values[list(kv_of)]
        return q.swapaxes(0, 1).reshape(len(keys), -1, q.shape[2]), keys, values

    def _mask(self, run: Run, scores: F32) -> None:
        """Set scores [n, group * rows, tokens] of tokens that a row does not see to -inf."""
        positions, tokens = run.positions()[:, None], np.arange(scores.shape[2])
        unseen = np.zeros((len(positions), len(tokens)), bool)
        if self.causal:
            unseen |= tokens > positions
        if self.window is not None:
            unseen |= tokens <= positions - self.window
        if unseen.any():
            scores.reshape(-1, *unseen.shape)[:, unseen] = -np.inf

    def _by_row(self, mixed: F32, rows: int) -> F32:
        """[rows, heads, head_dim]."""
        return mixed.reshape(-1, rows, mixed.shape[2]).swapaxes(0, 1)
