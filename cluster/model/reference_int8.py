"""The same decoder in W8A8, in plain NumPy: the oracle of `--weights int8`.

Weights are int8 with a scale for each output channel. Before each matrix, a token's activations
are scaled by their largest magnitude and rounded to int8, to nearest even; sums are exact integers.
After a norm the largest magnitude is that of x * gamma: the norm's own factor only joins the scale.
Where tensor parallelism cuts the activations of a matrix (attention output, gated FFN), each
rank's part has a scale of its own, so the reference takes the degree too. Queries, keys, values
and probabilities are rounded to fp16, as attention is not quantised.

One rounding that falls otherwise changes an int8 activation, and from there all that follows. So
this reference takes the numerics contract at its word: the chip's elementary functions, dot
products of up to 320 terms summed exactly and rounded once, and the stated order of the one sum
that is not exact, that of the norm. It equals the chips bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from chip.numerics import exp, reciprocal, rsqrt
from cluster.errors import PromptTooLong
from cluster.generation.rotary import rotary_rows
from cluster.model.reference import rotate
from cluster.model.spec import F32, ModelSpec, Weights

F64 = npt.NDArray[np.float64]
LEVELS = np.float32(127)
LANES = 320  # of a pass of the array


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix [out, in] of integers, held as float32, and the scale [out] of each row."""

    integers: F32
    scales: F32

    @staticmethod
    def of(matrix: F32) -> "Int8Matrix":
        """Round a float32 matrix; each row's largest magnitude becomes 127."""
        scales = np.abs(matrix).max(axis=1) / LEVELS
        divisor = np.where(scales == 0, np.float32(1), scales)
        return Int8Matrix(np.rint(matrix / divisor[:, None]).astype(np.float32), scales)

    def dots(self, x: "Int8Rows") -> list[F32]:
        """Products [tokens, out] of each part of x, rescaled by itself."""
        found = []
        for part, integers, steps in x.parts:
            sums = integer_dot(integers, self.integers[:, part])
            found.append(sums.astype(np.float32) * steps * self.scales)
        return found

    def dot(self, x: "Int8Rows") -> F32:
        """Products of activations of one part."""
        (product,) = self.dots(x)
        return product


@dataclass(frozen=True)
class Int8Rows:
    """Activations [tokens, in] by parts: the columns, their integers, a step for each token."""

    parts: tuple[tuple[slice, F32, F32], ...]

    @staticmethod
    def of(rows: F32, sizes: Sequence[int], factor: F32 | None = None) -> "Int8Rows":
        """Round rows, cut in parts of these sizes; `factor` [tokens, 1] scales what they mean."""
        parts, start = [], 0
        for size in sizes:
            part = slice(start, start + size)
            peak = np.maximum(np.abs(rows[:, part]).max(axis=1, keepdims=True), np.float32(2**-100))
            inverse = reciprocal(peak) * LEVELS
            integers = np.clip(np.rint(rows[:, part] * inverse), -128, 127)
            steps = peak * (np.float32(1) / LEVELS)
            steps = steps if factor is None else steps * factor
            parts.append((part, integers, steps))
            start += size
        return Int8Rows(tuple(parts))


@dataclass(frozen=True)
class _Layer:
    norms: tuple[F32, F32]
    biases: tuple[F32 | float, F32 | float, F32 | float]
    q: Int8Matrix
    k: Int8Matrix
    v: Int8Matrix
    out: Int8Matrix
    gate: Int8Matrix
    up: Int8Matrix
    down: Int8Matrix


class ReferenceInt8:
    """W8A8 forward pass with a KV cache of `context` tokens; `tp` cuts activations as chips do."""

    def __init__(self, weights: Weights, context: int = 1024, tp: int = 1) -> None:
        self.spec = spec = weights.spec
        self.context, self.tp, self.position = context, tp, 0
        self._weights, self._final_norm = weights, weights.final_norm
        self._layers = [_resident(weights, index) for index in range(spec.layers)]
        self._head = Int8Matrix.of(weights.head_rows(0, spec.vocab))
        shape = (spec.layers, spec.kv_heads, context, spec.head_dim)
        self._k, self._v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._turns = _turns(spec, context)

    def forward(self, ids: Sequence[int]) -> F32:
        """Append tokens; return the logits [vocab] after the last. Raises PromptTooLong."""
        if self.position + len(ids) > self.context:
            raise PromptTooLong(self.position + len(ids), 0, self.context)
        x = self._weights.embedding_rows(ids)
        for index, layer in enumerate(self._layers):
            for part in by_teams(self._attention(index, layer, self._normed(x, layer.norms[0]))):
                x = x + part
            for part in by_teams(self._feed_forward(layer, self._normed(x, layer.norms[1]))):
                x = x + part
        self.position += len(ids)
        logits: F32 = self._head.dot(self._normed(x[-1:], self._final_norm))[0]
        return logits

    def _normed(self, x: F32, gamma: F32) -> Int8Rows:
        mean = lane_sum(np.square(x)) * np.float32(1 / x.shape[1])
        factor = rsqrt(mean + np.float32(self.spec.rms_eps))
        return Int8Rows.of(x * gamma, [x.shape[1]], factor)

    def _attention(self, index: int, layer: _Layer, x: Int8Rows) -> list[F32]:
        spec, start = self.spec, self.position
        q, k, v = (
            matrix.dot(x) + bias
            for matrix, bias in zip((layer.q, layer.k, layer.v), layer.biases, strict=True)
        )
        end, group = start + len(q), spec.heads // spec.kv_heads
        turn = [table[start:end] for table in self._turns]
        self._k[index, :, start:end] = _fp16(rotate(_heads(k, spec.kv_heads), *turn))
        self._v[index, :, start:end] = _fp16(_heads(v, spec.kv_heads))
        queries = _fp16(rotate(_heads(q, spec.heads), *turn))
        keys = np.repeat(self._k[index, :, :end], group, axis=0)
        values = np.repeat(self._v[index, :, :end], group, axis=0)
        scores = _dot(queries, keys.swapaxes(1, 2)) * np.float32(1 / np.sqrt(spec.head_dim))
        scores[:, np.arange(end) > np.arange(start, end)[:, None]] = -np.inf
        weights = _fp16(exp(scores - _fp16(scores).max(axis=2, keepdims=True)))
        mixed = _by_blocks(weights, values)
        mixed *= reciprocal(_by_blocks(weights, np.ones_like(values[..., :1])))
        rows = np.ascontiguousarray(mixed.swapaxes(0, 1)).reshape(end - start, spec.q_rows)
        return layer.out.dots(Int8Rows.of(rows, _sizes(spec.heads, self.tp, spec.head_dim)))

    def _feed_forward(self, layer: _Layer, x: Int8Rows) -> list[F32]:
        gate, up = layer.gate.dot(x), layer.up.dot(x)
        share = reciprocal(exp(_minus(gate, self.spec.activation)) + np.float32(1))
        return layer.down.dots(Int8Rows.of(share * (gate * up), _sizes(self.spec.ffn, self.tp)))


