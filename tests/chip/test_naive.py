"""The linked executor and the cycle-by-cycle interpreter leave equal bytes in equal cycles."""

import numpy as np
import pytest

from chip.isa import ALU_BASE, DTYPES, IMMEDIATE, NO_STREAM, WIDTHS, immediate_bits
from chip.kernels.matmul import Pass, matmul
from chip.linker.node_ops import Read
from chip.program import ONCE, Region
from chip.schedule import Buffer, Chain, Rows, run
from chip.spec import EAST, TINY, WEST
from tests.chip.chaos import SPAN
from tests.chip.programs import (
    At,
    agree,
    at,
    linked,
    numbers,
    passes,
    program,
    reads,
    scheduled,
    writes,
)

X = Buffer("x", Region(4, 0, 64, "f16"))
W = Buffer("w", Region(16, 100, 1280, "f16", "columns"))
F = Buffer("f", Region(8, 0, 64, "f32"))
G = Buffer("g", Region(48, 0, 64, "f32"))
Y = Buffer("y", Region(12, 600, 64, "f32"))
FAR = Buffer("far", Region(44, 600, 64, "f32"))
FULL = Region(16, 100, 1280, "f16", "columns")
VXM, MXM = TINY.vxm_position, TINY.edge_position("mxm", EAST)
READ, ALU = TINY.d_func("mem.read"), TINY.d_func("vxm.alu")


def values(index: int, words: slice, dtype: str) -> np.ndarray:
    """What the test image holds in neighbouring slices, as elements."""
    width = np.dtype(dtype).itemsize
    planes = np.ascontiguousarray(numbers()[index : index + width, words].transpose(1, 2, 0))
    return planes.view(dtype)[..., 0]


def stored(image: np.ndarray, index: int, words: slice, dtype: str) -> np.ndarray:
    width = np.dtype(dtype).itemsize
    planes = np.ascontiguousarray(image[index : index + width, words].transpose(1, 2, 0))
    return planes.view(dtype)[..., 0]


# --- matrix products ------------------------------------------------------------------------
@pytest.mark.parametrize("side", [EAST, WEST])
def test_matmul_accumulates_over_passes(side):
    weights = W if side == EAST else Buffer("w", Region(60, 100, 1280, "f16", "columns"))
    chain = Chain(TINY, "mm")
    parts = [
        Pass(weights, 0, 2, 5, Rows(X, 0, (0, 1)), 4, last=False),
        Pass(weights, 10, 2, 5, Rows(X, 4, (0, 1)), 4, first=False, last=False),
        Pass(weights, 20, 2, 5, Rows(X, 8, (0, 1)), 4, first=False),
    ]
    (flow,) = matmul(chain, side, parts)
    chain.write(flow, Rows(Y if side == EAST else FAR, 0, (4, 1)))
    agree(scheduled(chain))
    agree(scheduled(chain, constants=(weights.region,)), launches=2)


def test_each_tile_may_meet_other_activations():
    chain = Chain(TINY, "mm")
    (flow,) = matmul(chain, EAST, [Pass(W, 0, 3, 2, Rows(X, 0, (5, 1)), 4)])
    chain.write(flow, Rows(Y, 0, (4, 1)))
    agree(scheduled(chain))


def test_a_full_tile_is_the_product():
    chain = Chain(TINY, "mm")
    (flow,) = matmul(chain, EAST, [Pass(W, 0, 1, 40, Rows(X, 0, (0, 1)), 3)])
    chain.write(flow, Rows(Y, 0, (3, 1)))
    after = agree(scheduled(chain))
    pairs = [values(16 + 2 * k, slice(100, 140), "<f2") for k in range(8)]
    columns = np.stack(pairs, axis=1).reshape(320, 320).astype(float)
    exact = values(4, slice(0, 3), "<f2").astype(float) @ columns.T
    assert np.allclose(stored(after, 12, slice(600, 603), "<f4"), exact, rtol=1e-6, atol=1e-6)


