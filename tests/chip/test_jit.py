"""Every compiled kernel equals the definition in NumPy, to the bit, over adversarial inputs."""

import ast
import ctypes
import importlib
import inspect
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import chip.jit
from chip.isa import DTYPES, NUMPY_TYPES, OPS
from chip.jit import cache
from chip.jit.layout import TURN
from chip.jit.rows import can_do, copy_kernel, lane_kernel, row_kernel, run_kernel, turn_kernel
from chip.jit.words import DIAGONAL_ROWS
from chip.numerics import Weights8, Weights16
from chip.numerics.exact import exact_dots
from chip.tape.records import lane_runs, turned_by
from tests.chip.jit_rig import LANES, Products, function_at, kernel_called
from tests.chip.oracles import sample
from tests.chip.test_numerics import bits, cancelling

RNG = np.random.default_rng(21)
TYPES = ("f16", "f32", "i32", "u8")  # each is a kernel to compile: a signed and an unsigned one
CASES = [(op.name, t) for op in OPS.values() for t in TYPES if can_do(op, t)]
INF, NAN = np.inf, np.nan


def assert_equal(x: np.ndarray, w: np.ndarray, order: np.ndarray | None = None) -> None:
    """Twice: the second time with what is kept of the words."""
    definition = (Weights8 if w.dtype == np.int8 else Weights16)(w)
    want = definition.dot(x)
    if order is not None:
        want = want[np.arange(len(order)) % len(x)]
    products = Products(w)
    for _ in range(2):
        got = products.dot(x, order)
        assert got.dtype == want.dtype
        assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


# --- products -------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [1, 2, 3, 17])
@pytest.mark.parametrize("columns", [8, 37, 320])
@pytest.mark.parametrize("lanes", [1, 40, 320])
def test_fp16_products_of_all_magnitudes(rows: int, columns: int, lanes: int) -> None:
    assert_equal(bits(rows, lanes, seed=rows), bits(columns, lanes, seed=columns))


def halfway() -> tuple[np.ndarray, np.ndarray]:
    """x and w of sums that lie halfway between fp32 numbers but for what float64 loses."""
    big, tiny = np.float16(2.0**15), np.float16(2.0**-24)
    w, x = np.zeros((4, LANES), np.float16), np.zeros((2, LANES), np.float16)
    w[:, 0], w[:, 100], w[1:3, 300] = big, 1, [tiny, -tiny]
    x[0, [0, 100, 300]], x[1, 300] = [big, 64, tiny], 1
    return x, w


@pytest.mark.parametrize("seed", range(3))
def test_fp16_products_that_cancel(seed: int) -> None:
    assert_equal(np.ones((3, LANES), np.float16), cancelling(24, seed))


def test_fp16_products_halfway_between_fp32_numbers() -> None:
    assert_equal(*halfway())


def test_fp16_products_with_words_of_which_int8_ones_know_the_lanes() -> None:
    x, w = halfway()
    halves, octets = Products(w), Products(np.zeros((16, LANES), np.int8))
    octets.quarters, octets.statistics = halves.quarters, halves.statistics
    octets.dot(np.ones((1, LANES), np.int8))
    assert halves.dot(x).tobytes() == Weights16(w).dot(x).tobytes()


def test_fp16_products_with_infinities_and_nans() -> None:
    w = bits(16, LANES, seed=1)
    w[0, 5], w[1, 6], w[2, 5:7], w[9, 100] = INF, NAN, [INF, -INF], -INF
    x = bits(6, LANES, seed=2)
    x[1, 5], x[2, 8], x[3] = 0, INF, 0
    x[4, :] = 0
    x[4, 5] = 2
    x[5, 7] = NAN
    assert_equal(x, w)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_fp16_products_of_any_bits(data: st.DataObject) -> None:
    any_bits = st.integers(0, 0xFFFF) | st.sampled_from([0, 0x8000, 1, 0x7C00, 0xFC00, 0x7E01])
    w = data.draw(hnp.arrays(np.uint16, (9, 33), elements=any_bits))
    x = data.draw(hnp.arrays(np.uint16, (data.draw(st.integers(1, 4)), 33), elements=any_bits))
    assert_equal(x.view(np.float16), w.view(np.float16))


def test_rows_of_one_lane_each_in_any_order() -> None:
    x = np.zeros((3 * DIAGONAL_ROWS, LANES), np.float16)
    x[np.arange(3 * DIAGONAL_ROWS), np.arange(3 * DIAGONAL_ROWS) + 60] = RNG.standard_normal(
        3 * DIAGONAL_ROWS
    )
    x[DIAGONAL_ROWS + 3] = bits(1, LANES, seed=3)
    w = bits(24, LANES, seed=4)
    assert_equal(x, w)
    assert_equal(x, w, np.arange(6 * DIAGONAL_ROWS)[::-1].copy())
    w[3, 70] = INF
    assert_equal(x, w, RNG.permutation(6 * DIAGONAL_ROWS))


