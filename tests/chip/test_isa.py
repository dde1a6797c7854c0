"""The instruction set: every op is documented, timed, survives the wire, and is what it says."""

import numpy as np
import pytest

from chip.errors import ChipError, ProgramError
from chip.isa import (
    DTYPES,
    LOOP_NAMES,
    NUMPY_TYPES,
    OPS,
    TYPE_GROUPS,
    WIDTHS,
    immediate,
    immediate_bits,
    lookup,
)
from chip.isa.op import op
from chip.isa.sxm import ZERO
from chip.numerics import Weights16
from chip.program import Instruction
from chip.spec import GROQCHIP1, TINY
from chip.sram import Sram
from chip.wire import pack, unpack
from tests.chip.naive import float_product
from tests.chip.oracles import POINTWISE, sample
from tests.chip.programs import at, program

RNG = np.random.default_rng(7)
SXM = {"sxm.permute", "sxm.distribute", "sxm.shift_up", "sxm.shift_down", "sxm.select",
       "sxm.rotate3", "sxm.rotate4", "sxm.transpose"}  # fmt: skip
OTHER = ("icu.nop", "icu.sync", "icu.notify", "icu.config", "icu.ifetch",
         "mem.read", "mem.write", "mem.gather", "mem.scatter", "mxm.lw", "mxm.iw",
         "mxm.abc", "mxm.acc", "c2c.send", "c2c.receive", "c2c.transmit", "c2c.await",
         "icu.deskew", "icu.runtime_deskew", *SXM)  # fmt: skip


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
        if what.dtypes:
            arguments = (DTYPES.index(what.dtypes[-1]), *arguments[1:])
        held = program(at(queue, 5, name, *arguments), maps=((0,),) * 9)
        again = unpack(pack(held))
        assert again == held
        assert str(again.queues[queue][-1]).startswith(name)

    def test_op_has_operands_of_known_kinds(self, name):
        kinds = {"int", "map", "addr", "col", "slot", "plane", "imm", "dtype", "format"}
        types = ("", "format", "sum", *NUMPY_TYPES)
        for operand in OPS[name].operands:
            assert operand.kind in kinds | {"in", "out", "src", "dst"}
            assert operand.dtype in (TYPE_GROUPS if operand.kind == "dtype" else types)
            assert not (operand.reads and operand.drives)
            typed = operand.dtype or any(o.kind == "dtype" for o in OPS[name].operands)
            assert typed or not (operand.reads or operand.drives)

    def test_op_belongs_to_its_unit(self, name):
        unit, queue = name.partition(".")[0], OPS[name].queue
        assert queue.partition(".")[0] in (unit, "icu") or queue == "any"

    def test_op_has_a_published_name_and_a_meaning(self, name):
        assert OPS[name].published
        assert OPS[name].meaning

    def test_op_has_an_oracle(self, name):
        assert name in {*POINTWISE, *OTHER}


# Tables 1 of ISCA20 and of ISCA22 (network instructions), as restated.
PUBLISHED = """NOP N/Ifetch/Sync/Notify/Config/Repeat n,d/Read a,s/Write a,s/Gather s,map
Scatter s,map/Countdown d/Step a/Iterations n/unary z = op(x)/binary z = op(x,y)/type convert/ReLU
TanH/Exp/RSqrt/LW/IW/ABC/ACC/Shift up N/Shift down N/Select/Permute map/Distribute map/Rotate n=3
Rotate n=4/Transpose sg16/Deskew/Runtime deskew t/Send/Receive/Transmit"""


@pytest.mark.parametrize("name", PUBLISHED.replace("\n", "/").split("/"))
def test_every_published_instruction_is_there(name):
    assert name in {*LOOP_NAMES, *(one.published for one in OPS.values())}


def test_unknown_ops_are_errors():
    with pytest.raises(ProgramError, match=r"unknown instruction 'vxm\.think'"):
        lookup("vxm.think")


def test_an_op_is_defined_once():
    with pytest.raises(ProgramError, match="defined twice"):
        op("vxm.add", "vxm", "", "")(lambda: None)


def test_widths_are_those_of_the_types():
    assert all(NUMPY_TYPES[name].itemsize == WIDTHS[name] for name in DTYPES)


def test_text_shows_loops():
    shown = Instruction("mem.read", (3, 32), ((2, 9, 4), (5, 1, 1)))
    assert str(shown) == "mem.read address=3 out=32 x2@9+4 x5@1+1"


