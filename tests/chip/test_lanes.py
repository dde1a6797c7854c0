"""SXM and VXM instructions on the chip: linked executor and naive interpreter agree on them."""

import pytest

from chip.isa import ALU_BASE, DTYPES, IMMEDIATE, NO_STREAM, WIDTHS, immediate_bits, lookup
from chip.spec import EAST, TINY, WEST
from tests.chip.programs import agree, at, numbers, program, reads, writes

VXM = TINY.vxm_position
F32 = DTYPES.index("f32")
SIDES = [(EAST, 0, 32), (WEST, 32, 0)]  # hemisphere, outward streams, inward streams


@pytest.mark.parametrize(("side", "outward", "inward"), SIDES)
def test_a_transpose_turns_rows_of_sixteen_slices_into_columns(side, outward, inward):
    position, first = TINY.edge_position("sxm", side), 16 if side == EAST else 60
    placed = reads(first, 16, outward + 16, 3, 100, position, (5, 1, 1))
    placed.append(
        at(f"sxm:{14 * side}", 100, "sxm.transpose", outward + 16, inward, loops=(5, 1, 0))
    )
    done, target = 100 + TINY.d_func("sxm.transpose"), 20 if side == EAST else 64
    placed += writes(target, 16, inward, 600, done, position, (5, 1, 1))
    after = agree(program(*placed))
    tile = numbers()[first : first + 16, 3:8].reshape(16, 5, 20, 16)
    assert (
        after[target : target + 16, 600:605].reshape(16, 5, 20, 16) == tile.transpose(3, 1, 2, 0)
    ).all()


def test_both_planes_of_halves_transpose_to_halves():
    """fp16 goes plane by plane, on two queues; the VXM then reads pairs of their streams."""
    position = TINY.edge_position("sxm", EAST)
    placed = reads(12, 16, 0, 3, 100, position, (2, 1, 1)) + reads(
        28, 16, 16, 3, 100, position, (2, 1, 1)
    )
    for plane in (0, 1):
        placed.append(
            at(f"sxm:{plane}", 100, "sxm.transpose", 16 * plane, 32 + 16 * plane, loops=(2, 1, 0))
        )
    done = 100 + TINY.d_func("sxm.transpose") + position - VXM
    for number in range(4):  # the first eight streams hold low bytes of lanes 0..7
        placed.append(
            at(
                f"vxm:{number}",
                done,
                "vxm.copy",
                DTYPES.index("f16"),
                32 + 2 * number,
                2 * number,
                loops=(2, 1, 0),
            )
        )
        placed += writes(
            2 * number, 2, 2 * number, 600, done + TINY.d_func("vxm.alu"), VXM, (2, 1, 1)
        )
    agree(program(*placed))


@pytest.mark.parametrize(("side", "outward", "inward"), SIDES)
@pytest.mark.parametrize("n", [3, 4])
def test_rotations_of_a_window_leave_on_a_group(n, side, outward, inward):
    position, first = TINY.edge_position("sxm", side), 4 if side == EAST else 48
    placed = reads(first, 1, outward, 3, 100, position, (3, 2, 1))
    placed.append(
        at(f"sxm:{3 + 14 * side}", 100, f"sxm.rotate{n}", outward, inward + 16, loops=(3, 2, 0))
    )
    placed += writes(
        first + 8, n * n, inward + 16, 600, 100 + TINY.d_func("sxm.rotate"), position, (3, 2, 1)
    )
    agree(program(*placed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_shifted_both_ways_is_merged(dtype):
    """North and South shifts on two queues, merged by a select in the cycle they are done."""
    position, width, code = TINY.edge_position("sxm", EAST), WIDTHS[dtype], DTYPES.index(dtype)
    placed = reads(4, width, 0, 0, 100, position, (3, 1, 1))
    placed.append(at("sxm:0", 100, "sxm.shift_up", code, 7, 0, 32, loops=(3, 1, 0)))
    back = reads(4, width, 0, 0, 140, position, (3, 1, 1))
    back.append(at("sxm:1", 140, "sxm.shift_down", code, 7, 0, 36, loops=(3, 1, 0)))
    placed += writes(8, width, 32, 600, 124, position, (3, 1, 1)) + back
    placed += writes(12, width, 36, 600, 164, position, (3, 1, 1))
    placed += reads(8, width, 8, 600, 300, position, (3, 1, 1)) + reads(
        12, width, 12, 600, 300, position, (3, 1, 1)
    )
    placed.append(at("sxm:2", 300, "sxm.select", code, 0, 8, 12, 40, loops=(3, 1, 0)))
    placed += writes(20, width, 40, 700, 300 + TINY.d_func("sxm.select"), position, (3, 1, 1))
    agree(program(*placed, maps=(tuple(lane // 16 % 2 for lane in range(320)),)))


def test_a_chain_over_all_sixteen_alus_is_one_pass():
    """Sixteen ops on the ALUs of the 4 x 4 mesh: a vector per cycle, nothing touches SRAM."""
    names = ["add", "mul", "sub", "max", "min", "abs", "neg", "relu", "exp", "rsqrt", "tanh",
             "sqrt", "recip", "add", "mul", "copy"]  # fmt: skip
    placed, cycle, value = reads(44, 4, 0, 0, 60, VXM, (40, 1, 1)), 60, 0
    for alu, name in enumerate(names):
        op = lookup(f"vxm.{name}")
        args = [
            F32,
            value,
            *([IMMEDIATE, immediate_bits(1.25, "f32")] if len(op.sources) == 2 else []),
        ]
        out = 8 if alu == 15 else NO_STREAM
        placed.append(at(f"vxm:{alu}", cycle, op.name, *args, out, loops=(40, 1, 0)))
        cycle, value = cycle + TINY.d_func(op.timing), ALU_BASE + alu
    placed += writes(8, 4, 8, 600, cycle, VXM, (40, 1, 1))
    ready = program(*placed)
    agree(ready)
    assert cycle - 60 == sum(TINY.d_func(lookup(f"vxm.{name}").timing) for name in names)
