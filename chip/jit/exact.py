"""`chip.numerics.exact` compiled, for one pair: the exact sum of fp16 products, rounded once.

`_significand` is half of `exact._integers`, the shift is the other; branches choose where arrays
have masks. Infinities and NaNs are told by their bits instead of by float64 products. The lanes of
w are two elements apart, as they lie in a quarter of a word.
"""

import numpy as np

from chip.jit.cache import kernel
from chip.jit.memory import INT, halves_at, inner, types
from chip.numerics.exact import NAN, SPLIT

_MASK = (1 << SPLIT) - 1
_LARGE = np.float32(2.0 ** (SPLIT - 1 - 48))
_INFINITY = np.float32(np.inf)


@inner
def _significand(bits: int) -> int:
    """The integer m of a finite fp16 number m * 2**(shift - 24)."""
    size = (bits & 0x3FF) | (0x400 if bits & 0x7C00 else 0)
    return -size if bits >> 15 else size


@inner
def _rounded(high: int, low: int) -> np.float32:
    """Round (high * 2**29 + low) * 2**-48 to fp32; see `exact._rounded`."""
    high, low = high + (low >> SPLIT), low & _MASK
    negative = high < 0
    if negative:
        high, low = -high - (1 if low != 0 else 0), -low & _MASK
    if high < 1 << 24:
        magnitude = np.float32(np.float64((high << SPLIT) | low) * 2.0**-48)
    else:
        magnitude = np.float32(np.float32((high << 1) | (1 if low != 0 else 0)) * _LARGE)
    return np.float32(-magnitude) if negative else magnitude


@kernel(types.float32(INT, INT, INT))
def exact_dot(x: int, w: int, lanes: int) -> np.float32:
    """The sum of x[i] * w[2 * i] over the lanes of fp16 bits at two addresses, rounded once."""
    xs, ws = halves_at(x, lanes), halves_at(w, 2 * lanes)
    high, low, up, down, invalid = 0, 0, False, False, False
    for i in range(lanes):
        a, b = int(xs[i]), int(ws[2 * i])
        size_a, size_b = a & 0x7FFF, b & 0x7FFF
        if size_a >= 0x7C00 or size_b >= 0x7C00:
            infinite = 0 < size_a <= 0x7C00 and 0 < size_b <= 0x7C00
            invalid |= not infinite
            up |= infinite and (a ^ b) >> 15 == 0
            down |= infinite and (a ^ b) >> 15 != 0
        else:
            product = _significand(a) * _significand(b)
            shift = (size_a >> 10 or 1) + (size_b >> 10 or 1) - 2
            if shift < SPLIT:
                low += product << shift
            else:
                high += product << (shift - SPLIT)
    if invalid or (up and down):
        return NAN
    if up or down:
        return _INFINITY if up else np.float32(-_INFINITY)
    return _rounded(high, low)
