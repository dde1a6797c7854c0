"""Rotary tables from IEEE basic operations only, so that every host writes the same bits."""

import functools
from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt

from cluster.model.spec import ModelSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
DIGITS = 40
# pi / 2 in three parts; the first two have 33 significant bits, so k times them is exact.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)


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


def rotary_rows(positions: Sequence[int], model: ModelSpec, lanes: int) -> tuple[F32, F32]:
    """(cosine, signed sine) rows [positions, lanes] for interleaved pairs, repeated per head.

    The sine is negative in even lanes: out = x * cos + partner * sin.
    """
    head_dim, scaling = model.head_dim, model.rope_scaling
    turns = frequencies(model.rope_theta, head_dim)
    if scaling:
        turns = scaling.scaled(turns, model.rope_theta)
    cosine, sine = cos_sin(np.array(positions, np.float64)[:, None] * turns)
    if scaling:
        cosine, sine = cosine * scaling.magnitude, sine * scaling.magnitude
    pairs = np.stack([-sine, sine], axis=2).reshape(len(positions), head_dim)
    whole = lanes // head_dim
    rows = np.zeros((2, len(positions), lanes), np.float32)
    rows[0, :, : whole * head_dim] = np.tile(np.repeat(cosine, 2, axis=1), whole)
    rows[1, :, : whole * head_dim] = np.tile(pairs, whole)
    return rows[0], rows[1]
