"""The instruction set: every op is documented, timed, survives the wire, and is what it says."""

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chip.errors import ProgramError
from chip.isa import DTYPES, NUMPY_TYPES, OPS, WIDTHS, lookup
from chip.isa.op import op
from chip.isa.sxm import ZERO
from chip.numerics import Weights16
from chip.program import Instruction
from chip.spec import GROQCHIP1, TINY
from chip.sram import Sram
from chip.wire import pack, unpack
from tests.chip.naive import product
from tests.chip.programs import at, program

RNG = np.random.default_rng(7)
FLOATS = ("f16", "f32")
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 65504.0, 6e-8, 1e-40, 3e38]


# --- the registry ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", OPS)
class TestEvery:
    def test_op_is_documented(self, name):
        assert len(OPS[name].doc) > 5
        assert OPS[name].doc.endswith(".") or OPS[name].doc.endswith(").")

    def test_op_that_drives_is_timed(self, name):
        what = OPS[name]
        drives = what.driven is not None or name == "mxm.abc"
        assert bool(what.timing) == drives
        if drives:
            assert GROQCHIP1.d_func(what.timing) >= 1

    def test_op_survives_the_wire(self, name):
        what = OPS[name]
        queue = "vxm:0" if what.queue == "any" else f"{what.queue}:0"
        arguments = tuple(range(len(what.operands)))
        held = program(at(queue, 5, name, *arguments), maps=((0,),) * 9)
        again = unpack(pack(held))
        assert again == held
        assert str(again.queues[queue][-1]).startswith(name)

    def test_op_has_operands_of_known_kinds(self, name):
        kinds = {"int", "map", "addr", "col", "slot", "f32", "dtype", "in", "out", "src", "dst"}
        for operand in OPS[name].operands:
            assert operand.kind in kinds
            assert operand.dtype in ("", *NUMPY_TYPES)
            assert not (operand.reads and operand.drives)
            typed = operand.dtype or any(o.kind == "dtype" for o in OPS[name].operands)
            assert typed or not (operand.reads or operand.drives)

    def test_op_belongs_to_its_unit(self, name):
        assert name.partition(".")[0] == OPS[name].queue.partition(".")[0] or name == "icu.nop"

    def test_op_has_an_oracle(self, name):
        assert name in VXM | SXM | set(OTHER)


def test_unknown_ops_are_errors():
    with pytest.raises(ProgramError, match=r"unknown instruction 'vxm\.think'"):
        lookup("vxm.think")


def test_an_op_is_defined_once():
    with pytest.raises(ProgramError, match="defined twice"):
        op("vxm.add", "vxm", "")(lambda: None)


def test_widths_are_those_of_the_types():
    assert all(NUMPY_TYPES[name].itemsize == WIDTHS[name] for name in DTYPES)


def test_text_shows_loops():
    shown = Instruction("mem.read", (3, 32), ((2, 9, 4), (5, 1, 1)))
    assert str(shown) == "mem.read address=3 out=32 x2@9+4 x5@1+1"


# --- VXM ------------------------------------------------------------------------------------
def sample(dtype: str) -> np.ndarray:
    """Random vectors of a type, with its special numbers among them."""
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            x = (RNG.standard_normal((4, 320)) * 10.0 ** RNG.integers(-4, 5, (4, 320))).astype(
                NUMPY_TYPES[dtype]
            )
            x[0, : len(SPECIAL)] = SPECIAL
        return x
    return RNG.integers(0, 256 ** WIDTHS[dtype], (4, 320)).astype(NUMPY_TYPES[dtype])


def once(dtype: str, exact: Callable[..., Any], *operands: np.ndarray) -> np.ndarray:
    """A function computed in float64 (exact for one +, -, * of fp32) or integers, rounded once."""
    wide = [o.astype(np.float64 if dtype in FLOATS else np.int64) for o in operands]
    with np.errstate(all="ignore"):
        return np.asarray(exact(*wide)).astype(NUMPY_TYPES[dtype])


def larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a > b, a, b))


def smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a < b, a, b))


