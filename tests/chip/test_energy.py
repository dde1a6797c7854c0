"""Counting what a program does, and the table it is multiplied with."""

import numpy as np
import pytest

from chip.energy import (
    EVENTS,
    GROQCHIP1_ENERGY,
    SYSTEM_W,
    TDP_W,
    Activity,
    EnergyTable,
    count,
    energy_table,
)
from chip.kernels.gemm import Gemm
from chip.kernels.lanes import MAPS
from chip.kernels.memory import SramFull
from chip.kernels.streamed_gemm import StreamedGemm
from chip.program import Program
from chip.schedule import Chain, Rows, run
from chip.spec import EAST, GROQCHIP1, GROQCHIP1_1000, LP30, WEST
from tests.chip.kernel_rig import KernelRig, fp16, normal


def counted(plan):
    program = plan.program(0, Program(0, plan.spec.name, 0, {}, MAPS))
    return count(program.instructions(), plan.spec)


def test_bytes_lanes_and_issues_of_a_chain():
    rig = KernelRig()
    a, b = (rig.rows(n, (s, 0, 0), normal(6, 320)) for n, s in (("a", EAST), ("b", WEST)))
    out = rig.room("out", (EAST, 1, 0), 6, "f16")
    chain = Chain(rig.spec, "add")
    total = chain.vxm("exp", chain.vxm("add", Rows(a), Rows(b), loops=run(6)))
    chain.write(chain.vxm("to_f16", total), Rows(out))
    rig.plan.place(chain)
    row = 6 * 320
    assert counted(rig.plan) == Activity(
        sram_read_bytes=8 * row,
        sram_write_bytes=2 * row,
        stream_bytes=8 * row + 2 * row,  # ALU results that stay in their ALUs drive nothing
        alu_lanes=2 * row,
        function_lanes=row,
        issues=6 * (8 + 3 + 2),
    )


def test_products_are_those_of_the_installed_columns():
    gemm = Gemm(GROQCHIP1, 64, 640, 104)
    found = counted(gemm.plan)
    assert found.fp16_products == 64 * 640 * 104
    assert found.weight_bytes == 2 * 640 * 104 * 2  # B goes into both arrays, two bytes each
    assert found.accumulated_lanes == 64 * 2 * 320
    assert found.byte_products == 0


@pytest.mark.parametrize("kind", [Gemm, StreamedGemm])
def test_a_dense_product_is_right_to_the_bit(kind):
    gemm = kind(GROQCHIP1, 9, 700, 400)
    a, b = fp16(normal(9, 700)), fp16(normal(700, 400))
    rig = KernelRig(GROQCHIP1)
    rig.memory, rig.plan = gemm.memory, gemm.plan
    ins, outs = gemm.inputs, gemm.outputs
    padded = np.zeros((ins.count * ins.width, outs.count * outs.width), np.float32)
    padded[:700, :400] = b
    tiles = padded.reshape(ins.count, ins.width, outs.count, outs.width).transpose(0, 2, 3, 1)
    rows = np.zeros((9, ins.count * ins.width), np.float32)
    rows[:, :700] = a
    for side in (EAST, WEST):
        rig.put(gemm.memory[f"B{side}"], tiles.reshape(-1, ins.width))
        mine = rows[list(gemm.rows(side))].reshape(-1, ins.count, ins.width)
        for block in range(ins.count):
            rig.put(gemm.memory[f"A{side}.0.{block}"], mine[:, block])
    before = {}
    if isinstance(gemm, StreamedGemm):
        before = {name: normal(sums.region.vectors, 320) for name, sums in gemm.before.items()}
        for name, values in before.items():
            rig.put(gemm.before[name], values)
    rig.run()
    expected = np.zeros((9, outs.count * outs.width), np.float32)
    for block in range(ins.count):
        part = slice(block * ins.width, (block + 1) * ins.width)
        expected += (rows[:, part].astype(np.float64) @ padded[part]).astype(np.float32)
    for side in (EAST, WEST):
        for out in range(outs.count):
            found = rig.read(gemm.memory[f"C{side}.0.{out}"])[:, : outs.width]
            mine = expected[list(gemm.rows(side)), out * outs.width : (out + 1) * outs.width]
            np.testing.assert_array_max_ulp(found, mine, 1)
            if before:
                name = f"C{side}.0.{out}"
                after = rig.read(gemm.after[name])[:, : outs.width]
                np.testing.assert_array_equal(after, found + before[name][:, : outs.width])


def test_slabs_that_leave_no_room_for_the_next_are_refused():
    with pytest.raises(SramFull, match="next"):
        StreamedGemm(GROQCHIP1, 16, 3200, 6400)


def test_activities_add_up_and_energies_are_linear():
    one = Activity(**dict(zip(EVENTS, range(len(EVENTS)), strict=True)))
    assert one + one + one == one.times(3)
    table = EnergyTable(scale=0.5)
    assert np.isclose(sum(table.parts_j(one).values()), table.dynamic_j(one))
    assert np.isclose(table.dynamic_j(one.times(4)), 4 * table.dynamic_j(one))


def test_a_chip_without_published_power_has_no_table():
    assert energy_table(GROQCHIP1) is energy_table(GROQCHIP1_1000) is GROQCHIP1_ENERGY
    assert energy_table(LP30) is None
    assert GROQCHIP1_ENERGY.system_w + TDP_W == SYSTEM_W
