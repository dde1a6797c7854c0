"""Every point-wise op equals its oracle, for all its types; the functions over all of fp16."""

import numpy as np
import pytest

from chip.errors import EmptyStream, Misaligned
from chip.isa import NUMPY_TYPES, OPS
from tests.chip.oracles import CLOSE, POINTWISE, RNG, sample
from tests.chip.programs import at, linked

CASES = [(name, dtype) for name in POINTWISE for dtype in OPS[name].dtypes or [""]]


def operands(name: str, dtype: str) -> list[np.ndarray]:
    """Random vectors for each source, in other lanes each; a mask has zeros among its bytes."""
    op = OPS[name]
    types = [op.operands[index].dtype or dtype for index in op.sources]
    found = [RNG.permuted(sample(one), axis=1) for one in types]
    if name == "vxm.select":
        found[0][RNG.random(found[0].shape) < 0.4] = 0
    return found


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_every_op_of_the_vxm_has_an_oracle():
    assert set(POINTWISE) == {name for name, op in OPS.items() if op.queue == "vxm"}


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_it_is_what_the_oracle_says(name, dtype):
    given = operands(name, dtype)
    kept = [x.copy() for x in given]
    with np.errstate(all="ignore"):
        got, wanted = OPS[name].function(*given), POINTWISE[name](dtype, *given)
    assert got.dtype == wanted.dtype
    assert got.dtype == NUMPY_TYPES[OPS[name].operands[OPS[name].driven].dtype or dtype]
    assert name in CLOSE or same(got, wanted)
    assert all(same(x, y) for x, y in zip(given, kept, strict=True))


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_fp8_comes_back_for_every_byte_and_half(name):
    there, back = (OPS[f"vxm.{way}_{name}"].function for way in ("to", "from"))
    values = np.arange(256, dtype=np.uint8).reshape(-1, 16)
    again = back(values)
    finite = np.isfinite(again)
    assert np.array_equal(there(again)[finite], values[finite])
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 256)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(there(halves), POINTWISE[f"vxm.to_{name}"]("f16", halves))


def test_fp8_conversions_are_refused_where_a_chip_has_no_fp8():
    placed = at("vxm:0", 5, "vxm.from_e4m3", 0, 8)
    with pytest.raises(Misaligned, match="chip groqchip1 has no f8, it has i8, f16"):
        linked(placed, spec="groqchip1")
    with pytest.raises(EmptyStream):
        linked(placed)


def check_ulps(name: str, x: np.ndarray) -> None:
    exact, bound = CLOSE[name]
    with np.errstate(all="ignore"):
        got, wide = OPS[name].function(x), np.asarray(exact(x.astype(np.float64)))
        wanted = wide.astype(x.dtype)
    finite = np.isfinite(wanted)
    assert got.dtype == x.dtype
    assert np.array_equal(got[~finite], wanted[~finite], equal_nan=True)
    ulp = np.spacing(np.abs(wanted[finite])).astype(np.float64)
    errors = np.abs(got[finite].astype(np.float64) - wide[finite])
    assert (errors <= bound * ulp).all(), (errors / ulp).max()


@pytest.mark.parametrize("name", CLOSE)
def test_functions_are_within_their_ulps_for_every_half(name):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 256)
    check_ulps(name, halves)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        check_ulps(name, halves.astype(np.float32))


@pytest.mark.parametrize("name", CLOSE)
def test_functions_are_within_their_ulps_for_floats(name):
    bits = RNG.integers(0, 2**32, (40, 5000), np.uint32)
    check_ulps(name, bits.view(np.float32))


def test_fp16_and_fp32_convert_for_every_half():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 256)
    with np.errstate(invalid="ignore"):
        there, wide = OPS["vxm.to_f32"].function(halves), halves.astype(np.float64)
    assert np.array_equal(there, wide, equal_nan=True)
    assert np.array_equal(OPS["vxm.to_f16"].function(there), halves, equal_nan=True)


def test_conversions_take_ties_to_even_and_saturate():
    x = np.float32([[0.5, 1.5, 2.5, -0.5, -2.5, 126.5, 127.5, 1e30, -128.5, -1e30, np.nan, np.inf]])
    assert OPS["vxm.to_i8"].function(x).tolist() == [
        [0, 2, 2, 0, -2, 126, 127, 127, -128, -128, 0, 127]
    ]
    whole = np.int32([[2**24 + 1, 2**24 + 3, 2**31 - 1, -(2**31)]])
    assert OPS["vxm.to_f32"].function(whole).tolist() == [[2**24, 2**24 + 4, 2**31, -(2**31)]]