def mxm(load: int, words: int, start: int, count: int, out: int = NO_STREAM) -> list[At]:
    """LW, IW, ABC of stream 0 and ACC on the east pair; the weights arrive on streams 16.."""
    done = start + TINY.d_func("mxm.abc")
    every = (count, 2, 1)
    return [
        at("mxm.lw:0", load, "mxm.lw", 0, 0, 16, loops=(words, 1, 8)),
        at("mxm.iw:0", start - 1, "mxm.iw", 0, 0, 8 * words),
        at("mxm.abc:0", start, "mxm.abc", 0, 0, loops=(count, 2, 0)),
        at("mxm.acc:0", done, "mxm.acc", 0, 0, 0, out, loops=every),
    ]


def product_written(load: int, count: int) -> list[At]:
    """A product on stream 32.. goes to slices 8..11."""
    done = load + 5 + TINY.d_func("mxm.abc") + TINY.d_func("mxm.acc")
    return writes(8, 4, 32, 600, done, MXM, (count, 2, 1))


@pytest.mark.parametrize(("other", "expected"), [(0, ["f32", "f32"]), (7, ["u8"] * 8)])
def test_an_operand_that_several_reads_bring_is_read_as_elements_where_they_are_in_step(
    other, expected
):
    every = [*reads(8, 4, 32, 3, 40, VXM, ONCE), *reads(8, 4, 32, 90, 41, VXM, ONCE)]
    every[-1] = reads(11, 1, 35, 90 + other, 41, VXM, ONCE)[0]  # the highest byte of the second
    add = at("vxm:0", 40, "vxm.add", DTYPES.index("f32"), 32, 32, 0, 40, loops=(2, 1, 0))
    placed = [*every, add, *writes(48, 4, 40, 5, 40 + ALU, VXM, (2, 1, 1))]
    agree(program(*placed))
    (blocks,) = linked(*placed).segments
    ops = [op for block in blocks for _, op in block.nodes]
    assert [op.element for op in ops if isinstance(op, Read)] == expected


def test_weights_may_come_from_the_vxm():
    load, words = 200, 2
    vxm = load - abs(MXM - VXM) - ALU
    placed = [*mxm(load, words, load + 5, 3, 32), *product_written(load, 3)]
    placed += reads(4, 2, 0, 0, load + 5, MXM, (3, 2, 1))
    for pair in range(8):  # eight f16 values doubled on eight ALUs, each one column of every load
        code = 16 + 2 * pair
        placed += reads(60 + 2 * pair, 2, code, 10, vxm, VXM, (words, 1, 1))
        add = (DTYPES.index("f16"), code, code, 0, code)
        placed.append(at(f"vxm:{pair}", vxm, "vxm.add", *add, loops=(words, 1, 0)))
    agree(program(*placed))


def test_weights_may_come_from_scattered_slices():
    load = 200
    placed = [*mxm(load, 3, load + 5, 3, 32), *product_written(load, 3)]
    placed += reads(4, 2, 0, 0, load + 5, MXM, (3, 2, 1))
    for plane in range(16):
        placed += reads(20 + plane if plane % 3 else 1 - plane // 3 + 60, 1, 16 + plane, plane,
                        load, MXM, (3, 1, 1))  # fmt: skip
    agree(program(*placed))


def test_weights_computed_by_the_program_itself():
    """Dynamic weights: columns written in the launch that loads them; never kept for the next."""
    make = Chain(TINY, "make")
    total = make.vxm("add", Rows(F, 0), Rows(G, 8), loops=run(4))
    make.write(make.vxm("to_f16", total), Rows(Buffer("column", Region(16, 100, 64, "f16")), 0))
    use = Chain(TINY, "use")
    column = Buffer("column", Region(16, 100, 64, "f16", "columns"))
    (flow,) = matmul(use, EAST, [Pass(column, 0, 2, 2, Rows(X, 0, (0, 1)), 4)])
    use.write(flow, Rows(Y, 0, (4, 1)))
    agree(scheduled(make, use), launches=2)


