"""Choosing the next token from logits: greedy, or temperature with top-p and a seed.

A choice depends on the logits, the settings and the step only, never on earlier draws, so a
generation that is replayed from the middle makes the same choices.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.errors import BadValue, ClusterError

_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # fdlibm's split of ln 2
_TAYLOR = [1.0 / math.factorial(n) for n in range(13, -1, -1)]


@dataclass(frozen=True)
class Sampling:
    """How to choose: temperature 0 is greedy; `top_p` keeps the likeliest tokens of that mass."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadValue("--temperature", self.temperature, "must be zero or a positive number")
        if not 0 < self.top_p <= 1:
            raise BadValue("--top-p", self.top_p, "must be above 0 and at most 1")
        if self.seed < 0:
            raise BadValue("--seed", self.seed, "must be zero or positive")

    def pick(self, logits: NDArray[np.floating], step: int) -> int:
        """Return the token chosen at `step` (0 is the first new token). Raises as `greedy`."""
        if self.temperature == 0:
            return greedy(logits)
        return sample(logits, self.temperature, self.top_p, uniform(self.seed, step))


def greedy(logits: NDArray[np.floating]) -> int:
    """Return the token of the largest logit, the lowest such id on a tie.

    Raises ClusterError unless logits are one non-empty row of finite numbers.
    """
    _check(logits)
    return int(np.argmax(logits))


def uniform(seed: int, step: int) -> float:
    """Return the number in [0, 1) that belongs to (seed, step)."""
    return float(np.random.Generator(np.random.PCG64([seed, step])).random())


def sample(logits: NDArray[np.floating], temperature: float, top_p: float, draw: float) -> int:
    """Return the token at quantile `draw` of the softmax, cut to the likeliest mass `top_p`.

    Tokens are ordered by falling logit, equal ones by rising id. Raises as `greedy`.
    """
    _check(logits)
    order = np.argsort(-logits, kind="stable")
    ranked = logits[order].astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature makes all but the largest -infinity
        scaled = (ranked - ranked[0]) / temperature
    mass = np.cumsum(exp_nonpositive(scaled))
    kept = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    kept = min(kept, mass.size)
    chosen = int(np.searchsorted(mass[:kept], draw * mass[kept - 1], side="right"))
    return int(order[min(chosen, kept - 1)])


def exp_nonpositive(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(x) for x <= 0, the same bits on every host, within 2 ulp; 0 below -700.

    np.exp may differ by an ulp between CPUs, and a token chosen by such an ulp would change all
    that follows. Only IEEE basic operations are used: exp(k ln 2 + r) = 2^k Taylor(r).
    """
    x = np.maximum(x, -701.0)
    k = np.rint(x / math.log(2.0))
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    result = np.full_like(x, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        result = result * r + coefficient
    return np.where(x < -700.0, 0.0, np.ldexp(result, k.astype(np.int32)))


def _check(logits: NDArray[np.floating]) -> None:
    if logits.ndim != 1 or logits.size == 0:
        raise ClusterError(f"logits must be one row, they have shape {logits.shape}")
    if not np.isfinite(logits).all():
        raise ClusterError("logits hold NaN or infinity, so no token can be chosen")
