"""Sums of rows: residual connections."""

from chip.kernels.linear import deliver
from chip.kernels.norm import targets
from chip.kernels.work import Laid, Work
from chip.schedule import Loops, Rows, run


def add(work: Work, x: Laid, y: Laid, out: Laid, label: str = "residual") -> None:
    """out = x + y, part by part of y."""
    (source, *_), (target, *_) = x.copies, out.copies
    for part in y.copies[0]:
        chain, rows = work.chain(label), work.rows_of(source, part.first)
        total = chain.vxm("add", rows, Rows(part.buffer), loops=run(part.blocks * work.rows))
        chain.write(total, work.rows_of(target, part.first))
        work.plan.place(chain)


def cast(work: Work, x: Laid, out: Laid) -> None:
    """out = x, rounded to the type of each copy."""
    (source, *_), tokens = x.copies, work.rows
    for part in source:
        loops: Loops = ((part.blocks, tokens), (tokens, 1))
        chain = work.chain("round")
        value = chain.vxm("copy", Rows(part.buffer, 0, (tokens, 1)), loops=loops)
        deliver(chain, value, targets(work, out.copies, part.first))
        work.plan.place(chain)
