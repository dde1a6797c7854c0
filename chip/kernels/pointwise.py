"""RMSNorm, residual addition, gated activations, rotary embedding: chains over VXM and SXM."""

from collections.abc import Callable, Sequence
from math import pi, sqrt

from chip.kernels.lanes import KEEP, SWAP, reduce_lanes
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, Schedule, over, run


def rms_scale(
    plan: Schedule,
    member: int,
    x: Buffer,
    blocks: int,
    width: int,
    eps: float,
    out: Buffer,
    reduce: Callable[[Chain, str, Flow, str], Flow] = reduce_lanes,
) -> None:
    """out[m] = rsqrt(mean square of token m + eps) in every lane, fp32.

    `x` holds rows (block, token), zero beyond the `width` elements that count. The squares of one
    block are ready just when the sum of the blocks before is, so short runs need no buffer.
    """
    tokens = out.region.vectors
    pace = plan.spec.d_func("vxm.alu")
    for start in range(0, tokens, pace):
        loops = run(min(pace, tokens - start))
        chain = Chain(plan.spec, "norm: mean square", member)
        total: Flow | None = None
        for block in range(blocks):
            rows = Rows(x, block * tokens + start)
            value = chain.arrive(rows, chain.spec.vxm_position, block * pace, loops)
            square = chain.vxm("mul", value, value)
            total = chain.vxm("copy", square) if total is None else chain.vxm("add", square, total)
        assert total is not None
        mean = chain.vxm("mul", reduce(chain, "add", total, "f32"), 1.0 / width)
        chain.write(chain.vxm("rsqrt", chain.vxm("add", mean, eps)), Rows(out, start))
        plan.place(chain)


def apply_norm(
    plan: Schedule,
    member: int,
    x: Buffer,
    scale: Buffer,
    gamma: Rows,
    blocks: int,
    out: tuple[Buffer, Buffer],
) -> None:
    """out = fp16(x * scale[token] * gamma[block]), on both sides of the chip."""
    tokens = scale.region.vectors
    loops: Loops = ((blocks, tokens), (tokens, 1))
    chain = Chain(plan.spec, "norm: scale", member)
    value = chain.vxm("mul", Rows(x, 0, (tokens, 1)), Rows(scale, 0, (0, 1)), loops=loops)
    value = chain.vxm("mul", value, Rows(gamma.buffer, gamma.first, (1, 0)))
    both_sides(chain, value, out, (tokens, 1))
    plan.place(chain)


def both_sides(
    chain: Chain, value: Flow, out: tuple[Buffer, ...], steps: tuple[int, int], first: int = 0
) -> None:
    """Write fp16(value) to a buffer on each side of the VXM, or fp32 to buffers of that type."""
    for buffer in out:
        wide = buffer.region.dtype == "f32"
        chain.write(value if wide else chain.vxm("to_f16", value), Rows(buffer, first, steps))


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


def gated(
    plan: Schedule,
    member: int,
    gates: tuple[Buffer, Buffer],
    up: Buffer,
    first: int,
    count: int,
    out: tuple[Buffer, ...],
    activation: str,
) -> None:
    """out = g * sigmoid(s) * u over rows `first`.. of fp32 buffers.

    s is g for "silu"; for "gelu", in its tanh form, it is g * (A + B * g * g), as
    (1 + tanh(x)) / 2 = sigmoid(2 x). `gates` are two copies of g, as it is read twice, while one
    port serves one read a cycle.
    """
    loops = run(count)
    chain = Chain(plan.spec, "ffn: SwiGLU" if activation == "silu" else "ffn: GeGLU", member)
    if activation == "silu":
        minus = chain.vxm("mul", Rows(gates[0], first), -1.0, loops=loops)
    else:
        minus = _minus_gelu(chain, chain.vxm("copy", Rows(gates[0], first), loops=loops))
    sigmoid = chain.vxm("recip", chain.vxm("add", chain.vxm("exp", minus), 1.0))
    early = sigmoid.cycle - chain.spec.d_func("vxm.alu")
    product = chain.vxm("mul", Rows(gates[1], first), Rows(up, first), loops=loops, at=early)
    both_sides(chain, chain.vxm("mul", sigmoid, product), out, (0, 1), first)
    plan.place(chain)


def _minus_gelu(chain: Chain, gate: Flow) -> Flow:
    """-g * (A + B * g * g); copies of g wait in ALUs until the bracket is there."""
    root = sqrt(2 / pi)
    bracket = chain.vxm("mul", chain.vxm("mul", gate, gate), -2 * root * 0.044715)
    bracket = chain.vxm("add", bracket, -2 * root)
    for _ in range(3):
        gate = chain.vxm("copy", gate)
    return chain.vxm("mul", gate, bracket)


def rotary(
    plan: Schedule,
    member: int,
    x: Buffer,
    side: int,
    heads: int,
    cosine: Buffer,
    sine: Buffer,
    out: Buffer,
) -> None:
    """out = fp16(x * cos + swap(x) * sin) for rows (head, token) of fp32 `x`, resting on `side`.

    Partners are adjacent lanes, so the swap stays in a superlane; the sign is in the sine rows.
    """
    tokens = cosine.region.vectors
    loops: Loops = ((heads, tokens), (tokens, 1))
    chain = Chain(plan.spec, "rotary", member)
    position = chain.spec.edge_position("sxm", side)
    value = chain.arrive(Rows(x, 0, (tokens, 1)), position, 0, loops)
    kept = chain.sxm("distribute", KEEP, value, side)
    swapped = chain.sxm("distribute", SWAP, value, side)
    real = chain.vxm("mul", kept, Rows(cosine, 0, (0, 1)))
    imaginary = chain.vxm("mul", swapped, Rows(sine, 0, (0, 1)))
    rotated = chain.vxm("to_f16", chain.vxm("add", real, imaginary))
    chain.write(rotated, Rows(out, 0, (tokens, 1)))
    plan.place(chain)
