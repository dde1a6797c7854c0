"""Array passes: exact sums, by the definition."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chip.numerics import Weights8, Weights16
from chip.numerics.exact import exact_dots
from tests.processors import CORES, lacks

LANES = 320
NAN_BITS = 0x7FC00000


def rounded(value: Fraction) -> np.float32:
    """Round to fp32, ties to even, by the definition."""
    if value == 0:
        return np.float32(0)
    exponent = math.floor(math.log2(abs(value.numerator)) - math.log2(value.denominator))
    while abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - 23)
    return np.float32(round(value / unit) * float(unit))  # round() takes ties to even


def oracle(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Sum in fractions; finite inputs only."""
    xs, ws = ([[Fraction(float(v)) for v in row] for row in a] for a in (x, w))
    return np.array(
        [[rounded(sum((a * b for a, b in zip(r, c, strict=True)), Fraction(0))) for c in ws]
         for r in xs]
    )  # fmt: skip


def assert_gives(x: np.ndarray, w: np.ndarray, expected: np.ndarray) -> None:
    got = Weights16(w).dot(x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def bits(*shape: int, seed: int) -> np.ndarray:
    """Return finite fp16 numbers uniform over their bit patterns: all magnitudes, subnormals."""
    drawn = np.random.default_rng(seed).integers(0, 1 << 16, shape).astype(np.uint16)
    drawn[(drawn & 0x7C00) == 0x7C00] ^= 0x4000
    return drawn.view(np.float16)


def cancelling(rows: int, seed: int) -> np.ndarray:
    """Return rows whose second half is the negated first, shuffled alike, but for few lanes."""
    rng = np.random.default_rng(seed)
    half = bits(rows, LANES // 2, seed=seed + 1)
    both = np.concatenate([half, -half], axis=1)
    both[:, :3] = bits(rows, 3, seed=seed + 2) * np.float16(2.0**-9)
    return both[:, rng.permutation(LANES)]


def test_ten_thousand_random_dots_equal_exact_ones() -> None:
    for seed, (rows, columns) in enumerate([(1, 5000), (50, 100)]):
        x, w = bits(rows, 24, seed=seed), bits(columns, 24, seed=seed + 9)
        assert_gives(x, w, oracle(x, w))


def test_realistic_dots_equal_exact_ones() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, LANES)).astype(np.float16)
    w = (rng.standard_normal((50, LANES)) * 0.05).astype(np.float16)
    assert_gives(x, w, oracle(x, w))


