"""LayerNorm, also of a sum: moments over blocks, then over lanes, then one pass that applies.

The mean square minus the squared mean is the variance, in fp32: good while the mean of a token is
not far larger than its spread, as in post-norm encoders.
"""

from dataclasses import dataclass, replace

from chip.kernels.lanes import RUN_LIMIT, reduce_lanes, runs
from chip.kernels.linear import deliver
from chip.kernels.norm import targets
from chip.kernels.work import Laid, Work
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


def layer_norm(work: Work, norm: LayerNorm, x: Laid | Sum, out: Laid) -> None:
    """out = (x - mean) / sqrt(variance + eps) * weight + bias, in all copies.

    Long runs of tokens go in parts, so that one is applied while the next is reduced.
    """
    for start in range(0, work.rows, RUN_LIMIT):
        tokens = range(start, min(start + RUN_LIMIT, work.rows))
        sums, squares = _moments(work, norm, x, tokens)
        mean = work.scratch(f"{norm.name}.mean", 1, "f32", EAST)
        square = work.scratch(f"{norm.name}.square", 1, "f32", WEST)
        for at, count in runs(work.rows, "f32"):
            if at not in tokens:
                continue
            for source, target, side in ((sums, mean, EAST), (squares, square, WEST)):
                _lane_mean(work, norm, Rows(source, at), Rows(target, at), count, side)
        scale = work.scratch(f"{norm.name}.scale", 1, "f32", WEST)
        _spread(work, norm, mean, square, scale, tokens)
        _apply(work, norm, x.total if isinstance(x, Sum) else x, (mean, scale), out, tokens)


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


def _lane_mean(work: Work, norm: LayerNorm, source: Rows, out: Rows, count: int, side: int) -> None:
    """out[token] = sum of the lanes of source[token] / width, in every lane, of `count` tokens."""
    chain = work.chain("norm: mean")
    value = chain.vxm("copy", source, loops=run(count))
    total = reduce_lanes(chain, "add", value, "f32", side)
    chain.write(chain.vxm("mul", total, 1.0 / norm.width), out)
    work.plan.place(chain)


def _spread(
    work: Work, norm: LayerNorm, mean: Buffer, square: Buffer, out: Buffer, tokens: range
) -> None:
    """out[token] = 1 / sqrt(mean square - squared mean + eps)."""
    chain, first = work.chain("norm: spread"), tokens.start
    value = chain.arrive(Rows(mean, first), work.spec.vxm_position, 0, run(len(tokens)))
    variance = chain.vxm("sub", Rows(square, first), chain.vxm("mul", value, value))
    variance = chain.vxm("max", variance, 0.0)
    scale = chain.vxm("rsqrt", chain.vxm("add", variance, norm.eps))
    chain.write(scale, Rows(out, first))
    work.plan.place(chain)


def _apply(
    work: Work, norm: LayerNorm, x: Laid, moments: tuple[Buffer, Buffer], out: Laid, tokens: range
) -> None:
    """out = (x - mean) * scale * gamma + beta, with the moments (mean, scale)."""
    mean, scale = moments
    gamma = work.constant(norm.name, x.layout.blocks, "f32", WEST)
    beta = work.constant(norm.bias, x.layout.blocks, "f32", EAST)
    every, first = work.rows, tokens.start
    for part in x.copies[0]:
        loops: Loops = ((part.blocks, len(tokens)), (len(tokens), 1))
        chain = work.chain("norm: scale")
        rows = Rows(part.buffer, first, (every, 1))
        value = chain.vxm("sub", rows, Rows(mean, first, (0, 1)), loops=loops)
        value = chain.vxm("mul", value, Rows(scale, first, (0, 1)))
        value = chain.vxm("mul", value, Rows(gamma, part.first, (1, 0)))
        value = chain.vxm("add", value, Rows(beta, part.first, (1, 0)))
        to = targets(work, out.copies, part.first)
        deliver(chain, value, [replace(rows, first=rows.first + first) for rows in to])
        work.plan.place(chain)
