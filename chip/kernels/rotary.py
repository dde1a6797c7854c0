"""Rotary embedding: x * cos + partner * sin, for pairs of adjacent lanes.

The host writes the rows of cosines and signed sines of a `table`. The swap of partners stays in a
superlane; the sign is in the sines.
"""

from chip.kernels.lanes import KEEP, SWAP
from chip.kernels.linear import Scaled, deliver
from chip.kernels.norm import RmsNorm
from chip.kernels.work import Laid, Work, targets
from chip.schedule import Chain, Flow, Loops, Rows
from chip.spec import EAST, WEST


def rotary(
    work: Work, x: Laid, table: str, side: int, out: Laid, norm: RmsNorm | None = None
) -> None:
    """Turn rows (block, token) by way of the SXM of `side`.

    With a `norm` of heads rows are x * gamma, and its scales meet them when they have turned.
    """
    tokens, (source, *_) = work.rows, x.copies
    for part in source:
        loops: Loops = ((part.blocks, tokens), (tokens, 1))
        chain, rows = work.chain("rotary"), Rows(part.buffer, 0, (tokens, 1))
        if norm:
            gamma = norm.gamma(work, x.layout.blocks)
            value = chain.vxm("mul", rows, Rows(gamma, part.first, (1, 0)), loops=loops)
        else:
            value = chain.arrive(rows, work.spec.edge_position("sxm", side), 0, loops)
        value = turned(work, table, chain, value, side, 0)
        if norm:
            scales = norm.scales(work, x.layout.blocks)
            value = chain.vxm("mul", value, Rows(scales, part.first * tokens, (tokens, 1)))
        deliver(chain, value, targets(work, out.copies, part.first))
        work.plan.place(chain)


def turned(
    work: Work, table: str, chain: Chain, value: Flow, side: int, token: int,
    scaled: Scaled | None = None,
) -> Flow:  # fmt: skip
    """A flow (block, token) turned as it passes the SXM of `side`; its first token is `token`.

    What comes of it, with the lane map it went by, may be `scaled` before.
    """
    cosine = work.given(f"cos{table}", work.rows, work.most_rows, "f32", WEST)
    sine = work.given(f"sin{table}", work.rows, work.most_rows, "f32", EAST)
    kept, swapped = (chain.sxm("distribute", number, value, side) for number in (KEEP, SWAP))
    if scaled is not None:
        kept, swapped = scaled((kept, swapped), (KEEP, SWAP))
    real = chain.vxm("mul", kept, Rows(cosine, token, (0, 1)))
    imaginary = chain.vxm("mul", swapped, Rows(sine, token, (0, 1)))
    return chain.vxm("add", real, imaginary)