@pytest.mark.parametrize("seed", range(3))
def test_cancelling_sums_are_exact(seed: int) -> None:
    x = bits(2, LANES, seed=seed)
    x[:, LANES // 2 :] = x[:, : LANES // 2]
    ones = np.ones((1, LANES), np.float16)
    w = np.concatenate([bits(10, LANES // 2, seed=seed + 50)] * 2, axis=1)
    w[:, LANES // 2 :] *= -1
    w[:, 7] = bits(10, seed=seed + 60)
    assert_gives(x, w, oracle(x, w))
    w = cancelling(20, seed)
    assert_gives(ones, w, oracle(ones, w))


def test_every_doubtful_sum_is_settled() -> None:
    """2**30 + 2**-48 is no float64 number, and decides which way 2**30 + 2**6 rounds."""
    big, tiny = np.float16(2.0**15), np.float16(2.0**-24)
    w = np.zeros((4, LANES), np.float16)
    w[:, 0], w[:, 100] = big, 1  # 2**30 + 2**6, halfway between two fp32 numbers
    w[1:, 300] = [tiny, -tiny, 0]
    w[3, 100] = 3  # halfway, the even neighbour is above
    x = np.zeros((1, LANES), np.float16)
    x[0, [0, 100, 300]] = big, 64, tiny
    expected = np.float32([[2.0**30, 2.0**30 + 128, 2.0**30, 2.0**30 + 256]])
    assert np.array_equal(oracle(x, w), expected)
    assert_gives(x, w, expected)


def test_exact_zero_is_positive_and_smallest_product_survives() -> None:
    tiny = np.float16(2.0**-24)
    w = np.float16([[-0.0, -0.0], [1, -1], [tiny, 0], [-tiny, 0]])
    x = np.float16([[1, 1], [0, 0], [tiny, tiny]])
    expected = np.float32([[0, 0, tiny, -tiny], [0, 0, 0, 0], [0, 0, 2.0**-48, -(2.0**-48)]])
    assert_gives(x, w, expected)


def test_largest_sum_does_not_overflow() -> None:
    top = np.full((1, LANES), 65504, np.float16)
    assert_gives(top, -top, np.float32([[-320 * 65504.0**2]]))


def test_infinities_and_nan_follow_ieee_and_nan_is_canonical() -> None:
    inf, nan = np.inf, np.nan
    w = np.float16([[inf, 1, 0], [-inf, inf, 0], [nan, 0, 0], [0, 5, 0], [inf, inf, 0]])
    x = np.float16([[1, 1, 1], [0, 1, 1], [-1, 1, 1], [1, 2, inf]])
    got = Weights16(w).dot(x)
    expected = np.float32(
        [
            [inf, nan, nan, 5, inf],
            [nan, nan, nan, 5, nan],
            [-inf, inf, nan, 5, nan],
            [nan, nan, nan, nan, nan],
        ]
    )
    np.testing.assert_array_equal(got, expected)
    assert set(got[np.isnan(got)].view(np.uint32)) == {NAN_BITS}
    assert_gives(x, w, got)


@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
def test_any_finite_dot_is_exact(data: st.DataObject) -> None:
    lanes = data.draw(st.integers(1, 40))
    numbers = st.floats(width=16, allow_nan=False, allow_infinity=False) | st.sampled_from(
        [65504.0, -65504.0, 2.0**-24, -(2.0**-24), 2048.0, 1.0]
    )
    x = data.draw(hnp.arrays(np.float16, (data.draw(st.integers(1, 3)), lanes), elements=numbers))
    w = data.draw(hnp.arrays(np.float16, (data.draw(st.integers(1, 9)), lanes), elements=numbers))
    assert_gives(x, w, oracle(x, w))


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_bits_give_what_exact_sums_do(data: st.DataObject) -> None:
    """Infinities, and NaN of any payload."""
    columns, batch = (data.draw(st.integers(1, top)) for top in (11, 3))
    any_bits = st.integers(0, 0xFFFF)
    w = data.draw(hnp.arrays(np.uint16, (columns, 17), elements=any_bits))
    x = data.draw(hnp.arrays(np.uint16, (batch, 17), elements=any_bits))
    pairs = [exact_dots(np.broadcast_to(row, w.shape), w) for row in x]
    assert_gives(x, w, np.stack(pairs))


@pytest.mark.parametrize("lanes", [16, 320])
def test_weights_may_lie_in_any_order_in_memory(lanes: int) -> None:
    """A find of bench.py chaos: columns assembled in Fortran order, of fewer lanes than a grain."""
    x, w = bits(2, lanes, seed=5), np.asfortranarray(bits(24, lanes, seed=6))
    assert_gives(x, w, oracle(x, w))
    x8, w8 = (a.astype(np.float32).clip(-100, 100).astype(np.int8) for a in (x, w))
    got = Weights8(np.asfortranarray(w8)).dot(np.asfortranarray(x8))
    assert np.array_equal(got, x8.astype(np.int64) @ w8.astype(np.int64).T)


@pytest.mark.parametrize("shape", [(1, 1), (1, 320), (2000, 320), (37, 100)])
def test_int8_dots_equal_int64_ones(shape: tuple[int, int]) -> None:
    _, lanes = shape
    rng = np.random.default_rng(4)
    w = rng.integers(-128, 128, shape, dtype=np.int8)
    x = rng.integers(-128, 128, (5, lanes), dtype=np.int8)
    assert np.array_equal(Weights8(w).dot(x), x.astype(np.int64) @ w.astype(np.int64).T)
    extreme = np.full((1, lanes), -128, np.int8)
    assert Weights8(extreme).dot(extreme).item() == lanes << 14


@pytest.mark.parametrize("kind", [Weights8, Weights16])
def test_bad_shapes_and_types_are_refused(kind) -> None:
    dtype = np.int8 if kind is Weights8 else np.float16
    weights = kind(np.ones((2, 4), dtype))
    with pytest.raises(ValueError, match=r"\[M, 4 lanes\]"):
        weights.dot(np.ones((1, 5), dtype))
    with pytest.raises(ValueError, match="at most 512 lanes"):
        kind(np.ones((2, 513), dtype))
    with pytest.raises(TypeError):
        weights.dot(np.ones((1, 4), np.float32))


PROBE = """
import hashlib, numpy as np
from chip.numerics import Weights16
rng = np.random.default_rng(7)
w = rng.standard_normal((1500, 320)).astype(np.float16)
x = (rng.standard_normal((2, 320)) * 300).astype(np.float16)
print(hashlib.sha256(Weights16(w).dot(x)).hexdigest())
"""


def test_threads_and_blas_kernels_do_not_change_a_bit() -> None:
    seen = set()
    for number, core in enumerate(core for core in CORES if not lacks(core)):
        threads = str(1 + number % 2)
        extra = {"OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
        run = subprocess.run(
            [sys.executable, "-c", PROBE],
            env=os.environ | extra, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seen |= set(run.stdout.split())
    assert len(seen) == 1
