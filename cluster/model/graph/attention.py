"""Attention of the rows of a launch over the cache of their sequence."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.op import Op, Spread, register
from cluster.model.graph.values import Value, names


@register
@dataclass(frozen=True)
class Attention(Op):
    """out = softmax(scale * q . K) . V for every query head, over its KV head's cache.

    Keys and values of the rows are appended to the cache first. A causal row looks at its sequence
    up to itself, others at all of it. Query heads are in order of the KV head that they share.
    """

    kind: ClassVar[str] = "attention"

    q: Value
    k: Value
    v: Value
    scale: float
    causal: bool = True

    def check(self) -> None:
        """q is [heads, head_dim], k and v [kv_heads, head_dim], heads a multiple of kv_heads."""
        q, k, v = (value.dims for value in (self.q, self.k, self.v))
        self.require(len(q) == len(k) == len(v) == 2, "q, k and v must be [heads, head_dim]")
        self.require(q[1] == k[1], f"q has {names(q)} of {q[1].size}, k of {k[1].size}")
        self.require(k[0] == v[0], "k and v have different heads")
        self.require(
            q[0].size % k[0].size == 0,
            f"{q[0].size} heads are not a multiple of {k[0].size} KV heads",
        )
        self.require(self.out.dims == (q[0], v[1]), "the result has other dimensions")

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.q.dims[0].size // self.k.dims[0].size

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Heads are cut alike in all three inputs; KV heads that two ranks need, both hold."""
        self.require(len(set(inputs)) == 1, "q, k and v must be cut alike")
        self.require(inputs[0] is not Spread.PARTIAL, "its inputs must be summed up before")
        return inputs[0]