@pytest.mark.parametrize("lanes", [1, 100, 320])
@pytest.mark.parametrize("rows", [1, 5])
def test_int8_products(lanes: int, rows: int) -> None:
    w = RNG.integers(-128, 128, (50, lanes), dtype=np.int8)
    x = RNG.integers(-128, 128, (rows, lanes), dtype=np.int8)
    w[0], x[0] = -128, -128
    assert_equal(x, w)


def test_kernels_are_kept_for_every_file_that_they_are_made_of() -> None:
    made_of = {inspect.getfile(op.row) for op in OPS.values() if op.row is not None}
    for path in Path(chip.jit.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chip."):
                module = importlib.import_module(node.module or "")
                for value in (getattr(module, alias.name) for alias in node.names):
                    owner = value if inspect.ismodule(value) else module
                    if not isinstance(value, type):  # classes are for annotations
                        made_of.add(inspect.getfile(owner))
    ours = {name for name in made_of if Path(name).is_relative_to(Path(chip.__file__).parent)}
    assert ours <= {str(path) for path in cache.SOURCES}


def test_kernels_of_sources_that_nobody_has_used_for_days_are_removed(tmp_path) -> None:
    now, old = time.time(), time.time() - cache.KEPT_S - 1
    mine = f"rows.copy_{cache._FINGERPRINT}-9.py311.nbi"
    for name, used in {
        mine: old, "rows.copy_00000001-9.py311.nbi": old, "rows.copy_00000001-9.py311.1.nbc": old,
        "rows.copy_00000002-9.py311.nbi": old, "used_00000002-": now, "lock": old,
    }.items():  # fmt: skip
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (used, used))
    cache._drop_unused(tmp_path)
    left = {"rows.copy_00000002-9.py311.nbi", "used_00000002-", "lock", mine}
    assert {path.name for path in tmp_path.iterdir()} == left


@given(data=st.data())
@settings(deadline=None)
def test_exact_sums(data: st.DataObject) -> None:
    x, w = (data.draw(hnp.arrays(np.uint16, 40, elements=st.integers(0, 0xFFFF))) for _ in "xw")
    spaced = np.repeat(w, 2)
    got = np.float32(kernel_called("exact_dot", 3, ctypes.c_float)(x, spaced, 40))
    assert got.tobytes() == exact_dots(x[None], w[None]).tobytes()


# --- rows -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "element"), CASES)
def test_row_kernels_of_instructions(name: str, element: str) -> None:
    op = OPS[name]
    made = op.element(op.driven, (DTYPES.index(element),) + (0,) * len(op.operands))
    kernel = function_at(row_kernel(op, element, made), 4)
    a, b = (RNG.permuted(sample(element), axis=1) for _ in "ab")
    b[1], b[2, 100:] = a[1], 0
    out = np.empty(a.shape, NUMPY_TYPES[made])
    for n in range(len(a)):
        kernel(out[n], a[n], b[n], a.shape[1])
    with np.errstate(all="ignore"):
        want = op.function(*(a, b)[: len(op.sources)])
    assert out.dtype == want.dtype
    assert out.tobytes() == np.ascontiguousarray(want).tobytes()


@pytest.mark.parametrize("to", [1, 2, 4])
@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_copies_of_every_distance(size: int, step: int, to: int) -> None:
    kind, copy = np.dtype(f"u{size}"), function_at(copy_kernel(size, step, to), 4)
    for at in range(to if size * to == 4 else 1):
        source = RNG.integers(0, 256, 64 * size * step, dtype=np.uint8).view(kind)
        out = np.full(64 * to, 9, kind)
        want = out.copy()
        want[at::to] = source[::step]
        copy(out[at:], source, 0, 64)
        assert np.array_equal(out, want)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_lane_maps(size: int) -> None:
    source = RNG.integers(0, 256, LANES * size, dtype=np.uint8).view(f"u{size}")
    lanes, out = RNG.integers(-1, LANES, LANES), np.full_like(source, 9)
    function_at(lane_kernel(size), 4)(out, source, lanes, LANES)
    assert np.array_equal(out, np.where(lanes < 0, 0, source[lanes]))
    turned = np.roll(np.arange(LANES), 100)
    runs = np.concatenate([[len(lane_runs(turned))], size * lane_runs(turned).ravel()])
    function_at(run_kernel(), 4)(out, source, runs, LANES)
    assert np.array_equal(out, source[turned])
    assert turned_by(turned) == turned_by(lanes) == -1
    for by in range(TURN):
        inside = np.roll(np.arange(LANES).reshape(-1, TURN), -by, axis=1).ravel()
        assert turned_by(inside) == by
        function_at(turn_kernel(size), 4)(out, source, np.array([by]), LANES)
        assert np.array_equal(out, source[inside])
