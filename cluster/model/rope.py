"""Rotary frequencies, and how models stretch them beyond the context of their training.

Formulas: position interpolation (Chen et al. 2023), YaRN (Peng et al. 2023, section 3), and the
"llama3" rule of Meta's Llama 3.1 reference code. IEEE basic operations and `Decimal` only, so that
every host writes the same bits.
"""

import functools
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import ceil, floor, pi

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
KINDS = ("linear", "llama3", "yarn")
DIGITS = 40
# pi / 2 in three parts; the first two have 33 significant bits, so k times them is exact.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)


@dataclass(frozen=True)
class RopeScaling:
    """Scaling of one of KINDS by `factor`; `original_context` is the length before it.

    llama3: `low` and `high` are wavelengths per original context (low_freq_factor and
    high_freq_factor). yarn: `low` and `high` are rotations in it (beta_slow and beta_fast), and
    cosine and sine are multiplied by `magnitude`.
    """

    kind: str
    factor: float
    original_context: int = 0
    low: float = 1.0
    high: float = 4.0
    magnitude: float = 1.0

    def scaled(self, frequencies: F64, theta: float) -> F64:
        """The frequencies [head_dim / 2] of the stretched model."""
        slow = frequencies / self.factor
        if self.kind == "linear":
            return slow
        keep = (
            self._smooth(frequencies) if self.kind == "llama3" else self._ramp(frequencies, theta)
        )
        mixed: F64 = slow * (1.0 - keep) + frequencies * keep
        return mixed

    def _smooth(self, frequencies: F64) -> F64:
        """1 where a frequency stays as it is, 0 where it is divided by the factor."""
        turns = self.original_context * frequencies / (2.0 * pi)
        return np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)

    def _ramp(self, frequencies: F64, theta: float) -> F64:
        pairs = len(frequencies)

        def pair_with(turns: float) -> float:
            """The pair that turns that often within the original context."""
            wavelengths = Decimal(self.original_context) / (Decimal(turns) * 2 * Decimal(pi))
            return float(2 * pairs * wavelengths.ln() / (2 * Decimal(theta).ln()))

        low = max(floor(pair_with(self.high)), 0)
        high = min(ceil(pair_with(self.low)), 2 * pairs - 1)
        position = (np.arange(pairs) - low) / max(high - low, 1e-3)
        return 1.0 - np.clip(position, 0.0, 1.0)


def yarn_magnitude(factor: float) -> float:
    """What YaRN multiplies cosine and sine with: 0.1 ln(factor) + 1 (its equation 22)."""
    return float(Decimal("0.1") * Decimal(factor).ln() + 1) if factor > 1 else 1.0


@functools.cache
def frequencies(theta: float, head_dim: int) -> F64:
    """theta ** (-2 i / head_dim), correctly rounded, for i below head_dim / 2."""
    with localcontext() as context:
        context.prec = DIGITS
        log = Decimal(theta).ln()
        found = np.array([float((-log * 2 * i / head_dim).exp()) for i in range(head_dim // 2)])
    found.setflags(write=False)  # all callers have the same array
    return found


def cos_sin(angle: F64) -> tuple[F64, F64]:
    """Cosine and sine of angles up to 10**7, to about 1e-15."""
    turns = np.rint(angle * (2.0 / np.pi))
    rest = angle
    for part in _HALF_PI:
        rest = rest - turns * part
    square = rest * rest
    cosine, sine = np.ones_like(rest), np.ones_like(rest)
    for n in range(9, 0, -1):  # Horner over the Taylor series, |rest| <= pi / 4
        cosine = 1.0 - square * cosine / (2 * n * (2 * n - 1))
        sine = 1.0 - square * sine / (2 * n * (2 * n + 1))
    sine = sine * rest
    quarter = turns.astype(np.int64) % 4
    swap = quarter % 2 == 1
    cosine, sine = np.where(swap, sine, cosine), np.where(swap, cosine, sine)
    cosine = np.where((quarter == 1) | (quarter == 2), -cosine, cosine)
    return cosine, np.where(quarter >= 2, -sine, sine)
