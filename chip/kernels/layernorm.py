"""LayerNorm of a residual sum: moments over blocks, then over lanes, then one pass that applies.

The mean square minus the squared mean is the variance, in fp32: good while the mean of a token is
not far larger than its spread, as in post-norm encoders.
"""

from chip.kernels.pointwise import both_sides

from chip.kernels.lanes import RUN_LIMIT, reduce_lanes
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, Schedule, run

Pair = tuple[Buffer, Buffer]


def residual_moments(
    plan: Schedule,
    member: int,
    x: Rows,
    ys: list[Rows | None],
    out: Buffer,
    sums: Pair,
    squares: Pair,
    tokens: int,
) -> int:
    """out = x + y, block by block, and the lane-wise sums of it and of its square over blocks.

    `ys` has the first row of each block of y, or None where nothing is added. Sums alternate
    between the two buffers of a pair; returns which of them holds the last.
    """
    for block, y in enumerate(ys):
        chain = Chain(plan.spec, "norm: residual", member)
        source = Rows(x.buffer, x.first + block * tokens)
        if y is None:
            value = chain.vxm("copy", source, loops=run(tokens))
        else:
            value = chain.vxm("add", source, y, loops=run(tokens))
        square = chain.vxm("mul", value, value)
        chain.write(value, Rows(out, block * tokens))
        for first, pair in ((chain.vxm("copy", value), sums), (square, squares)):
            total = chain.vxm("add", first, Rows(pair[1 - block % 2])) if block else first
            chain.write(total, Rows(pair[block % 2]))
        plan.place(chain)
    return (len(ys) - 1) % 2


def lane_mean(
    plan: Schedule, member: int, source: Buffer, width: int, out: Buffer, tokens: int
) -> None:
    """out[token] = sum of the lanes of source[token] / width, in every lane."""
    for start in range(0, tokens, RUN_LIMIT):
        chain = Chain(plan.spec, "norm: mean", member)
        loops = run(min(RUN_LIMIT, tokens - start))
        value = chain.vxm("copy", Rows(source, start), loops=loops)
        total = reduce_lanes(chain, "add", value, "f32")
        chain.write(chain.vxm("mul", total, 1.0 / width), Rows(out, start))
        plan.place(chain)


def spread(
    plan: Schedule,
    member: int,
    mean: Buffer,
    square: Buffer,
    eps: float,
    out: Buffer,
    tokens: int,
) -> None:
    """out[token] = 1 / sqrt(mean square - squared mean + eps)."""
    chain = Chain(plan.spec, "norm: spread", member)
    value: Flow = chain.arrive(Rows(mean), plan.spec.vxm_position, 0, run(tokens))
    variance = chain.vxm("sub", Rows(square), chain.vxm("mul", value, value))
    variance = chain.vxm("max", variance, 0.0)
    chain.write(chain.vxm("rsqrt", chain.vxm("add", variance, eps)), Rows(out))
    plan.place(chain)


def apply_layer_norm(
    plan: Schedule,
    member: int,
    x: Buffer,
    moments: tuple[Buffer, Buffer],
    gamma: Rows,
    beta: Rows,
    shape: tuple[int, int],
    out: Buffer,
    halves: Pair,
) -> None:
    """out = (x - mean) * scale * gamma + beta, also as fp16 on both sides; `shape` blocks, tokens.

    `moments` are the buffers of the mean and of the scale of each token.
    """
    blocks, tokens = shape
    loops: Loops = ((blocks, tokens), (tokens, 1))
    mean, scale = moments
    chain = Chain(plan.spec, "norm: scale", member)
    value = chain.vxm("sub", Rows(x, 0, (tokens, 1)), Rows(mean, 0, (0, 1)), loops=loops)
    value = chain.vxm("mul", value, Rows(scale, 0, (0, 1)))
    value = chain.vxm("mul", value, Rows(gamma.buffer, gamma.first, (1, 0)))
    value = chain.vxm("add", value, Rows(beta.buffer, beta.first, (1, 0)))
    chain.write(value, Rows(out, 0, (tokens, 1)))
    both_sides(chain, value, halves, (tokens, 1))
    plan.place(chain)
