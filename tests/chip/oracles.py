"""What each point-wise op gives, by other means: 64-bit integers, float64 rounded once, Python.

An oracle takes the type and the operands as they are, and returns the wanted array, of the wanted
type. `CLOSE` has the functions that are not correctly rounded: float64, and the bound in ulps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from chip.isa import FORMATS, NUMPY_TYPES, TYPE_GROUPS
from tests.chip.naive import decoded

RNG = np.random.default_rng(7)
FLOATS = TYPE_GROUPS["float"]
FP8 = ("e4m3", "e5m2")
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 65504.0, 6e-8, 1e-40, 3e38]
EDGES = [0, 1, 2, 7, 8, 15, 16, 31, 32, 100]
Oracle = Callable[..., np.ndarray]


def sample(dtype: str) -> np.ndarray:
    """Random vectors of a type, with its special numbers among them."""
    kind = NUMPY_TYPES[dtype]
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            scale = 10.0 ** RNG.integers(-4, 5, (4, 320))
            x = (RNG.standard_normal((4, 320)) * scale).astype(kind)
            x[0, : len(SPECIAL)] = SPECIAL
        return x
    bounds = np.iinfo(kind)
    x = RNG.integers(bounds.min, bounds.max, (4, 320), kind, endpoint=True)
    x[0, :14] = [bounds.min, bounds.max, bounds.min + 1, bounds.max - 1, *EDGES]
    x[1, :100] = RNG.integers(0, 40, 100)
    return x


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64 if x.dtype.kind == "f" else np.int64)


def once(exact: Callable[..., Any]) -> Oracle:
    """Computed in float64, which is exact enough to round once, or in int64, which wraps."""
    return lambda dtype, *x: np.asarray(exact(*map(wide, x))).astype(NUMPY_TYPES[dtype])


def saturated(exact: Callable[..., Any]) -> Oracle:
    def oracle(dtype: str, *x: np.ndarray) -> np.ndarray:
        bounds = np.iinfo(NUMPY_TYPES[dtype])
        return np.clip(exact(*map(wide, x)), bounds.min, bounds.max).astype(NUMPY_TYPES[dtype])

    return oracle


def chosen(better: Callable[..., Any]) -> Oracle:
    """a or b, by comparison; NaN if either is."""

    def oracle(dtype: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.where(better(wide(a), wide(b)), a, b)
        if dtype in FLOATS:
            out[(a != a) | (b != b)] = np.nan
        return out

    return oracle


def by_sign(negative: Callable[..., Any]) -> Oracle:
    """Sign bits changed as a bit pattern; integers in int64."""

    def oracle(dtype: str, a: np.ndarray) -> np.ndarray:
        if a.dtype.kind != "f":
            return np.asarray(negative(wide(a))).astype(a.dtype)
        bits, sign = a.view(f"u{a.dtype.itemsize}"), 1 << (8 * a.dtype.itemsize - 1)
        changed = bits ^ sign if negative(1) < 0 else bits & ~np.array(sign, bits.dtype)
        return changed.astype(bits.dtype).view(a.dtype)

    return oracle


def compared(better: Callable[..., Any]) -> Oracle:
    return lambda dtype, a, b: np.asarray(better(wide(a), wide(b))).astype(np.uint8)


def bitwise(exact: Callable[..., int]) -> Oracle:
    """Python integers, one lane at a time, of `bits` bits."""

    def oracle(dtype: str, *x: np.ndarray) -> np.ndarray:
        kind = NUMPY_TYPES[dtype]
        bits = 8 * kind.itemsize
        out = [exact(bits, *map(int, lanes)) for lanes in zip(*(o.ravel() for o in x), strict=True)]
        word = np.array([value & ((1 << bits) - 1) for value in out], f"u{kind.itemsize}")
        return word.view(kind).reshape(x[0].shape)

    return oracle


def count(bits: int, places: int) -> int:
    return min(places & ((1 << bits) - 1), 64)


def converted(made: str) -> Oracle:
    """Nearest, ties to even: `round` of Python for integers, float64 for floats."""

    def oracle(dtype: str, a: np.ndarray) -> np.ndarray:
        kind = NUMPY_TYPES[made]
        if made in FLOATS:
            return wide(a).astype(kind)
        bounds = np.iinfo(kind)
        whole = [0 if x != x else x if abs(x) == np.inf else round(x) for x in a.ravel().tolist()]
        return np.array([max(bounds.min, min(bounds.max, x)) for x in whole], kind).reshape(a.shape)

    return oracle


def to_fp8(made: str) -> Oracle:
    """The nearest finite number of the naive chip's table; of two, the one with an even code."""
    table = decoded(np.arange(128, dtype=np.uint8), FORMATS.index(made))
    codes = np.flatnonzero(np.isfinite(table))

    def oracle(dtype: str, a: np.ndarray) -> np.ndarray:
        size = np.minimum(np.abs(wide(a)), table[codes[-1]])
        gap = np.abs(size[..., None] - table[codes])
        rank = np.where(gap == gap.min(axis=-1, keepdims=True), codes % 2, 2)
        out = codes[rank.argmin(axis=-1)] | np.signbit(a) << 7
        nan = {"e4m3": 0x7F, "e5m2": 0x7E}[made]
        return np.where(np.isnan(a), nan, out).astype(np.uint8)

    return oracle


