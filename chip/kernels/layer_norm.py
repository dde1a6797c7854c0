"""LayerNorm, also of a sum: moments over blocks, then over lanes, then one pass that applies.

The mean square minus the squared mean is the variance, in fp32: good while the mean of a token is
not far larger than its spread, as in post-norm encoders.
"""

from dataclasses import dataclass

from chip.kernels.lanes import reduce_lanes, runs
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
    """out = (x - mean) / sqrt(variance + eps) * weight + bias, in all copies."""
    sums, squares = _moments(work, norm, x)
    mean = work.scratch(f"{norm.name}.mean", 1, "f32", EAST)
    square = work.scratch(f"{norm.name}.square", 1, "f32", WEST)
    for start, count in runs(work.rows, "f32"):
        for source, target, side in ((sums, mean, EAST), (squares, square, WEST)):
            _lane_mean(work, norm, Rows(source, start), Rows(target, start), count, side)
    scale = work.scratch(f"{norm.name}.scale", 1, "f32", WEST)
    _spread(work, norm, mean, square, scale)
    _apply(work, norm, x.total if isinstance(x, Sum) else x, mean, scale, out)


def _moments(work: Work, norm: LayerNorm, x: Laid | Sum) -> tuple[Buffer, Buffer]:
    """Lane-wise sums over blocks of x and of its square; they alternate between two buffers."""
    sums, squares = (
        [work.scratch(f"{norm.name}.{what}{n}", 1, "f32", side) for n in (0, 1)]
        for what, side in (("sum", EAST), ("squares", WEST))
    )
    layout = (x.total if isinstance(x, Sum) else x).layout
    for block in range(layout.blocks):
        chain, loops = work.chain("norm: moments"), run(work.rows)
        if isinstance(x, Sum):
            first, second = (work.rows_of(value.copies[0], block) for value in (x.x, x.y))
            value = chain.vxm("add", first, second, loops=loops)
            chain.write(value, work.rows_of(x.total.copies[0], block))
        else:
            value = chain.vxm("copy", work.rows_of(x.copies[0], block), loops=loops)
        square = chain.vxm("mul", value, value)
        for mine, pair in ((chain.vxm("copy", value), sums), (square, squares)):
            total: Flow = chain.vxm("add", mine, Rows(pair[1 - block % 2])) if block else mine
            chain.write(total, Rows(pair[block % 2]))
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


def _spread(work: Work, norm: LayerNorm, mean: Buffer, square: Buffer, out: Buffer) -> None:
    """out[token] = 1 / sqrt(mean square - squared mean + eps)."""
    chain = work.chain("norm: spread")
    value = chain.arrive(Rows(mean), work.spec.vxm_position, 0, run(work.rows))
    variance = chain.vxm("sub", Rows(square), chain.vxm("mul", value, value))
    variance = chain.vxm("max", variance, 0.0)
    chain.write(chain.vxm("rsqrt", chain.vxm("add", variance, norm.eps)), Rows(out))
    work.plan.place(chain)


def _apply(work: Work, norm: LayerNorm, x: Laid, mean: Buffer, scale: Buffer, out: Laid) -> None:
    """out = (x - mean) * scale * gamma + beta."""
    gamma = work.constant(norm.name, x.layout.blocks, "f32", WEST)
    beta = work.constant(norm.bias, x.layout.blocks, "f32", EAST)
    tokens = work.rows
    for part in x.copies[0]:
        loops: Loops = ((part.blocks, tokens), (tokens, 1))
        chain = work.chain("norm: scale")
        rows = Rows(part.buffer, 0, (tokens, 1))
        value = chain.vxm("sub", rows, Rows(mean, 0, (0, 1)), loops=loops)
        value = chain.vxm("mul", value, Rows(scale, 0, (0, 1)))
        value = chain.vxm("mul", value, Rows(gamma, part.first, (1, 0)))
        value = chain.vxm("add", value, Rows(beta, part.first, (1, 0)))
        deliver(chain, value, targets(work, out.copies, part.first))
        work.plan.place(chain)