def test_a_constant_region_of_one_slice_does_not_freeze_its_neighbours():
    chain = Chain(TINY, "mm")
    (flow,) = matmul(chain, EAST, [Pass(W, 0, 1, 2, Rows(X, 0, (0, 1)), 4)])
    chain.write(flow, Rows(Buffer("next", Region(20, 100, 16, "f32")), 0, (4, 1)))
    agree(scheduled(chain, constants=(Region(16, 0, 1024, "u8"),)), launches=3)


def test_activations_at_odd_slices_meet_several_tiles():
    load, start, count = 200, 210, 2
    tiles = ((2, 10, 0), (count, 2, 1))
    placed = reads(5, 2, 0, 0, start, MXM, tiles)
    placed += reads(16, 16, 16, 100, load, MXM, ((2, 10, 3), (3, 1, 1)))
    placed += [
        at("mxm.lw:0", load, "mxm.lw", 0, 8, 16, loops=((2, 10, 0), (3, 1, 8))),
        at("mxm.iw:0", start - 1, "mxm.iw", 0, 0, 24, loops=(2, 10, 0)),
        at("mxm.abc:0", start, "mxm.abc", 0, 0, loops=((2, 10, 0), (count, 2, 0))),
        at("mxm.acc:0", start + 24, "mxm.acc", 0, 0, 0, 32, loops=((2, 10, 2), (count, 2, 1))),
    ]
    # The pair of slices 5 and 6 is read in other words and order than an aligned pair would be.
    placed += writes(8, 4, 32, 600, start + 28, MXM, ((2, 10, 2), (count, 2, 1)))
    agree(program(*placed))


def test_a_load_in_the_cycle_of_the_install_fills_the_next_tile():
    load, start = 200, 210
    placed = reads(16, 16, 16, 100, load, MXM, (2, 9, 1))
    placed += [
        at("mxm.lw:0", load, "mxm.lw", 0, 0, 16, loops=(2, 9, 0)),  # the second coincides with IW
        at("mxm.iw:0", start - 1, "mxm.iw", 0, 0, 8, loops=(2, 10, 0)),
        at("mxm.abc:0", start, "mxm.abc", 0, 0, loops=(2, 10, 0)),
        at("mxm.acc:0", start + 24, "mxm.acc", 0, 0, 0, 32, loops=(2, 10, 1)),
    ]
    placed += reads(4, 2, 0, 0, start, MXM, (2, 10, 1))
    placed += writes(8, 4, 32, 600, start + 28, MXM, (2, 10, 1))
    agree(program(*placed))


def test_one_accumulate_takes_the_products_of_two_instructions():
    load, start = 200, 205
    placed = [p for p in mxm(load, 1, start, 4, 32) if p.queue != "mxm.abc:0"]
    placed += reads(16, 16, 16, 100, load, MXM, ONCE)
    placed += reads(4, 2, 0, 0, start, MXM, (4, 2, 1))
    for half in (0, 1):
        placed.append(at("mxm.abc:0", start + 4 * half, "mxm.abc", 0, 0, loops=(2, 2, 0)))
    agree(program(*placed, *product_written(load, 4)))


def test_infinite_activations_leave_unloaded_columns_zero():
    image = numbers().copy()
    image[5, :8], image[4, :8] = 0x7C, 0  # fp16 infinities
    chain = Chain(TINY, "mm")
    (flow,) = matmul(chain, EAST, [Pass(W, 0, 1, 2, Rows(X, 0, (0, 1)), 4)])
    chain.write(flow, Rows(Y, 0, (4, 1)))
    agree(scheduled(chain), image)


