"""Sums of rows: residual connections on one chip, and the adds of collectives."""

from collections.abc import Sequence

from chip.kernels.linear import deliver
from chip.kernels.norm import targets
from chip.kernels.work import Laid, Work
from chip.schedule import Chain, Loops, Rows, Schedule, over


def add(work: Work, x: Laid, y: Laid, out: Laid, label: str = "residual") -> None:
    """out = x + y, part by part of y."""
    (source, *_), (target, *_) = x.copies, out.copies
    for part in y.copies[0]:
        operands = [work.rows_of(source, part.first), Rows(part.buffer)]
        result = work.rows_of(target, part.first)
        add_rows(work.plan, work.member, operands, result, label, part.blocks * work.rows)


def cast(work: Work, x: Laid, out: Laid) -> None:
    """out = x, rounded to the type of each copy."""
    (source, *_), tokens = x.copies, work.rows
    for part in source:
        loops: Loops = ((part.blocks, tokens), (tokens, 1))
        chain = work.chain("round")
        value = chain.vxm("copy", Rows(part.buffer, 0, (tokens, 1)), loops=loops)
        deliver(chain, value, targets(work, out.copies, part.first))
        work.plan.place(chain)


def add_rows(
    plan: Schedule,
    member: int,
    operands: Sequence[Rows],
    out: Rows,
    label: str,
    count: int,
    outer: int = 1,
) -> None:
    """out = the operands added from left to right, over `outer` times `count` fp32 rows."""
    chain, loops = Chain(plan.spec, label, member), over(count, outer)
    if len(operands) == 1:
        chain.write(chain.vxm("copy", operands[0], loops=loops), out)
        plan.place(chain)
        return
    total = chain.vxm("add", operands[0], operands[1], loops=loops)
    for rows in operands[2:]:
        total = chain.vxm("add", total, rows)
    chain.write(total, out)
    plan.place(chain)
