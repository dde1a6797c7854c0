"""fp16 vectors as columns: what comes from the VXM as rows becomes what the MXM takes as weights."""

from dataclasses import replace

from chip.kernels.matmul import Pass, matmul
from chip.kernels.work import Work
from chip.program import COLUMN_PAIRS, Region
from chip.schedule import Buffer, Chain, Flow, Rows
from chip.spec import WEST


def write_columns(chain: Chain, value: Flow, out: Buffer, word: int = 0) -> None:
    """Write vectors as columns from word `word` on: vector i into the slice pair i % 8."""
    region = out.region
    for pair in range(COLUMN_PAIRS):
        rows = Region(region.index + 2 * pair, region.address, region.words, "f16")
        target = Rows(replace(out, region=rows), word)
        chain.write(value, target, every=COLUMN_PAIRS, phase=pair)


def write_blocks(chain: Chain, value: Flow, outs: list[Buffer]) -> None:
    """Write blocks (block, token) as columns, each block to a buffer of its own on one side."""
    rounded = chain.vxm("to_f16", value)
    chain.emit(rounded, outs[0].region.index // chain.spec.hemisphere_slices)
    (_, period), inner = rounded.loops
    for number, out in enumerate(outs):
        cycle = rounded.cycle + number * period
        write_columns(chain, replace(rounded, loops=((1, period), inner), cycle=cycle), out)


def transpose(
    work: Work, columns: Buffer, block: int, rows: int, out: Buffer, label: str
) -> None:
    """Write block `block` of 320 columns transposed: `out` holds, per block, `rows` columns.

    The MXM does it: identity rows stream through the columns, which is exact.
    """
    identity = Work.cut(work.shared("identity", rows, "f16", WEST), rows)
    words = work.spec.lanes // COLUMN_PAIRS
    chain = work.chain(label)
    part = Pass(columns, block * words, 1, words, Rows(identity), rows, slot_steps=(0, 0))
    (flow,) = matmul(chain, WEST, [part])
    write_columns(chain, chain.vxm("to_f16", flow), out, block * (rows // COLUMN_PAIRS))
    work.plan.place(chain)