# --- arithmetic -----------------------------------------------------------------------------
def test_results_forward_from_alu_to_alu_and_meet_immediates():
    chain = Chain(TINY, "vxm")
    total = chain.vxm("add", Rows(F, 0), Rows(G, 16), loops=run(8))
    scaled = chain.vxm("mul", total, 0.125)
    rooted = chain.vxm("rsqrt", chain.vxm("max", scaled, 1.0))
    chain.write(chain.vxm("exp", rooted), Rows(Y, 0))
    other = Chain(TINY, "other")
    half = other.vxm("to_f16", other.vxm("sub", 3.0, Rows(F, 2), loops=run(8, 2)))
    other.write(half, Rows(Buffer("half", Region(4, 600, 64, "f16")), 0))
    agree(scheduled(chain, other))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "max", "min"])
def test_every_type_agrees_on_immediates(op, dtype):
    width, bits = WIDTHS[dtype], immediate_bits(2.75, dtype)
    placed = reads(4, width, 0, 0, 60, MXM, (4, 1, 1))[:0]
    placed += reads(44, width, 0, 0, 60, VXM, (4, 1, 1))
    placed.append(at("vxm:3", 60, f"vxm.{op}", DTYPES.index(dtype), 0, IMMEDIATE, bits, 8,
                     loops=(4, 1, 0)))  # fmt: skip
    placed += writes(8, width, 8, 600, 60 + ALU, VXM, (4, 1, 1))
    agree(program(*placed))


def test_one_consumer_takes_results_of_two_alu_instructions():
    placed = reads(44, 4, 0, 0, 60, VXM, (4, 1, 1))
    for half, op in enumerate(("vxm.add", "vxm.mul")):
        placed.append(at("vxm:3", 60 + 2 * half, op, DTYPES.index("f32"), 0, 0, 0, NO_STREAM,
                         loops=(2, 1, 0)))  # fmt: skip
    placed.append(at("vxm:4", 60 + ALU, "vxm.to_f16", DTYPES.index("f32"), ALU_BASE + 3, 8,
                     loops=(4, 1, 0)))  # fmt: skip
    placed += writes(8, 2, 8, 600, 60 + ALU + TINY.d_func("vxm.convert"), VXM, (4, 1, 1))
    agree(program(*placed))


def test_loops_nest_two_deep():
    loops = ((3, 20, 7), (4, 3, 2))
    placed = reads(44, 4, 0, 5, 60, VXM, loops)
    args = (DTYPES.index("f32"), 0, 0, 0, 8)
    placed.append(at("vxm:0", 60, "vxm.add", *args, loops=((3, 20, 0), (4, 3, 0))))
    placed += writes(8, 4, 8, 600, 60 + ALU, VXM, ((3, 20, 4), (4, 3, 1)))
    agree(program(*placed))


