"""Soft caps: values bent so that none is beyond a bound."""

from chip.kernels.linear import deliver
from chip.kernels.work import Laid, Work, common_runs, targets
from chip.schedule import Chain, Flow, Loops, Rows


def soft_cap(
    chain: Chain, value: Flow | Rows, cap: float, scale: float, loops: Loops, at: int = 0
) -> Flow:
    """cap * tanh(value * (scale / cap)), begun at cycle `at`."""
    inner = chain.vxm("mul", value, scale / cap, loops=loops, at=at)
    return chain.vxm("mul", chain.vxm("tanh", inner), cap)


def capped(work: Work, x: Laid, cap: float, out: Laid) -> None:
    """out = cap * tanh(x / cap), a run of blocks at a time."""
    tokens, source = work.rows, x.copies[0]
    for first, count in common_runs(source, *out.copies):
        chain = work.chain("soft cap")
        rows = work.rows_of(source, first)
        loops: Loops = ((count, tokens), (tokens, 1))
        value = soft_cap(chain, Rows(rows.buffer, rows.first, (tokens, 1)), cap, 1.0, loops)
        deliver(chain, value, targets(work, out.copies, first))
        work.plan.place(chain)
