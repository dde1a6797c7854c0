"""RMSNorm over a row, over each head of it, or over all heads, and rows as int8 behind it.

The squares of one block are ready just when the sum of the blocks before is, so short runs need no
buffer. With int8 weights the peak of x * gamma is found beside the mean square: the norm's factor
cancels in the rounded rows and only joins their step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chip.kernels.lanes import reduce_groups, reduce_lanes, runs
from chip.kernels.linear import deliver
from chip.kernels.quantise import in_turn, peak_and_rows
from chip.kernels.work import Laid, Part, Steps, Work, common_runs, targets
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

# Rows of fp16 that still want a norm's factor are so much smaller than x * gamma, which may be 2^20
# before they are infinite (it is above 2^12 in SmolLM2) and is exact to 2^-11 down to 2^-10.
HEADROOM = 16
MANY_BLOCKS = 8  # whose squares are sooner added up in turns
FIRST_ONES = "first ones"  # rows of ones, then as many of zeros
Reduce = Callable[[Chain, str, Flow, str], Flow]


@dataclass(frozen=True)
class RmsNorm:
    """What a norm is beside its input: its name, elements that the mean is of, eps.

    With `head_lanes` each head has a mean of its own.
    """

    name: str
    width: int
    eps: float
    head_lanes: int = 0

    def gamma(self, work: Work, blocks: int) -> Buffer:
        """The gains of so many blocks."""
        return work.constant(self.name, blocks, "f32", WEST)

    def scales(self, work: Work, blocks: int) -> Buffer:
        """[block, token], or of heads that are normed together [token]: what rows are scaled by."""
        count = blocks if self.head_lanes else 1
        return work.scratch(f"{self.name}.scale", count, "f32", WEST)


def rms_norm(work: Work, norm: RmsNorm, x: Laid, out: Laid, steps: Steps = ()) -> None:
    """out = x * scale * gamma; with `steps`, what is left to multiply products by.

    Then out is int8 rows, or x * gamma / HEADROOM in fp16: products need not wait for the mean.
    """
    layout, (source, *_) = x.layout, x.copies
    if steps and not work.int8:
        _apply(work, norm, source, 1 / HEADROOM, out)
        width, eps = norm.width * HEADROOM**2, norm.eps / HEADROOM**2
        less = replace(norm, width=width, eps=eps)
        mean_square_scales(work, less, source, layout.blocks, steps)
        return
    if not steps:
        scale = head_scales(work, norm, x) if norm.head_lanes else _factor(work, norm, x)
        _apply(work, norm, source, scale, out)
        return
    top = work.scratch(f"{norm.name}.peak", 1, "f32", EAST)
    peak_and_rows(work, norm.name, source, norm.gamma(work, layout.blocks), (top,), out)
    scale = _scales(work, norm, x)
    chain = work.chain("int8: step")
    step = chain.vxm("mul", Rows(top), Rows(scale), loops=run(work.rows))
    deliver(chain, step, [Rows(target) for target in steps])
    work.plan.place(chain)


def rms_norm_added(work: Work, norm: RmsNorm, x: Laid, residual: Laid, out: Laid) -> None:
    """out = residual + x * scale * gamma."""
    _apply(work, norm, x.copies[0], _factor(work, norm, x), out, residual.copies[0])


def square_sum(work: Work, name: str, x: Laid, out: Laid) -> None:
    """out[token] = the sum of the squares of a token in every lane, of what this rank counts.

    Rows of ones and zeros say which lanes those are: heads that two ranks hold count once.
    """
    counted = work.constant(name, x.layout.blocks, "f32", WEST)
    source, pace = x.copies[0], work.spec.d_func("vxm.alu")
    for start in range(0, work.rows, pace):
        loops = run(min(pace, work.rows - start))
        chain = work.chain("norm: sum of squares")
        total: Flow | None = None
        for block in range(x.layout.blocks):
            rows = work.rows_of(source, block)
            rows = replace(rows, first=rows.first + start)
            value = chain.arrive(rows, work.spec.vxm_position, block * pace, loops)
            mine = chain.vxm("mul", value, Rows(counted, block, (0, 0)))
            value = chain.vxm("copy", value)  # waits for its counted twin
            square = chain.vxm("mul", mine, value)
            total = chain.vxm("copy", square) if total is None else chain.vxm("add", square, total)
        assert total is not None
        total = reduce_groups(chain, "add", total, "f32")
        for copy in out.copies:
            target = work.rows_of(copy, 0)
            chain.write(total, replace(target, first=target.first + start))
        work.plan.place(chain)


def norm_by_sum(work: Work, norm: RmsNorm, x: Laid, total: Laid, out: Laid) -> None:
    """out = x * rsqrt(total / width + eps) * gamma; the total of a token is in every lane."""
    scale = norm.scales(work, x.layout.blocks)
    chain = work.chain("norm: mean square")
    value = chain.vxm("copy", work.rows_of(total.copies[0], 0), loops=run(work.rows))
    _scale(work, chain, value, norm, [Rows(scale)])
    _apply(work, norm, x.copies[0], scale, out)


def _factor(work: Work, norm: RmsNorm, x: Laid) -> Buffer | list[Rows]:
    """The scale of each token, or of a single one of many blocks the sums of its squares.

    With int8 weights it is always the scale: squares are to be added in the order of blocks.
    """
    blocks, many = x.layout.blocks, x.layout.blocks >= MANY_BLOCKS and len(x.copies[0]) == 1
    if work.int8 or work.rows > 1 or not many:
        return _scales(work, norm, x)
    norm.scales(work, blocks)  # is for launches of more rows
    return _squares_in_turn(work, norm, Rows(x.copies[0][0].buffer, x.copies[0][0].row), blocks)


def _squares_in_turn(work: Work, norm: RmsNorm, rows: Rows, blocks: int) -> list[Rows]:
    """Sums of the squares of a token's blocks, of every fourth in turn: so long an ALU takes.

    If there are some more of them, the first four are looked at twice, and those count once.
    """
    chain, turns = work.chain("norm: squares"), work.spec.d_func("vxm.alu")
    left, position = blocks % turns, work.spec.vxm_position
    value = chain.arrive(rows.behind(left), position, turns, run(blocks - left))
    every, total = chain.vxm("mul", value, value), None
    if left:
        ones = Rows(work.shared(FIRST_ONES, 2 * turns - 2, "f32", WEST), turns - 1 - left)
        value = chain.vxm("mul", rows, ones, loops=run(turns))
        total = chain.vxm("mul", value, value)
    for start in range(0, blocks - left, turns):
        square = chain.part(every, run(turns), start)
        total = chain.vxm("add", square, total) if total else chain.vxm("copy", square)
    assert total is not None
    found = in_turn(work, norm.name, chain, reduce_lanes(chain, "add", total, "f32"))
    work.plan.place(chain)
    return found


def _scales(work: Work, norm: RmsNorm, x: Laid) -> Buffer:
    """The scale of each token; with int8 weights the same bits in every lane."""
    scale = norm.scales(work, x.layout.blocks)
    reduce = reduce_groups if work.int8 else reduce_lanes
    mean_square_scales(work, norm, x.copies[0], x.layout.blocks, (scale,), reduce)
    return scale


def mean_square_scales(
    work: Work,
    norm: RmsNorm,
    x: tuple[Part, ...],
    blocks: int,
    out: Steps,
    reduce: Reduce = reduce_lanes,
) -> None:
    """out[token] = rsqrt(mean square of a token's elements + eps) in every lane, fp32."""
    pace = work.spec.d_func("vxm.alu")
    for start in range(0, work.rows, pace):
        loops = run(min(pace, work.rows - start))
        chain = work.chain("norm: mean square")
        total: Flow | None = None
        for block in range(blocks):
            rows = work.rows_of(x, block)
            rows = replace(rows, first=rows.first + start)
            value = chain.arrive(rows, work.spec.vxm_position, block * pace, loops)
            square = chain.vxm("mul", value, value)
            total = chain.vxm("copy", square) if total is None else chain.vxm("add", square, total)
        assert total is not None
        total = reduce(chain, "add", total, "f32")
        _scale(work, chain, total, norm, [Rows(buffer, start) for buffer in out])


def _scale(work: Work, chain: Chain, total: Flow, norm: RmsNorm, out: Sequence[Rows]) -> None:
    mean = chain.vxm("mul", total, 1.0 / norm.width)
    deliver(chain, chain.vxm("rsqrt", chain.vxm("add", mean, norm.eps)), out)
    work.plan.place(chain)


def head_scales(work: Work, norm: RmsNorm, x: Laid) -> Buffer:
    """[block, token]: in the lanes of each head its own scale."""
    out = norm.scales(work, x.layout.blocks)
    for part in x.copies[0]:
        count, first = part.blocks * work.rows, part.first * work.rows
        for start, length in runs(count, "f32"):
            chain = work.chain("norm: mean square")
            rows, loops = Rows(part.buffer, start), run(length)
            value = chain.arrive(rows, work.spec.vxm_position, 0, loops)
            total = chain.vxm("mul", value, value)
            total = reduce_groups(chain, "add", total, "f32", norm.head_lanes)
            _scale(work, chain, total, norm, [Rows(out, first + start)])
    return out


def _apply(
    work: Work, norm: RmsNorm, x: tuple[Part, ...], scale: Buffer | float | list[Rows], out: Laid,
    residual: tuple[Part, ...] = (),
) -> None:  # fmt: skip
    """out = x * scale * gamma, onto the rows of a residual if there are any.

    Of a single token there may be sums of squares, which are to be added up for its scale.
    """
    tokens, gamma = work.rows, norm.gamma(work, out.layout.blocks)
    each = tokens if norm.head_lanes else 0  # rows of scales from one block to the next
    for first, count in common_runs(x, *out.copies, *([residual] if residual else [])):
        loops: Loops = ((count, tokens), (tokens, 1))
        chain = work.chain("norm: scale")
        rows = replace(work.rows_of(x, first), steps=(tokens, 1))
        gains = Rows(gamma, first, (1, 0))
        if isinstance(scale, list):
            value = _by_squares(chain, norm, rows, gains, scale, loops)
        else:
            factor = Rows(scale, first * each, (each, 1)) if isinstance(scale, Buffer) else scale
            value = chain.vxm("mul", chain.vxm("mul", rows, factor, loops=loops), gains)
        if residual:
            before = replace(work.rows_of(residual, first), steps=(tokens, 1))
            value = chain.vxm("add", value, before)
        deliver(chain, value, targets(work, out.copies, first))
        work.plan.place(chain)


def _by_squares(
    chain: Chain, norm: RmsNorm, x: Rows, gains: Rows, squares: list[Rows], loops: Loops
) -> Flow:
    """x * gains * sqrt(width) * rsqrt(sum of squares + width * eps): all but the last is early."""
    pairs = (squares[:2], squares[2:])
    total = chain.vxm("add", *(chain.vxm("add", *pair, loops=loops) for pair in pairs))
    scale = chain.vxm("rsqrt", chain.vxm("add", total, norm.width * norm.eps))
    early = scale.cycle - 2 * chain.spec.d_func("vxm.alu")
    value = chain.vxm("mul", x, norm.width**0.5, loops=loops, at=early)
    return chain.vxm("mul", chain.vxm("mul", value, gains), scale)
