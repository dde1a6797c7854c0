"""LayerNorm, also of a sum: moments over blocks, then over lanes, then one pass that applies.

The mean square minus the squared mean is the variance, in fp32: good while the mean of a token is
not far larger than its spread, as in post-norm encoders.
"""

from dataclasses import dataclass, replace

from chip.kernels.lanes import FEW_BESIDE, RUN_LIMIT, reduce_lanes, rows_to_reduce, runs
from chip.kernels.linear import deliver
from chip.kernels.quantise import Peaks
from chip.kernels.work import Laid, Work, common_runs, targets
from chip.schedule import Buffer, Flow, Loops, Rows, run
from chip.spec import EAST, WEST


@dataclass(frozen=True)
class LayerNorm:
    """What a norm is beside its input: names of weight and bias, elements of a row, eps."""

    name: str
    bias: str
    width: int
    eps: float


@dataclass(frozen=True)
class Sum:
    """x + y, added as moments are taken, and where it is put."""

    x: Laid
    y: Laid
    total: Laid


def layer_norm(
    work: Work, norm: LayerNorm, x: Laid | Sum, out: Laid, peaks: Peaks | None = None
) -> None:
    """out = (x - mean) / sqrt(variance + eps) * weight + bias, in all copies.

    Long runs of tokens go in parts, so that one is applied while the next is reduced. Peaks of the
    result may be noted.
    """
    for start in range(0, work.rows, RUN_LIMIT):
        tokens = range(start, min(start + RUN_LIMIT, work.rows))
        sums, squares = _moments(work, norm, x, tokens)
        mean = work.scratch(f"{norm.name}.mean", 1, "f32", EAST)
        scale = work.scratch(f"{norm.name}.scale", 1, "f32", WEST)
        few = FEW_BESIDE if work.whole else RUN_LIMIT
        for at, count in runs(work.rows, "f32", few):
            if at in tokens:
                ends = (Rows(buffer, at) for buffer in (sums, squares, mean, scale))
                _mean_and_scale(work, norm, count, *ends)
        total = x.total if isinstance(x, Sum) else x
        _apply(work, norm, total, (mean, scale), out, tokens, peaks)


def _moments(work: Work, norm: LayerNorm, x: Laid | Sum, tokens: range) -> tuple[Buffer, Buffer]:
    """Lane-wise sums over blocks of x and of its square; they alternate between two buffers."""
    sums, squares = (
        [work.scratch(f"{norm.name}.{what}{n}", 1, "f32", side) for n in (0, 1)]
        for what, side in (("sum", EAST), ("squares", WEST))
    )

    def rows(value: Laid, block: int) -> Rows:
        found = work.rows_of(value.copies[0], block)
        return replace(found, first=found.first + tokens.start)

    layout = (x.total if isinstance(x, Sum) else x).layout
    for block in range(layout.blocks):
        chain, loops = work.chain("norm: moments"), run(len(tokens))
        if isinstance(x, Sum):
            value = chain.vxm("add", rows(x.x, block), rows(x.y, block), loops=loops)
            chain.write(value, rows(x.total, block))
        else:
            value = chain.vxm("copy", rows(x, block), loops=loops)
        square = chain.vxm("mul", value, value)
        for mine, pair in ((chain.vxm("copy", value), sums), (square, squares)):
            before = Rows(pair[1 - block % 2], tokens.start)
            total: Flow = chain.vxm("add", mine, before) if block else mine
            chain.write(total, Rows(pair[block % 2], tokens.start))
        work.plan.place(chain)
    last = (layout.blocks - 1) % 2
    return sums[last], squares[last]


def _mean_and_scale(
    work: Work, norm: LayerNorm, count: int, sums: Rows, squares: Rows, mean: Rows, scale: Rows
) -> None:
    """mean[token] of `count` tokens, and 1 / sqrt(mean square - squared mean + eps)."""
    squared = work.scratch(f"{norm.name}.squared", 1, "f32", WEST)
    squared_mean, share = Rows(squared, mean.first), 1.0 / norm.width
    chain = work.chain("norm: mean")
    value = rows_to_reduce(chain, sums, count, EAST)
    average = chain.vxm("mul", reduce_lanes(chain, "add", value, "f32", EAST), share)
    chain.write(average, mean)
    chain.write(chain.vxm("mul", average, average), squared_mean)
    work.plan.place(chain)
    chain = work.chain("norm: mean square")
    value = rows_to_reduce(chain, squares, count, WEST)
    square = chain.vxm("mul", reduce_lanes(chain, "add", value, "f32", WEST), share)
    variance = chain.vxm("max", chain.vxm("sub", square, squared_mean), 0.0)
    chain.write(chain.vxm("rsqrt", chain.vxm("add", variance, norm.eps)), scale)
    work.plan.place(chain)


def _apply(
    work: Work,
    norm: LayerNorm,
    x: Laid,
    moments: tuple[Buffer, Buffer],
    out: Laid,
    tokens: range,
    peaks: Peaks | None,
) -> None:
    """out = (x - mean) * scale * gamma + beta, with the moments (mean, scale)."""
    mean, scale = moments
    gamma = work.constant(norm.name, x.layout.blocks, "f32", WEST)
    beta = work.constant(norm.bias, x.layout.blocks, "f32", EAST)
    every, first = work.rows, tokens.start
    one_by_one = [(block, 1) for block in range(x.layout.blocks)]
    for block, count in one_by_one if peaks else common_runs(x.copies[0], *out.copies):
        loops: Loops = ((count, len(tokens)), (len(tokens), 1))
        chain = work.chain("norm: scale")
        rows = work.rows_of(x.copies[0], block)
        rows = replace(rows, first=rows.first + first, steps=(every, 1))
        value = chain.vxm("sub", rows, Rows(mean, first, (0, 1)), loops=loops)
        value = chain.vxm("mul", value, Rows(scale, first, (0, 1)))
        value = chain.vxm("mul", value, Rows(gamma, block, (1, 0)))
        value = chain.vxm("add", value, Rows(beta, block, (1, 0)))
        to = targets(work, out.copies, block)
        to = [replace(rows, first=rows.first + first) for rows in to]
        deliver(chain, value, to, out.inverse_of(block))
        if peaks:
            peaks.note(chain, value, block)
        work.plan.place(chain)
