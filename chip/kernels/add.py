"""Sums of rows: residual connections."""

from dataclasses import replace

from chip.kernels.linear import deliver
from chip.kernels.work import Laid, Work, common_runs, targets
from chip.schedule import Loops, Rows, run


def add(
    work: Work, x: Laid, y: Laid, out: Laid, label: str = "residual", singly: bool = False
) -> None:
    """out = x + y, part by part of y; or block by block, `singly`, as those of x are made."""
    (source, *_), (target, *_) = x.copies, out.copies
    for part in y.copies[0]:
        blocks = 1 if singly else part.blocks
        for first in range(0, part.blocks, blocks):
            chain, rows = work.chain(label), work.rows_of(source, part.first + first)
            mine = Rows(part.buffer, part.row + first * work.rows)
            total = chain.vxm("add", rows, mine, loops=run(blocks * work.rows))
            chain.write(total, work.rows_of(target, part.first + first))
            work.plan.place(chain)


def cast(work: Work, x: Laid, out: Laid) -> None:
    """out = x, rounded to the type of each copy."""
    (source, *_), tokens = x.copies, work.rows
    for first, count in common_runs(source, *out.copies):
        loops: Loops = ((count, tokens), (tokens, 1))
        chain = work.chain("round")
        rows = replace(work.rows_of(source, first), steps=(tokens, 1))
        value = chain.vxm("copy", rows, loops=loops)
        deliver(chain, value, targets(work, out.copies, first), out.inverse_of(first))
        work.plan.place(chain)
