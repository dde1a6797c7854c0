"""Activations as int8: each token's rows are scaled by their largest magnitude and rounded.

step = max|u| / 127 and q = round(u * (127 / max|u|)), to nearest even, so that u is about q * step.
The products of q with int8 weights are exact int32 sums.
"""

from collections.abc import Sequence
from dataclasses import replace

from chip.kernels.lanes import reduce_lanes
from chip.kernels.linear import deliver
from chip.kernels.work import Laid, Part, Steps, Work
from chip.schedule import Buffer, Flow, Loops, Rows, run
from chip.spec import EAST

LEVELS = 127
SMALLEST_PEAK = 2.0**-100  # keeps 127 / peak finite where all is zero


def quantise(work: Work, name: str, x: Laid, out: Laid, steps: Steps) -> None:
    """out = x as int8 in all copies, and the step of each token."""
    inverse = work.scratch(f"{name}.inverse", 1, "f32", EAST)
    (source, *_) = x.copies
    peak(work, source, None, x.layout.blocks, steps, inverse)
    rounded(work, source, None, x.layout.blocks, inverse, out.copies)


def peak(
    work: Work,
    x: tuple[Part, ...],
    gamma: Buffer | None,
    blocks: int,
    steps: Steps,
    inverse: Buffer,
) -> None:
    """steps[m] = peak / 127 and inverse[m] = 127 / peak of token m in every lane, fp32.

    The peak is the largest |x * gamma| of the token's rows (block, token); like the mean square of
    a norm, it is reduced over blocks as they come.
    """
    pace = work.spec.d_func("vxm.alu")
    for start in range(0, work.rows, pace):
        loops = run(min(pace, work.rows - start))
        chain = work.chain("int8: peak")
        total: Flow | None = None
        for block in range(blocks):
            rows = work.rows_of(x, block)
            rows = replace(rows, first=rows.first + start)
            value = chain.arrive(rows, work.spec.vxm_position, block * pace, loops)
            if gamma is not None:
                value = chain.vxm("mul", value, Rows(gamma, block, (0, 0)))
            size = chain.vxm("abs", value)
            total = chain.vxm("copy", size) if total is None else chain.vxm("max", size, total)
        assert total is not None
        top = chain.vxm("max", reduce_lanes(chain, "max", total, "f32"), SMALLEST_PEAK)
        levels = chain.vxm("mul", top, 1.0 / LEVELS)
        deliver(chain, levels, [Rows(step, start) for step in steps])
        chain.write(chain.vxm("mul", chain.vxm("recip", top), LEVELS), Rows(inverse, start))
        work.plan.place(chain)


def rounded(
    work: Work,
    x: tuple[Part, ...],
    gamma: Buffer | None,
    blocks: int,
    inverse: Buffer,
    copies: Sequence[tuple[Part, ...]],
) -> None:
    """int8(x * gamma * inverse[token]) for rows (block, token), to each copy."""
    tokens = work.rows
    loops: Loops = ((blocks, tokens), (tokens, 1))
    chain = work.chain("int8: round")
    value: Flow | Rows = replace(work.rows_of(x, 0), steps=(tokens, 1))
    if gamma is not None:
        value = chain.vxm("mul", value, Rows(gamma, 0, (1, 0)), loops=loops)
    value = chain.vxm("mul", value, Rows(inverse, 0, (0, 1)), loops=loops)
    for copy in copies:
        chain.write(chain.vxm("to_i8", value), replace(work.rows_of(copy, 0), steps=(tokens, 1)))
    work.plan.place(chain)