# --- lanes ----------------------------------------------------------------------------------
@pytest.mark.parametrize("side", [EAST, WEST])
@pytest.mark.parametrize("op", ["permute", "distribute"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_move_by_a_map(op, dtype, side):
    maps = {"permute": tuple((7 * lane + 3) % 320 for lane in range(320))}
    maps["distribute"] = (*range(15, 3, -1), 0xFFFF, 0xFFFF, 2, 2)
    width = WIDTHS[dtype]
    position, out = TINY.edge_position("sxm", side), 32 if side == EAST else 0
    placed = reads(4, width, 32 - out, 0, 100, position, (3, 2, 1))
    queue = f"sxm:{5 + 14 * side}"
    args = (DTYPES.index(dtype), 0, 32 - out, out)
    placed.append(at(queue, 100, f"sxm.{op}", *args, loops=(3, 2, 0)))
    driven = 100 + TINY.d_func(f"sxm.{op}")
    placed += writes(8, width, out, 600, driven, position, (3, 2, 1))
    agree(program(*placed, maps=(maps[op],)))


# --- streams --------------------------------------------------------------------------------
def test_a_value_overwritten_downstream_is_seen_until_there():
    first, second = TINY.slice_position(0), TINY.slice_position(5)
    placed = reads(0, 1, 0, 3, 20, second, (4, 1, 1))
    placed += reads(5, 1, 0, 60, 20, second, (2, 1, 1))  # over the first two of four
    for index, row in ((2, 600), (5, 610), (9, 620)):
        cycle = 20 + TINY.slice_position(index) - second
        placed.append(at(f"mem.w:{index}", cycle, "mem.write", row, 0, loops=(4, 1, 1)))
    after = agree(program(*placed))
    assert first < second
    assert (after[2, 600:604] == numbers()[0, 3:7]).all()
    assert (after[5, 610:614] == numbers()[0, 3:7]).all()  # at its own position, the old value
    assert (after[9, 620:622] == numbers()[5, 60:62]).all()
    assert (after[9, 622:624] == numbers()[0, 5:7]).all()


def test_one_run_may_be_fed_by_two_reads():
    position = TINY.slice_position(20)
    placed = reads(1, 1, 0, 3, 40, position, (3, 2, 1)) + reads(
        7, 1, 0, 60, 41, position, (3, 2, 2)
    )
    placed.append(at("mem.w:20", 40, "mem.write", 600, 0, loops=(6, 1, 1)))
    after = agree(program(*placed))
    assert (after[20, 600:606:2] == numbers()[1, 3:6]).all()
    assert (after[20, 601:607:2] == numbers()[7, 60:66:2]).all()


@pytest.mark.parametrize("index", [8, 9, 10, 3])
def test_byte_planes_need_not_be_aligned_in_memory(index):
    placed = reads(45, 4, 0, 0, 60, VXM, (4, 1, 1))
    placed.append(at("vxm:0", 60, "vxm.add", 2, 0, 0, 0, 8, loops=(4, 1, 0)))
    placed += writes(index, 4, 8, 600, 60 + ALU, VXM, (4, 1, 1))
    agree(program(*placed))


def test_byte_planes_may_come_from_and_go_anywhere():
    placed = []
    for byte, (index, row) in enumerate([(50, 0), (47, 9), (44, 3), (60, 0)]):
        placed += reads(index, 1, byte, row, 80, VXM, (4, 1, 1))
    placed.append(at("vxm:0", 80, "vxm.copy", 2, 0, 8, loops=(4, 1, 0)))
    for byte, index in enumerate([11, 10, 4, 21]):
        placed += writes(index, 1, 8 + byte, 600 + byte, 80 + ALU, VXM, (4, 1, 2))
    agree(program(*placed))


def test_half_of_a_pair_may_be_replaced_on_the_way():
    placed = reads(50, 2, 0, 0, 80, VXM, (4, 1, 1)) + reads(46, 1, 1, 7, 82, VXM, (2, 1, 1))
    placed.append(at("vxm:0", 80, "vxm.to_f32", DTYPES.index("f16"), 0, 8, loops=(4, 1, 0)))
    placed += writes(8, 4, 8, 600, 80 + TINY.d_func("vxm.convert"), VXM, (4, 1, 1))
    agree(program(*placed))


# --- memory ---------------------------------------------------------------------------------
def test_reads_and_writes_interleave_on_one_slice():
    """In place, in one bank: a word is read in one cycle and replaced in another."""
    placed = reads(3, 1, 32, 0, 60, VXM, (20, 2, 1))
    placed.append(at("vxm:0", 60, "vxm.add", 0, 32, IMMEDIATE, 3, 0, loops=(20, 2, 0)))
    cycle = 60 + ALU + TINY.slice_position(3) - VXM
    read = 60 - passes(3, VXM)
    placed.append(at("mem.w:3", cycle + (cycle - read + 1) % 2, "mem.write", 0, 0,
                     loops=(20, 2, 1)))  # fmt: skip
    if (cycle - read) % 2 == 0:  # one cycle later: the odd diagonal, driven by a second copy
        placed.append(at("vxm:1", 61, "vxm.add", 0, 33, IMMEDIATE, 3, 0,
                         loops=(20, 2, 0)))  # fmt: skip
        placed += reads(7, 1, 33, 0, 61, VXM, (20, 2, 1))
    agree(program(*placed))


def test_a_bank_is_read_while_the_other_is_written():
    placed = reads(3, 1, 32, 0, 60, VXM, (30, 1, 1))
    placed += [at("vxm:0", 60, "vxm.copy", 0, 32, 0, loops=(30, 1, 0))]
    placed += writes(3, 1, 0, TINY.bank_words, 60 + ALU, VXM, (30, 1, 1))
    placed += reads(3, 1, 33, TINY.bank_words, 130, VXM, (30, 1, 1))
    placed += [at("vxm:1", 130, "vxm.copy", 0, 33, 1, loops=(30, 1, 0))]
    placed += writes(9, 1, 1, 0, 130 + ALU, VXM, (30, 1, 1))
    after = agree(program(*placed))
    assert (after[9, :30] == numbers()[3, :30]).all()


def test_a_word_is_read_before_between_and_after_two_overlapping_writes():
    """The second write starts before the first ends; each word still has one order."""
    position = TINY.slice_position(4)
    placed = reads(0, 1, 0, 0, 60, position, (12, 3, 1)) + reads(
        1, 1, 1, 40, 73, position, (1, 1, 0)
    )
    placed.append(at("mem.w:4", 60, "mem.write", 100, 0, loops=(8, 3, 1)))
    placed += reads(4, 1, 2, 107, 75, TINY.slice_position(7), ONCE)
    placed.append(at("mem.w:7", 75, "mem.write", 5, 2))
    placed += reads(2, 1, 3, 9, 100, position, ONCE)
    placed.append(at("mem.w:4", 100, "mem.write", 104, 3))
    placed += reads(4, 1, 2, 100, 140, TINY.slice_position(7), (8, 1, 1))
    placed.append(at("mem.w:7", 140, "mem.write", 10, 2, loops=(8, 1, 1)))
    agree(program(*placed))


def test_a_read_inside_a_covering_write_sees_the_write_before_it():
    """The first write waits, as a node, for an input that is read much later."""
    slice3 = TINY.slice_position(3)
    placed = reads(44, 1, 0, 0, 60, VXM, ONCE) + reads(47, 1, 0, 9, 360, VXM, ONCE)
    placed.append(at("vxm:0", 60, "vxm.copy", 0, 0, 1, loops=(2, 300, 0)))
    placed += writes(3, 1, 1, 9, 60 + ALU, VXM, ONCE)
    placed += writes(9, 1, 1, 10, 360 + ALU, VXM, ONCE)
    placed += reads(0, 1, 2, 50, 70, slice3, (10, 3, 1))
    placed.append(at("mem.w:3", 70, "mem.write", 0, 2, loops=(10, 3, 1)))
    placed.append(at("mem.r:3", 81, "mem.read", 9, 3))
    placed += writes(5, 1, 3, 0, 81 + READ, slice3, ONCE)
    after = agree(program(*placed))
    assert (after[5, 0] == numbers()[44, 0]).all()


def test_gather_and_scatter_take_addresses_from_a_stream(addresses):
    source, target = TINY.slice_position(20), TINY.slice_position(24)
    placed = reads(8, 2, 0, 0, 60, source, (4, 3, 1))
    placed.append(at("mem.r:20", 60, "mem.gather", 512, SPAN, 0, 6, loops=(4, 3, 0)))
    placed += writes(22, 1, 6, 0, 60 + TINY.d_func("mem.gather"), source, (4, 3, 1))
    placed += reads(12, 1, 7, 0, 60 + target - source, target, (4, 3, 1))
    args = (100, SPAN, 0, 7)
    placed.append(at("mem.w:24", 60 + target - source, "mem.scatter", *args, loops=(4, 3, 0)))
    agree(program(*placed), addresses)
