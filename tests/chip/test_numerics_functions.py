"""VXM functions and conversions against independent oracles."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chip.numerics import (
    divide,
    exp,
    reciprocal,
    rsqrt,
    tanh,
    to_fp16,
    to_fp32,
    to_int,
)
from chip.numerics.elementwise import exp64

ALL_FP16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = ALL_FP16[np.isfinite(ALL_FP16)].astype(np.float32)
NAN_BITS, NAN16_BITS = 0x7FC00000, 0x7E00
rng = np.random.default_rng(5)
RANDOM = rng.integers(0, 1 << 32, 50_000, dtype=np.uint32).view(np.float32)
MODERATE = (rng.standard_normal(50_000) * 30).astype(np.float32)
EDGES = np.float32(
    [
        *(0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan),
        *(88.72283, 88.72284, -87.33655, -103.97207, -103.97208, -104.5, 0.125, -0.125, 20.0),
    ]
)
INPUTS = np.concatenate([FINITE, RANDOM, MODERATE, EDGES])


def ulps_off(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest error in units of the last fp32 place; infinities and NaN must agree."""
    nearest = want.astype(np.float32)
    plain = np.isfinite(nearest) & np.isfinite(got)
    np.testing.assert_array_equal(got[~plain], nearest[~plain])
    assert set(got[np.isnan(got)].view(np.uint32)) <= {NAN_BITS}
    unit = np.spacing(np.abs(nearest[plain])).astype(np.float64)
    return float(np.max(np.abs(got[plain].astype(np.float64) - want[plain]) / unit))


@pytest.mark.parametrize(
    ("function", "oracle", "bound"),
    [
        (exp, np.exp, 0.501),
        (tanh, np.tanh, 0.502),
        (rsqrt, lambda x: 1 / np.sqrt(x), 0.501),
        (reciprocal, lambda x: 1 / x, 0.5 + 1e-9),
    ],
    ids=["exp", "tanh", "rsqrt", "reciprocal"],
)
def test_functions_keep_their_stated_error(function, oracle, bound: float) -> None:
    with np.errstate(all="ignore"):
        want = oracle(INPUTS.astype(np.float64))
        got = function(INPUTS.copy())
        assert got.dtype == np.float32
        assert ulps_off(got, want) <= bound
        assert np.array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(want[~np.isnan(got)]))


def test_exp_in_float64_is_as_good_as_its_docstring_says() -> None:
    numbers = np.concatenate([rng.uniform(-104, 89, 300), [0.0, 1e-9, -(2.0**-24)]])
    with localcontext(prec=40):
        for x, y in zip(numbers, exp64(numbers), strict=True):
            exact = Decimal(float(x)).exp()
            assert abs(Decimal(float(y)) - exact) / exact < Decimal(2) ** -34


def test_functions_at_the_edges() -> None:
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    assert exp(np.float32([-inf, inf, -0.0, 89, -104])).tolist() == [0, inf, 1, inf, 0]
    assert exp(np.float32([-103.9])) == np.float32(1e-45)
    assert tanh(np.float32([-inf, inf, 1e-45])).tolist() == [-1, 1, float(np.float32(1e-45))]
    assert rsqrt(np.float32([inf, 0.0, -0.0, 4])).tolist() == [0, inf, -inf, 0.5]
    assert reciprocal(np.float32([-inf, 0.0, -0.0])).tolist() == [0, inf, -inf]
    invalid = [exp(np.float32([nan])), rsqrt(np.float32([-1])), divide(-nan, np.float32([1]))]
    assert all(bad.view(np.uint32) == NAN_BITS for bad in invalid)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3, 4)])
def test_functions_take_any_shape(shape: tuple[int, ...]) -> None:
    x = np.full(shape, -1, np.float32)
    for function in (exp, tanh, rsqrt, reciprocal):
        assert function(x).shape == shape
    assert exp(np.swapaxes(np.ones((2, 3), np.float32), 0, 1)).shape == (3, 2)
    assert to_fp16(x).shape == to_fp32(x).shape == to_int(x, np.int8).shape == shape


