"""How likely tokens were: the logarithm of the softmax of their logits."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.generation.sampling import exp_nonpositive


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability."""

    id: int
    logprob: float


@dataclass(frozen=True)
class Logprobs:
    """The token that was chosen, and the likeliest ones, of equal ones the lowest first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


def logprobs(logits: NDArray[np.floating], token: int, count: int) -> Logprobs:
    """Return the logarithms of the probabilities of `token` and of the `count` likeliest tokens.

    >>> logprobs(np.log(np.array([1.0, 2.0, 1.0])), 2, 1).top[0].id
    1
    """
    scores = logits.astype(np.float64)
    below = scores - scores.max()
    every = below - math.log(float(np.sum(exp_nonpositive(below))))
    best = np.argsort(-scores, kind="stable")[:count]
    top = tuple(TokenLogprob(int(one), float(every[one])) for one in best)
    return Logprobs(TokenLogprob(token, float(every[token])), top)