def test_an_op_refuses_types_it_has_not():
    held = program(at("vxm:0", 5, "vxm.and", DTYPES.index("f32"), 0, 0, 0, 8))
    with pytest.raises(ProgramError, match=r"vxm:0: vxm\.and of f32, it takes u8, u16, i8"):
        unpack(pack(held))


@pytest.mark.parametrize("dtype", DTYPES)
def test_immediates_are_what_they_were(dtype):
    for value in (0, 1, 5, 127) if dtype.startswith("u") else (-3, 0, 1, 127):
        again = immediate(immediate_bits(value, dtype), dtype)
        assert (again, again.dtype) == (value, NUMPY_TYPES[dtype])
    assert immediate(immediate_bits(2**31 - 2, "i32"), "i32") == 2**31 - 2


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 17, 320])
def test_shifts_move_lanes_and_fill_with_zeros(dtype, count):
    a = sample(dtype)
    up, down = OPS["sxm.shift_up"].function(count, a), OPS["sxm.shift_down"].function(count, a)
    zeros = np.zeros((4, count), a.dtype)
    assert up.tobytes() == np.hstack([zeros, a])[:, :320].tobytes()
    assert down.tobytes() == np.hstack([a, zeros])[:, count:].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_select_merges_two_vectors(dtype):
    a, b, choice = sample(dtype), sample(dtype), RNG.integers(0, 2, 320)
    got = OPS["sxm.select"].function(choice, a, b)
    for lane in range(320):
        assert got[:, lane].tobytes() == (a, b)[choice[lane]][:, lane].tobytes()


@pytest.mark.parametrize("n", [3, 4])
def test_rotate_makes_every_rotation_of_a_window(n):
    a = sample("u8")
    got = OPS[f"sxm.rotate{n}"].function(a)
    assert got.shape == (4, 320, n * n)
    for row, tile, i, j, y, x in np.ndindex(2, 20, n, n, n, n):
        wanted = a[row, 16 * tile + (y + i) % n * n + (x + j) % n]
        assert got[row, 16 * tile + y * n + x, n * i + j] == wanted
    assert not got.reshape(4, 20, 16, n * n)[:, :, n * n :].any()


def test_transpose_swaps_streams_and_lanes_of_each_superlane():
    a = RNG.integers(0, 256, (3, 320, 16)).astype(np.uint8)
    got = OPS["sxm.transpose"].function(a)
    for tile in range(20):
        lanes = slice(16 * tile, 16 * tile + 16)
        assert (got[:, lanes] == a[:, lanes].transpose(0, 2, 1)).all()
    assert (OPS["sxm.transpose"].function(got) == a).all()


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
        assert np.array_equal(row, float_product(vector, tile, loaded), equal_nan=True)


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
    assert OPS["mxm.lw"].function(0, 0, None) is None
    assert OPS["mxm.iw"].function(0, 0, 8) is None


@pytest.mark.parametrize("name", ["c2c.send", "c2c.receive"])
def test_links_move_bytes_unchanged(name):
    packet = sample("u8")
    assert (OPS[name].function(packet) == packet).all()


@pytest.mark.parametrize("name", ["icu.sync", "icu.notify"])
def test_barriers_change_no_data(name):
    """When queues go on is the linker's business; see test_control."""
    assert OPS[name].function() is None


def test_config_is_its_lanes_and_ifetch_compares():
    assert OPS["icu.config"].function(48) == 48
    image = sample("u8")
    OPS["icu.ifetch"].function(image.copy(), image)
    other = image.copy()
    other[2, 7] ^= 1
    with pytest.raises(ChipError, match=r"vector 2 has byte \d+ in lane 7, where the queue's"):
        OPS["icu.ifetch"].function(other, image)


def test_nop_is_its_count():
    assert OPS["icu.nop"].function(7) == 7


def test_a_deskew_ends_with_the_epoch():
    assert [OPS["icu.deskew"].function(hac, 252) for hac in (0, 1, 251)] == [252, 251, 1]
    assert OPS["icu.runtime_deskew"].function(6) == 6


def test_a_start_goes_to_the_ports_of_the_mask():
    assert OPS["c2c.transmit"].function(0b100101) == (0, 2, 5)
    assert OPS["c2c.transmit"].function(0) == ()
    assert OPS["c2c.await"].function(469) == 469