def from_fp8(given: str) -> Oracle:
    return lambda dtype, a: decoded(a, FORMATS.index(given)).astype(np.float32)


CLOSE: dict[str, tuple[Callable[..., Any], float]] = {
    "vxm.exp": (np.exp, 0.501),
    "vxm.tanh": (np.tanh, 0.502),
    "vxm.rsqrt": (lambda x: 1 / np.sqrt(x), 0.501),
    "vxm.recip": (lambda x: 1 / x, 0.501),
    "vxm.sqrt": (np.sqrt, 0.5),
}
POINTWISE: dict[str, Oracle] = {
    "vxm.add": once(lambda a, b: a + b),
    "vxm.sub": once(lambda a, b: a - b),
    "vxm.mul": once(lambda a, b: a * b),
    "vxm.add_sat": saturated(lambda a, b: a + b),
    "vxm.sub_sat": saturated(lambda a, b: a - b),
    "vxm.mul_sat": saturated(lambda a, b: a * b),
    "vxm.max": chosen(lambda a, b: a > b),
    "vxm.min": chosen(lambda a, b: a < b),
    "vxm.copy": lambda dtype, a: a.copy(),
    "vxm.neg": by_sign(lambda a: -a),
    "vxm.abs": by_sign(abs),
    "vxm.relu": once(lambda a: np.where(a < 0, 0, a)),
    "vxm.eq": compared(lambda a, b: a == b),
    "vxm.ne": compared(lambda a, b: a != b),
    "vxm.lt": compared(lambda a, b: a < b),
    "vxm.le": compared(lambda a, b: a <= b),
    "vxm.gt": compared(lambda a, b: a > b),
    "vxm.ge": compared(lambda a, b: a >= b),
    "vxm.select": lambda dtype, mask, a, b: np.where(mask == 0, b, a),
    "vxm.and": bitwise(lambda bits, a, b: a & b),
    "vxm.or": bitwise(lambda bits, a, b: a | b),
    "vxm.xor": bitwise(lambda bits, a, b: a ^ b),
    "vxm.not": bitwise(lambda bits, a: ~a),
    "vxm.shift_left": bitwise(lambda bits, a, b: a << count(bits, b)),
    "vxm.shift_right": bitwise(lambda bits, a, b: a >> count(bits, b)),
    "vxm.shift_right_logical": bitwise(
        lambda bits, a, b: (a & ((1 << bits) - 1)) >> count(bits, b)
    ),
    **{f"vxm.to_{made}": converted(made) for made in ("i8", "i16", "i32", "u8", "u16", *FLOATS)},
    **{f"vxm.to_{made}": to_fp8(made) for made in FP8},
    **{f"vxm.from_{given}": from_fp8(given) for given in FP8},
    **{name: once(function) for name, (function, _) in CLOSE.items()},
}
