"""int8 on the chip against NumPy: exact products, on one plane and on two in turn."""

import numpy as np
import pytest

from chip.kernels.lanes import reduce_groups
from chip.kernels.layout import Blocks, blocks
from chip.kernels.matmul import Pass, matmul
from chip.schedule import Chain, Rows, run
from chip.spec import EAST, WEST
from tests.chip.kernel_rig import SIDES, Array, KernelRig, by_block


def int8(*shape: int) -> Array:
    return np.random.default_rng(list(shape)).integers(-128, 128, shape, np.int8)


def tiles(matrix: Array, ins: Blocks, outs: Blocks) -> Array:
    """Columns of a matrix [out, in] in the order in which a run of all output blocks loads."""
    padded = np.zeros((outs.count * outs.width, ins.count * ins.width), matrix.dtype)
    padded[: outs.total, : ins.total] = matrix
    cut = padded.reshape(outs.count, outs.width, ins.count, ins.width)
    return cut.transpose(2, 0, 1, 3).reshape(-1, ins.width)


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("tokens", [1, 5, 32])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", [(64, 96), (320, 320), (576, 1536), (700, 260)])
def test_products_are_exact(side, tokens, shape, planes):
    ins, outs = (blocks(total, "i8") for total in shape)
    x, matrix = int8(tokens, ins.total), int8(outs.total, ins.total)
    rig = KernelRig()
    weights = rig.columns("w", side, tiles(matrix, ins, outs), "i8")
    rows = by_block(x, ins)
    sources = [rig.put(rig.memory.rows(f"x{n}", (side, 2, 0), len(rows), "i8", pair=n), rows)
               for n in range(planes)]  # fmt: skip
    parts = [rig.room(f"y{n}", (side, n, 1), -(-outs.count // planes) * tokens, "i32")
             for n in range(planes)]  # fmt: skip
    words = outs.width // 16
    passes = []
    for i in range(ins.count):
        first, *copy = (Rows(source, i * tokens, (0, 1)) for source in sources)
        word, last = i * outs.count * words, i == ins.count - 1
        passes.append(
            Pass(weights, word, outs.count, words, first, tokens, first=i == 0, last=last,
                 copy=copy[0] if copy else None)
        )  # fmt: skip
    chain = Chain(rig.spec, "matmul")
    flows = matmul(chain, side, passes)
    assert len(flows) == min(planes, outs.count)
    for flow, part in zip(flows, parts, strict=False):
        chain.write(flow, Rows(part, 0, (tokens, 1)))
    rig.plan.place(chain)
    rig.run()
    wanted = by_block(x.astype(np.int64) @ matrix.astype(np.int64).T, outs)
    wanted = wanted.reshape(outs.count, tokens, -1)
    for plane in range(len(flows)):
        mine = wanted[plane::planes].reshape(-1, outs.width)
        found = rig.read(parts[plane])[: len(mine), : outs.width]
        assert found.dtype == np.int32
        assert (found == mine).all()


def test_two_planes_load_while_one_would_wait():
    cycles = []
    for planes in (1, 2):
        rig = KernelRig()
        weights = rig.columns("w", EAST, int8(6 * 320, 320), "i8")
        rows = [rig.put(rig.memory.rows(f"x{n}", (EAST, 2, 0), 38, "i8", pair=n), int8(38, 320))
                for n in (0, 1)]  # fmt: skip
        copy = Rows(rows[1], 0, (0, 1)) if planes > 1 else None
        part = Pass(weights, 0, 6, 20, Rows(rows[0], 0, (0, 1)), 38, copy=copy)
        chain = Chain(rig.spec, "matmul")
        matmul(chain, EAST, [part])
        rig.plan.place(chain)
        rig.run()
        cycles.append(rig.plan.end_cycle)
    assert cycles[0] - cycles[1] == 5 * (39 - 20)


def lane_sums(rows: Array) -> Array:
    rig = KernelRig()
    source = rig.rows("x", (EAST, 0, 0), rows)
    out = rig.room("sum", (WEST, 1, 0), len(rows))
    chain = Chain(rig.spec, "sum", 0, rig.maps)
    value = chain.vxm("copy", Rows(source), loops=run(len(rows)), dtype="f32")
    chain.write(reduce_groups(chain, "add", value, "f32"), Rows(out))
    rig.plan.place(chain)
    rig.run()
    return rig.read(out)


def test_a_sum_has_the_same_bits_in_every_lane_whether_its_run_is_short_or_long():
    rows = np.random.default_rng(3).standard_normal((9, 320), np.float32)
    found = lane_sums(rows)
    assert (found == found[:, :1]).all()
    assert (found[:3] == lane_sums(rows[:3])).all()
    assert np.allclose(found[:, 0], rows.astype(np.float64).sum(axis=1), atol=1e-4)
