"""fp16 vectors as columns: rows that come from the VXM become what the MXM takes as weights."""

from dataclasses import replace

from chip.kernels.matmul import Pass, matmul
from chip.kernels.work import Work
from chip.program import COLUMN_PAIRS, Region
from chip.schedule import Buffer, Chain, Flow, Rows
from chip.spec import EAST, WEST

IDENTITY = {EAST: "identity.east", WEST: "identity"}  # rows that transpose columns, by side


def write_columns(
    chain: Chain, value: Flow, out: Buffer, word: int = 0, step: int = 0,
    pairs: range = range(COLUMN_PAIRS),
) -> None:  # fmt: skip
    """Write vectors as columns from word `word` on, into slice `pairs` in turn: i into i % 8.

    Outer iterations are `step` words apart.
    """
    region = out.region
    for turn, pair in enumerate(pairs):
        rows = Region(region.index + 2 * pair, region.address, region.words, "f16")
        target = Rows(replace(out, region=rows), word, (step, 1))
        chain.write(value, target, every=len(pairs), phase=turn)


def transpose(
    work: Work, columns: Rows, which: tuple[int, int, int], out: Rows, sides: tuple[int, ...],
    label: str,
) -> None:  # fmt: skip
    """Write a block of 320 columns transposed: `out` holds, per block, `rows` columns.

    `which` is (block of the columns, block of `out`, rows). The MXMs of `sides` do it, for as many
    of the slice pairs each: identity rows stream through the columns, which is exact. The west one
    alone could do it.
    """
    block, to, rows = which
    words, lines = work.spec.lanes // COLUMN_PAIRS, rows // COLUMN_PAIRS
    each = COLUMN_PAIRS // len(sides)
    for first, side in zip(range(0, COLUMN_PAIRS, each), sides, strict=True):
        spare = side == EAST and len(sides) > 1
        identity = Work.cut(work.shared(IDENTITY[side], rows, "f16", side, spare=spare), rows)
        chain, word = work.chain(label), columns.first + block * words
        turns = Rows(identity, first, (COLUMN_PAIRS, 1))
        part = Pass(
            columns.buffer, word, 1, words, turns, each, slot_steps=(0, 0), lines=lines
        )  # fmt: skip
        (flow,) = matmul(chain, side, [part])
        made, pairs = chain.vxm("to_f16", flow), range(first, first + each)
        write_columns(chain, made, out.buffer, out.first + to * lines, 1, pairs)
        work.plan.place(chain)
