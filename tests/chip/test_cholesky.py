"""Cholesky blocks against NumPy: the inverse of a factor, a block of L, an update."""

import numpy as np
import pytest

from chip.kernels.cholesky import Elimination, round_rows, solve, update
from chip.schedule import Rows
from chip.spec import EAST, GROQCHIP1, WEST
from tests.chip.kernel_rig import KernelRig, normal

SIZE = 24


@pytest.fixture(scope="module")
def factored():
    """A of two blocks of rows; the first eliminated, the one below solved, the rest updated."""
    noise = normal(2 * SIZE, 2 * SIZE).astype(np.float64)
    a = (noise @ noise.T / SIZE + np.eye(2 * SIZE)).astype(np.float32)
    rig = KernelRig(GROQCHIP1)
    first = Elimination(rig.memory, rig.plan, SIZE)
    rig.put(first.d[0], a[:SIZE, :SIZE])
    for buffer in (first.e[0], first.far_masks, first.near_masks):
        rig.put(buffer, np.eye(SIZE))
    for ones in first.ones.values():
        rig.put(ones, np.ones((8, 320)))
    below = rig.rows("below", (EAST, 1, 1), a[SIZE:, :SIZE])
    half = rig.room("half below", (WEST, 1, 0), SIZE, "f16")
    rows = rig.room("rows", (EAST, 2, 0), SIZE, "f16")
    columns = rig.columns("columns", EAST, np.zeros((SIZE, 320)))
    corner = rig.rows("corner", (WEST, 2, 0), a[SIZE:, SIZE:])
    after = rig.room("after", (WEST, 2, 1), SIZE)
    first.place()
    round_rows(rig.plan, Rows(below), half)
    solve(rig.plan, EAST, Rows(half), first.inverse[EAST], rows, columns)
    update(rig.plan, EAST, rows, columns, (corner, after))
    rig.run()
    found = {side: rig.read_columns(first.inverse[side])[:SIZE, :SIZE] for side in (EAST, WEST)}
    block = rig.read_columns(columns)[:SIZE, :SIZE]
    return a.astype(np.float64), found, block, rig.read(after)[:, :SIZE]


def test_an_elimination_inverts_the_factor(factored):
    a, inverse, _, _ = factored
    expected = np.linalg.inv(np.linalg.cholesky(a[:SIZE, :SIZE]))
    np.testing.assert_array_equal(inverse[EAST], inverse[WEST])
    np.testing.assert_allclose(inverse[EAST], expected, atol=2e-3)


def test_blocks_below_and_to_the_right_are_those_of_the_factor(factored):
    a, _, block, after = factored
    factor = np.linalg.cholesky(a)
    np.testing.assert_allclose(block, factor[SIZE:, :SIZE], atol=4e-3)
    corner = factor[SIZE:, SIZE:]
    np.testing.assert_allclose(after, corner @ corner.T, atol=8e-3)
