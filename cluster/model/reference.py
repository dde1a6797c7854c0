"""A Llama-like decoder in plain NumPy float32: the emulator's oracle and speed baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import ClusterError, PromptTooLong
from cluster.model.spec import F32, ModelSpec, Weights


@dataclass(frozen=True)
class _Layer:
    """Weights of one layer, transposed views [in, out]; those of equal input side by side."""

    attn_norm: F32
    qkv: F32
    qkv_bias: F32 | float
    out: F32
    ffn_norm: F32
    gate_up: F32
    down: F32
    q_norm: F32 | None
    k_norm: F32 | None


class Reference:
    """Forward pass with a KV cache. All weights stay in memory as float32 (0.54 GB for SmolLM2).

    `context` is the number of tokens the cache holds.
    """

    def __init__(self, weights: Weights, context: int = 1024) -> None:
        self.spec = spec = weights.spec
        self.context = context
        self.position = 0
        self._layers = [_resident(weights, index) for index in range(spec.layers)]
        self._final_norm = weights.final_norm
        self._head = weights.head_rows(0, spec.vocab)
        self._weights = weights
        self._k = np.zeros((spec.layers, spec.kv_heads, context, spec.head_dim), np.float32)
        self._v = np.zeros_like(self._k)
        self._cos, self._sin = rotary_tables(spec, context)

    def reset(self) -> None:
        """Forget all tokens."""
        self.position = 0

    def forward(self, ids: Sequence[int]) -> F32:
        """Append tokens to the sequence; return the logits [vocab] after the last of them.

        Raises PromptTooLong when the cache is full.
        """
        if self.position + len(ids) > self.context:
            raise PromptTooLong(self.position + len(ids), 0, self.context)
        x = self._weights.embedding_rows(ids)
        for index, layer in enumerate(self._layers):
            x = x + self._attention(index, layer, rms_norm(x, layer.attn_norm, self.spec.rms_eps))
            x = x + _feed_forward(
                layer, rms_norm(x, layer.ffn_norm, self.spec.rms_eps), self.spec.activation
            )
        self.position += len(ids)
        logits: F32 = self._head @ rms_norm(x[-1], self._final_norm, self.spec.rms_eps)
        return logits

    def generate(self, ids: Sequence[int], n: int, eos: int | None = None) -> list[int]:
        """Return up to `n` greedy tokens after `ids`, from an empty cache; `eos` ends it."""
        if not ids:
            raise ClusterError("the prompt is empty")
        self.reset()
        output: list[int] = []
        while len(output) < n:
            token = int(np.argmax(self.forward(output[-1:] or ids)))
            output.append(token)
            if token == eos:
                break
        return output

    def _attention(self, index: int, layer: _Layer, x: F32) -> F32:
        """Return the attention output [tokens, hidden] of the normalised `x`; fills the cache."""
        spec, start, tokens = self.spec, self.position, x.shape[0]
        end, group = start + tokens, spec.heads // spec.kv_heads
        qkv, cut = x @ layer.qkv + layer.qkv_bias, spec.q_rows + spec.kv_rows
        q, k, v = qkv[:, : spec.q_rows], qkv[:, spec.q_rows : cut], qkv[:, cut:]
        cos, sin = self._cos[start:end], self._sin[start:end]
        keys = self._normed(_heads(k, spec.kv_heads), layer.k_norm)
        self._k[index, :, start:end] = rotate(keys, cos, sin)
        self._v[index, :, start:end] = _heads(v, spec.kv_heads)
        keys, values = self._k[index, :, :end], self._v[index, :, :end]
        # Query heads h * group ... h * group + group - 1 share KV head h.
        queries = rotate(self._normed(_heads(q, spec.heads), layer.q_norm), cos, sin)
        queries = queries.reshape(spec.kv_heads, group * tokens, spec.head_dim)
        scores = queries @ keys.swapaxes(1, 2) / np.float32(np.sqrt(spec.head_dim))
        scores = scores.reshape(spec.kv_heads, group, tokens, end)
        future = np.arange(end) > np.arange(start, end)[:, None]
        scores[..., future] = -np.inf
        weights = softmax(scores)
        mixed: F32 = weights.reshape(spec.kv_heads, group * tokens, end) @ values
        mixed = mixed.reshape(spec.heads, tokens, spec.head_dim).swapaxes(0, 1)
        result: F32 = mixed.reshape(tokens, spec.q_rows) @ layer.out
        return result

    def _normed(self, x: F32, weight: F32 | None) -> F32:
        return x if weight is None else rms_norm(x, weight, self.spec.rms_eps)


def _resident(weights: Weights, index: int) -> _Layer:
    w = weights.layer(index)
    qkv = np.concatenate([w.wq, w.wk, w.wv])
    gate_up = np.concatenate([w.w_gate, w.w_up])
    biases = [bias for bias in (w.q_bias, w.k_bias, w.v_bias) if bias is not None]
    bias = np.concatenate(biases) if biases else 0.0
    return _Layer(
        w.attn_norm, qkv.T, bias, w.wo.T, w.ffn_norm, gate_up.T, w.w_down.T, w.q_norm, w.k_norm
    )


def _heads(x: F32, heads: int) -> F32:
    """Return [tokens, heads * head_dim] as [heads, tokens, head_dim]."""
    return x.reshape(x.shape[0], heads, -1).swapaxes(0, 1)


def _feed_forward(layer: _Layer, x: F32, activation: str) -> F32:
    gate_up, ffn = x @ layer.gate_up, layer.down.shape[0]
    gate, up = gate_up[:, :ffn], gate_up[:, ffn:]
    active = silu(gate) if activation == "silu" else gelu(gate)
    result: F32 = (active * up) @ layer.down
    return result


def silu(x: F32) -> F32:
    """Return x * sigmoid(x)."""
    result: F32 = x / (1 + np.exp(-x))
    return result


def gelu(x: F32) -> F32:
    """Return the tanh form of GELU."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    result: F32 = np.float32(0.5) * x * (1 + np.tanh(inner))
    return result


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    mean: F32 = np.square(x).sum(axis=-1, keepdims=True) / np.float32(x.shape[-1])
    result: F32 = x / np.sqrt(mean + np.float32(eps)) * weight
    return result


def softmax(x: F32) -> F32:
    """Return the softmax over the last axis."""
    e: F32 = np.exp(x - x.max(axis=-1, keepdims=True))
    result: F32 = e / e.sum(axis=-1, keepdims=True)
    return result


def rotary_tables(spec: ModelSpec, positions: int) -> tuple[F32, F32]:
    """Return cos and sin [positions, head_dim/2] of position * theta^(-2i/head_dim)."""
    frequencies = spec.rope_theta ** (-np.arange(0, spec.head_dim, 2) / spec.head_dim)
    scaling, magnitude = spec.rope_scaling, 1.0
    if scaling:
        frequencies, magnitude = scaling.scaled(frequencies, spec.rope_theta), scaling.magnitude
    angles = np.arange(positions)[:, None] * frequencies
    cos, sin = magnitude * np.cos(angles), magnitude * np.sin(angles)
    return cos.astype(np.float32), sin.astype(np.float32)


def rotate(x: F32, cos: F32, sin: F32) -> F32:
    """Return x [..., tokens, head_dim] with each pair (2i, 2i+1) turned by its angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    result = np.empty_like(x)
    result[..., 0::2] = even * cos - odd * sin
    result[..., 1::2] = even * sin + odd * cos
    return result
