"""Tapes do what the steps do, to the bit; what is known of weights does not outlive them."""

from collections.abc import Iterator

import numpy as np
import pytest

from chip import jit
from chip.isa import NUMPY_TYPES
from chip.jit import set_backend
from chip.kernels.matmul import Pass, matmul
from chip.linker.node_ops import neighbours
from chip.schedule import Chain, Rows, run
from chip.spec import EAST, TINY, WEST
from chip.sram import Sram
from chip.tape import Player
from chip.tape.arena import Arena
from chip.tape.order import runs
from tests.chip.kernel_rig import KernelRig


@pytest.fixture(autouse=True)
def keep_backend() -> Iterator[None]:
    before = jit._chosen
    yield
    set_backend(before)


def product(rig: KernelRig, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Install w, run x through it twice, the second time with other weights."""
    weights = rig.columns("w", EAST, w)
    rows = rig.rows("x", (EAST, 2, 0), x, "f16")
    out = rig.room("y", (EAST, 0, 0), len(x), "f32")
    chain = Chain(rig.spec, "matmul")
    (flow,) = matmul(chain, EAST, [Pass(weights, 0, 1, 40, Rows(rows, 0, (0, 1)), len(x))])
    chain.write(flow, Rows(out))
    rig.plan.place(chain)
    rig.run()
    first = rig.read(out).copy()
    rig.put(weights, w[::-1])
    rig.chip.begin("it")
    rig.chip.run(0, {})
    rig.chip.finish()
    return np.stack([first, rig.read(out)])


def test_nodes_without_a_record_are_counted() -> None:
    rig = KernelRig()
    product(rig, np.ones((5, 320), np.float16), np.ones((320, 320), np.float16))
    linked = rig.chip.programs["it"]
    assert Player.interpreted_nodes(linked) == 0
    set_backend("numpy")
    assert Player.interpreted_nodes(linked) == sum(len(b.nodes) for s in linked.segments for b in s)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_products_of_tape_and_steps_are_equal_and_follow_writes(scale: float) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((5, 320)) * scale).astype(np.float16)
    w = rng.standard_normal((320, 320)).astype(np.float16)
    x[1, 7], w[11, 9], w[0] = np.inf, np.nan, np.where(np.arange(320) % 2, 1e-7, 6e4)
    found = {}
    for name in ("numpy", "auto"):
        set_backend(name)  # type: ignore[arg-type]
        found[name] = product(KernelRig(), x, w)
    assert found["numpy"].tobytes() == found["auto"].tobytes()
    assert not np.array_equal(found["auto"][0], found["auto"][1])


@pytest.mark.parametrize("odd", [False, True])
def test_rows_of_few_lanes_meet_the_same_weights_in_both(odd: bool) -> None:
    rng = np.random.default_rng(4)
    x = np.zeros((9, 320), np.float16)
    for row, lanes in enumerate(([5], [319], [], range(64, 128), [40, 41], range(200, 320), [7])):
        x[row, lanes] = rng.standard_normal(len(lanes))
    x[4, 300], x[7] = -0.0, -0.0
    x[8, 100] = 6e-8
    w = rng.standard_normal((320, 320)).astype(np.float16)
    w[3, 250:], w[:, 7], w[12, 5] = 0, -0.0, 6e-8
    if odd:
        w[2, 6], w[9, 100], w[200, 250] = np.inf, np.nan, -np.inf
    found = {}
    for name in ("numpy", "auto"):
        set_backend(name)  # type: ignore[arg-type]
        found[name] = product(KernelRig(), x, w)
    assert found["numpy"].tobytes() == found["auto"].tobytes()
    assert np.array_equal(found["auto"][0][0], x[0, 5] * w[:, 5].astype(np.float32)) or odd


@pytest.mark.parametrize("odd", [False, True])
def test_rows_of_one_lane_each_are_multiplied_as_any_others(odd: bool) -> None:
    rng = np.random.default_rng(5)
    lanes = np.r_[3:40, 297:320, 60:77]
    x = np.zeros((len(lanes), 320), np.float16)
    x[np.arange(len(lanes)), lanes] = rng.standard_normal(len(lanes))
    x[20], x[40, 7], x[70, lanes[70]] = 0, 1, np.inf
    w = rng.standard_normal((320, 320)).astype(np.float16)
    w[7, 10], w[:, 300] = 6e-8, -0.0
    if odd:
        w[2, 6], w[100, 99] = np.inf, np.nan
    found = {}
    for name in ("numpy", "auto"):
        set_backend(name)  # type: ignore[arg-type]
        found[name] = product(KernelRig(), x, w)
    assert found["numpy"].tobytes() == found["auto"].tobytes()


def test_any_write_forgets_what_is_kept_of_its_words() -> None:
    sram, words, made, places = Sram(TINY), np.arange(3, 6), [], neighbours(12)
    keep = lambda: sram.kept("key", places, words, lambda: made.append(1))  # noqa: E731
    apart = ((8, 0), (24, 100), (60, 3), (84, 0))
    sram.statistics(places)["lanes"] = sram.statistics(apart)["lanes"] = 7
    keep()
    keep()
    sram.write(27, np.array([6]), np.zeros((1, 320), np.uint8))
    keep()
    assert made == [1]
    sram.write(27, np.array([5]), np.zeros((1, 320), np.uint8))
    keep()
    assert made == [1, 1]
    known = sram.statistics(places)["lanes"]
    assert not known[5:7].any()
    assert known[[4, 7]].tolist() == [7, 7]
    sram.store(60, slice(2, 6), np.zeros((4, 320), np.float32))
    sram.write(25, np.array([99, 120]), np.zeros((2, 320), np.uint8))
    assert np.flatnonzero(sram.statistics(apart)["lanes"] == 0).tolist() == [0, 1, 2, 20]


def test_slots_in_use_never_overlap() -> None:
    rng, arena, used = np.random.default_rng(1), Arena(), list[tuple[int, int]]()
    for _ in range(300):
        if used and rng.random() < 0.5:
            arena.give(*used.pop(int(rng.integers(len(used)))))
        else:
            size = int(rng.integers(1, 1000))
            offset = arena.take(size)
            assert all(offset + size <= a or a + b <= offset for a, b in used)
            assert offset + size <= arena.size
            used.append((offset, size))


def test_independent_products_make_one_run() -> None:
    before = [(), (0,), (0,), (1,), (2, 3)]
    assert runs([0, 1, 2, 3, 4], before, {1, 2, 4}.__contains__) == [[0], [1, 2], [3], [4]]


ODD = [0.0, -0.0, np.inf, -np.inf, 1.5, -6e4, 1e-7]
NAN_BITS = {"f16": (0x7E01, 0xFE00, 0x7C01), "f32": (0x7FC00001, 0xFFC00000, 0x7F800001)}


def odd_pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows [10, 10] in which every odd number, and NaNs of every kind, meet each other."""
    bits = np.uint16 if dtype == "f16" else np.uint32
    nans = np.array(NAN_BITS[dtype], bits).view(NUMPY_TYPES[dtype])
    values = np.concatenate([np.array(ODD, NUMPY_TYPES[dtype]), nans])
    a, b = np.meshgrid(values, values)
    return a, b


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "max", "min"])
def test_nans_and_zeros_have_the_same_bits_in_both_and_on_any_host(op: str, dtype: str) -> None:
    found = {}
    for name in ("numpy", "auto"):
        set_backend(name)  # type: ignore[arg-type]
        rig = KernelRig()
        a, b = odd_pairs(dtype)
        x = rig.rows("x", (EAST, 0, 0), a, dtype)
        y = rig.rows("y", (WEST, 1, 0), b, dtype)
        out = rig.room("out", (EAST, 1, 0), len(a), dtype)
        chain = Chain(rig.spec, op)
        chain.write(chain.vxm(op, Rows(x), Rows(y), loops=run(len(a))), Rows(out))
        rig.plan.place(chain)
        rig.run()
        found[name] = rig.read(out)
    got = found["auto"][:, : a.shape[1]]
    assert found["numpy"].tobytes() == found["auto"].tobytes()
    unordered = got[np.isnan(got)]
    assert len(unordered) and set(unordered.tobytes()[:: unordered.itemsize]) <= {0x00}
    assert not np.signbit(unordered).any()
    if op in ("max", "min"):
        zeros = (a == 0) & (b == 0)
        negative = np.signbit(a) & np.signbit(b) if op == "max" else np.signbit(a) | np.signbit(b)
        assert np.array_equal(np.signbit(got[zeros]), negative[zeros])