def picked(choose: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Apply to floats as they are; integers have no NaN."""
    return lambda a, b: choose(a, b) if a.dtype.kind == "f" else choose(a, b).astype(np.int64)


POINTWISE = {
    "vxm.add": lambda a, b: a + b,
    "vxm.sub": lambda a, b: a - b,
    "vxm.mul": lambda a, b: a * b,
    "vxm.max": picked(larger),
    "vxm.min": picked(smaller),
    "vxm.copy": lambda a: a,
}
CLOSE = {
    "vxm.exp": np.exp,
    "vxm.rsqrt": lambda x: 1 / np.sqrt(x),
    "vxm.recip": lambda x: 1 / x,
}
VXM = {*POINTWISE, *CLOSE, "vxm.to_f16", "vxm.to_f32"}
SXM = {"sxm.permute", "sxm.distribute"}
OTHER = ("icu.nop", "mem.read", "mem.write", "mem.gather", "mem.scatter", "mxm.lw", "mxm.iw",
         "mxm.abc", "mxm.acc", "c2c.send", "c2c.receive")  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", POINTWISE)
def test_arithmetic_rounds_once(name, dtype):
    operands = [sample(dtype)]
    if len(OPS[name].sources) == 2:
        operands.append(RNG.permuted(sample(dtype), axis=1))
    with np.errstate(all="ignore"):
        got = OPS[name].function(*operands)
    assert got.dtype == NUMPY_TYPES[dtype]
    assert np.array_equal(got, once(dtype, POINTWISE[name], *operands), equal_nan=dtype in FLOATS)


@pytest.mark.parametrize("name", CLOSE)
def test_functions_are_within_an_ulp(name):
    x = sample("f32")
    with np.errstate(all="ignore"):
        got, wide = OPS[name].function(x), CLOSE[name](x.astype(np.float64))
        wanted = wide.astype(np.float32)
    finite = np.isfinite(wanted)
    assert got.dtype == np.float32
    assert np.array_equal(got[~finite], wanted[~finite], equal_nan=True)
    error = np.abs(got[finite].astype(np.float64) - wide[finite])
    assert (error <= 0.51 * np.spacing(np.abs(wanted[finite])).astype(np.float64)).all()


def test_fp16_is_the_nearest_half():
    x = sample("f32")
    with np.errstate(all="ignore"):
        got = OPS["vxm.to_f16"].function(x)
    for a, b in zip(x.ravel(), got.ravel(), strict=True):
        try:
            wanted = struct.unpack("<e", struct.pack("<e", float(a)))[0]
        except OverflowError:
            wanted = math.copysign(math.inf, a)
        assert b == wanted or (math.isnan(wanted) and np.isnan(b))


def test_fp32_holds_every_half():
    x = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 256)
    with np.errstate(invalid="ignore"):
        got, wide = OPS["vxm.to_f32"].function(x), x.astype(np.float64)
    assert got.dtype == np.float32
    assert np.array_equal(got, wide, equal_nan=True)


# --- SXM ------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
def test_permute_moves_any_lane_anywhere(dtype):
    lanes, a = RNG.permutation(320), sample(dtype)
    got = OPS["sxm.permute"].function(lanes, a)
    for lane in range(320):
        assert got[:, lane].tobytes() == a[:, lanes[lane]].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_distribute_stays_in_its_superlane(dtype):
    lanes, a = RNG.integers(0, 16, 16), sample(dtype)
    lanes[[3, 9]] = ZERO
    got = OPS["sxm.distribute"].function(lanes, a)
    for lane in range(320):
        source = lanes[lane % 16]
        wanted = a[:, lane // 16 * 16 + source] if source != ZERO else np.zeros(4, a.dtype)
        assert got[:, lane].tobytes() == wanted.tobytes()


# --- MEM ------------------------------------------------------------------------------------
@pytest.fixture
def memory() -> tuple[Sram, np.ndarray]:
    """SRAM with one slice of known bytes, and those."""
    sram, words = Sram(TINY), RNG.integers(0, 256, (TINY.slice_words, 320)).astype(np.uint8)
    sram.write(6, np.arange(TINY.slice_words), words)
    return sram, words


def test_read_and_write_move_words(memory):
    sram, words = memory
    address = RNG.permutation(TINY.slice_words)[:20]
    assert (OPS["mem.read"].function(sram, 6, address) == words[address]).all()
    OPS["mem.write"].function(sram, 5, address, words[:20])
    assert (sram.read(5, address) == words[:20]).all()
    assert (sram.read(6, np.arange(TINY.slice_words)) == words).all()


def test_typed_views_are_byte_planes_of_neighbours(memory):
    sram, words = memory
    rows = np.arange(TINY.slice_words)
    sram.write(7, rows, words[::-1])
    halves = words.astype(np.uint16) | words[::-1].astype(np.uint16) << 8
    assert (sram.typed(6, np.dtype("<u2")) == halves).all()
    assert (sram.typed(4, np.dtype("<u4")) == halves.astype(np.uint32) << 16).all()


def test_gather_takes_one_word_per_superlane(memory):
    sram, words = memory
    offsets = RNG.integers(0, 50, (4, 320)).astype(np.uint16)
    got = OPS["mem.gather"].function(sram, 6, 100, 50, offsets)
    for row, lane in np.ndindex(4, 320):
        assert got[row, lane] == words[100 + offsets[row, lane // 16 * 16], lane]


def test_scatter_puts_one_word_per_superlane_and_the_last_wins(memory):
    sram, words = memory
    offsets = RNG.integers(0, 3, (4, 320)).astype(np.uint16)
    data = RNG.integers(0, 256, (4, 320)).astype(np.uint8)
    OPS["mem.scatter"].function(sram, 6, 100, 50, offsets, data)
    for row, lane in np.ndindex(4, 320):
        words[100 + offsets[row, lane // 16 * 16], lane] = data[row, lane]
    assert (sram.read(6, np.arange(TINY.slice_words)) == words).all()


# --- MXM, C2C, ICU --------------------------------------------------------------------------
def test_abc_is_the_exact_product():
    x, tile = (sample("f16")[1:3, :320] for _ in range(2))
    tile = np.repeat(tile, 8, axis=0)
    loaded = np.ones(len(tile), bool)
    got = OPS["mxm.abc"].function(x, Weights16(tile))
    for vector, row in zip(x, got, strict=True):
        assert np.array_equal(row, product(vector, tile, loaded), equal_nan=True)


def test_acc_sets_then_adds_in_fp32():
    slots, held = np.array([3, 1]), np.ones((4, 320), np.float32)
    first, second = (sample("f32")[1:3] for _ in range(2))
    acc = OPS["mxm.acc"].function
    assert (acc(held, 0, slots, first) == first).all()
    total = first + second
    assert (acc(held, 1, slots, second) == total).all()
    assert (held[slots] == total).all()
    assert (held[[0, 2]] == 1).all()


def test_loads_and_installs_change_no_data():
    """What they do to the array is the linker's business; see test_naive."""
    assert OPS["mxm.lw"].function(0, None) is None
    assert OPS["mxm.iw"].function(8) is None


@pytest.mark.parametrize("name", ["c2c.send", "c2c.receive"])
def test_links_move_bytes_unchanged(name):
    packet = sample("u8")
    assert (OPS[name].function(packet) == packet).all()


def test_nop_is_its_count():
    assert OPS["icu.nop"].function(7) == 7
