"""A BERT-like encoder in plain NumPy float32: the oracle of the emulated one."""

from collections.abc import Sequence

import numpy as np
from scipy.special import erf

from cluster.model.bert import EncoderWeights
from cluster.model.spec import F32


def layer_norm(x: F32, weight: F32, bias: F32, eps: float) -> F32:
    """Return the normalised x [.., hidden]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    result: F32 = centred / np.sqrt(variance + np.float32(eps)) * weight + bias
    return result


def gelu(x: F32) -> F32:
    """Return x times the normal distribution function of x (the form with erf)."""
    result: F32 = x * (0.5 * (1 + erf(x / np.sqrt(np.float32(2))))).astype(np.float32)
    return result


def encode(weights: EncoderWeights, ids: Sequence[int]) -> F32:
    """Return the last hidden state [tokens, hidden] of one sequence without padding."""
    spec = weights.spec
    x = layer_norm(weights.embeddings(ids), *weights.embedding_norm, spec.eps)
    for index in range(spec.layers):
        w = weights.layer(index)

        def dense(x: F32, name: str, w: dict[str, F32] = w) -> F32:
            result: F32 = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
            return result

        def norm(x: F32, name: str, w: dict[str, F32] = w) -> F32:
            name = f"{name}.LayerNorm"
            return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], spec.eps)

        heads = [
            dense(x, f"attention.self.{n}").reshape(len(ids), spec.heads, -1).swapaxes(0, 1)
            for n in ("query", "key", "value")
        ]
        scores = heads[0] @ heads[1].swapaxes(1, 2) / np.float32(spec.head_dim**0.5)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (
            (powers / powers.sum(axis=-1, keepdims=True) @ heads[2])
            .swapaxes(0, 1)
            .reshape(len(ids), -1)
        )
        x = norm(x + dense(mixed, "attention.output.dense"), "attention.output")
        x = norm(x + dense(gelu(dense(x, "intermediate.dense")), "output.dense"), "output")
    return x


def embed(weights: EncoderWeights, ids: Sequence[int]) -> F32:
    """Return the mean of the last hidden state over the tokens, scaled to length 1 [hidden]."""
    mean = encode(weights, ids).mean(axis=0)
    unit: F32 = mean / np.linalg.norm(mean)
    return unit