def _resident(weights: Weights, index: int) -> _Layer:
    w = weights.layer(index)
    matrices = [Int8Matrix.of(m) for m in (w.wq, w.wk, w.wv, w.wo, w.w_gate, w.w_up, w.w_down)]
    q, k, v = (0.0 if bias is None else bias for bias in (w.q_bias, w.k_bias, w.v_bias))
    return _Layer((w.attn_norm, w.ffn_norm), (q, k, v), *matrices)


def integer_dot(a: F32, b: F32) -> F64:
    """a . b over the last axis, exactly: of 1024 products of 8 bits, float32 sums are integers."""
    starts = range(0, a.shape[1], 1024)
    parts = [(a[:, s : s + 1024] @ b[:, s : s + 1024].T).astype(np.float64) for s in starts]
    total: F64 = np.sum(parts, axis=0)
    return total


def _sizes(items: int, ranks: int, each: int = 1) -> list[int]:
    """Elements of each rank's share of `items` of `each` elements, as even as can be."""
    return [(items // ranks + (rank < items % ranks)) * each for rank in range(ranks)]


def _minus(gate: F32, activation: str) -> F32:
    """The exponent of the gate's sigmoid, negated: its own, or that of the tanh form of GELU."""
    if activation == "silu":
        return -gate
    root = np.sqrt(2 / np.pi)
    bracket = gate * gate * np.float32(-2 * root * 0.044715) + np.float32(-2 * root)
    return gate * bracket


def by_teams(parts: Sequence[F32]) -> list[F32]:
    """What ranks add to x, in order; of 16, 24, .. ranks the sums of each eight."""
    if len(parts) <= 8 or len(parts) % 8:
        return list(parts)
    return [reduce(np.add, parts[first : first + 8]) for first in range(0, len(parts), 8)]


def lane_sum(rows: F32) -> F32:
    """Sum [tokens, 1] of [tokens, n], in the order of the chip's lanes.

    Blocks of up to 320 lanes, as even as multiples of 16 allow, are added one after another; then
    lanes that differ in bits 0 and 1, in 2 and 3, in 4 and 5; then the five groups of 64 that are
    left, beginning at each of them: the largest of these sums counts.
    """
    tokens, total = rows.shape
    count = -(-total // LANES)
    width = -(-total // (16 * count)) * 16
    cut = np.zeros((tokens, count, LANES), np.float32)
    padded = np.zeros((tokens, count * width), np.float32)
    padded[:, :total] = rows
    cut[:, :, :width] = padded.reshape(tokens, count, width)
    lanes = cut[:, 0]
    for block in range(1, count):
        lanes = lanes + cut[:, block]
    quads = lanes.reshape(tokens, 5, 4, 4, 4)
    for _ in range(3):
        quads = (quads[..., 0] + quads[..., 1]) + (quads[..., 2] + quads[..., 3])
    fives = [np.roll(quads, -first, axis=1) for first in range(5)]
    sums = [((f[:, 0] + f[:, 1]) + (f[:, 2] + f[:, 3])) + f[:, 4] for f in fives]
    largest: F32 = np.max(sums, axis=0)[:, None]
    return largest


def _dot(a: F32, b: F32) -> F32:
    """Products of fp16 values, summed in float64 (as good as exactly) and rounded once."""
    result: F32 = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    return result


def _by_blocks(weights: F32, values: F32) -> F32:
    """Sum over tokens of weight x value: blocks of 320 tokens one after another."""
    starts = range(0, weights.shape[2], LANES)
    first, *others = [_dot(weights[..., s : s + LANES], values[:, s : s + LANES]) for s in starts]
    for part in others:
        first = first + part
    return first


def _turns(spec: ModelSpec, positions: int) -> tuple[F32, F32]:
    """Cosine and sine [positions, head_dim / 2]: the tables that the host gives the chips."""
    cosine, sine = rotary_rows(range(positions), spec, LANES)
    return cosine[:, : spec.head_dim : 2], sine[:, 1 : spec.head_dim : 2]


def _heads(x: F32, heads: int) -> F32:
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _fp16(x: F32) -> F32:
    return x.astype(np.float16).astype(np.float32)
