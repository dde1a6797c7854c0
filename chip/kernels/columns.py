"""fp16 vectors as columns: rows that come from the VXM become what the MXM takes as weights."""

from dataclasses import replace

from chip.kernels.matmul import Pass, matmul
from chip.kernels.work import Work
from chip.program import COLUMN_PAIRS, Region
from chip.schedule import Buffer, Chain, Flow, Rows
from chip.spec import EAST, WEST

IDENTITY = {EAST: "identity.east", WEST: "identity"}  # rows that transpose columns, by side


def write_columns(chain: Chain, value: Flow, out: Buffer, word: int = 0, step: int = 0) -> None:
    """Write vectors as columns from word `word` on: vector i into the slice pair i % 8.

    Outer iterations are `step` words apart.
    """
    region = out.region
    for pair in range(COLUMN_PAIRS):
        rows = Region(region.index + 2 * pair, region.address, region.words, "f16")
        target = Rows(replace(out, region=rows), word, (step, 1))
        chain.write(value, target, every=COLUMN_PAIRS, phase=pair)


def transpose(
    work: Work, columns: Rows, which: tuple[int, int, int], out: Rows, side: int, label: str
) -> None:
    """Write a block of 320 columns transposed: `out` holds, per block, `rows` columns.

    `which` is (block of the columns, block of `out`, rows). The MXM of `side` does it: identity
    rows stream through the columns, which is exact.
    """
    block, to, rows = which
    identity = Work.cut(work.shared(IDENTITY[side], rows, "f16", side), rows)
    words = work.spec.lanes // COLUMN_PAIRS
    chain, word = work.chain(label), columns.first + block * words
    part = Pass(columns.buffer, word, 1, words, Rows(identity), rows, slot_steps=(0, 0))
    (flow,) = matmul(chain, side, [part])
    target = out.first + to * (rows // COLUMN_PAIRS)
    write_columns(chain, chain.vxm("to_f16", flow), out.buffer, target)
    work.plan.place(chain)