def test_division_is_that_of_ieee() -> None:
    a, b = RANDOM[: len(RANDOM) // 2], RANDOM[len(RANDOM) // 2 :]
    with np.errstate(all="ignore"):
        assert ulps_off(divide(a, b), a.astype(np.float64) / b.astype(np.float64)) <= 0.5 + 1e-6


def test_fp16_widens_and_comes_back_for_all_bits() -> None:
    wide = to_fp32(ALL_FP16)
    back = to_fp16(wide).view(np.uint16)
    ordered = ~np.isnan(ALL_FP16)
    assert np.array_equal(back[ordered], ALL_FP16.view(np.uint16)[ordered])
    assert set(back[~ordered]) == {NAN16_BITS}
    assert set(wide[~ordered].view(np.uint32)) == {NAN_BITS}


def test_fp16_rounds_ties_to_even_and_overflows_or_saturates() -> None:
    x = np.float32([2049, 2051, 65519.996, 65520, -1e9, np.inf, 2.0**-25, 2.0**-25 * 1.0001, -0.0])
    plain = [2048, 2052, 65504, np.inf, -np.inf, np.inf, 0, 2.0**-24, 0]
    assert to_fp16(x).tolist() == plain
    assert np.signbit(to_fp16(x)[-1])
    assert to_fp16(x, saturate=True).tolist() == [*plain[:3], 65504, -65504, 65504, *plain[6:]]
    nan = np.uint32([0xFFC12345, 0x7F800001]).view(np.float32)
    assert set(to_fp16(nan, saturate=True).view(np.uint16)) == {NAN16_BITS}


def test_int32_reaches_fp16_by_one_rounding() -> None:
    """4098 * 2**n + 1 is above a tie that fp32 would first round down to."""
    x = np.int32([2049 * 2**4 + 0, 65504, 65519, 65520, -(2**31)])
    assert to_fp16(x).tolist() == [2048 * 2**4, 65504, 65504, np.inf, -np.inf]


@given(st.integers(-(2**31), 2**31 - 1))
def test_int32_to_fp32_is_rounded_to_nearest_even(value: int) -> None:
    got = to_fp32(np.int32([value]))[0]
    below, above = np.nextafter(got, -np.float32(np.inf)), np.nextafter(got, np.float32(np.inf))
    error = abs(int(got) - value)
    assert error <= abs(int(below) - value)
    assert error <= abs(int(above) - value)
    if error and error in (abs(int(below) - value), abs(int(above) - value)):
        assert not got.view(np.uint32) & 1


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_floats_round_to_even_integers_and_saturate(dtype) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.float32([0.5, 1.5, -2.5, 126.49999, np.nan, np.inf, -np.inf, 3e9, -3e9, -0.2])
    assert to_int(x, dtype).tolist() == [0, 2, -2, 126, 0, high, low, high, low, 0]
    assert to_int(x, dtype).dtype == dtype
    halves = np.float16([0.5, 65504, -65504, np.nan, np.inf])
    assert to_int(halves, dtype).tolist() == [0, min(65504, high), max(-65504, low), 0, high]


@given(st.floats(width=32, allow_nan=False))
def test_any_float_becomes_the_nearest_int32(value: float) -> None:
    want = round(min(max(value, -(2.0**31)), 2.0**31 - 1)) if math.isfinite(value) else 0
    if math.isfinite(value):
        assert to_int(np.float32([value]), np.int32)[0] == want


@pytest.mark.parametrize("narrow", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("wide", [np.int8, np.int16, np.int32])
def test_integers_narrow_with_saturation(wide, narrow) -> None:
    info = np.iinfo(wide)
    x = np.array([info.min, -129, -1, 0, 1, 127, 128, info.max]).clip(info.min, info.max)
    got = to_int(x.astype(wide), narrow)
    assert got.dtype == narrow
    assert np.array_equal(got, x.clip(np.iinfo(narrow).min, np.iinfo(narrow).max))
