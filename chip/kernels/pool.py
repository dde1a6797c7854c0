"""One vector of length 1 for a sequence: the mean of the tokens that count."""

from collections.abc import Sequence
from dataclasses import replace

from chip.kernels.columns import transpose, write_columns
from chip.kernels.matmul import Pass, matmul
from chip.kernels.norm import RmsNorm, mean_square_scales
from chip.kernels.work import OUTPUT, Laid, Part, Request, Work
from chip.program import COLUMN_PAIRS
from chip.schedule import Loops, Rows, run
from chip.spec import EAST, WEST

EMBEDDING = "embedding"  # what the host reads: the rows of one token
POOL_INPUTS = {"poolmask": "f16", "poolscale": "f32"}  # rows that it writes


def pool(work: Work, parts: Sequence[tuple[Work, Laid]], eps: float) -> None:
    """`embedding` = mean of x over tokens where poolmask is 1, divided by its length.

    The sum over tokens is a product with poolmask [lanes are tokens], whose columns are x
    transposed; poolscale is 1 / tokens that count. Parts of the tokens have x each.
    """
    layout = parts[0][1].layout
    width, blocks = layout.width, layout.blocks
    one = replace(work, rows=1, most_rows=1)
    mask, share = (work.given(name, 1, 1, dtype, WEST) for name, dtype in POOL_INPUTS.items())
    pooled = one.scratch("pooled", blocks, "f32", EAST)
    for block in range(blocks):
        tokens, turned = (
            work.columns(f"{name}{block}", vectors, WEST)
            for name, vectors in (("X", work.spec.lanes), ("XT", width))
        )
        for part, x in parts:
            chain = part.chain("pool: tokens as columns")
            rows, word = part.rows_of(x.copies[0], block), part.first_row // COLUMN_PAIRS
            write_columns(chain, chain.vxm("to_f16", rows, loops=run(part.rows)), tokens, word)
            part.plan.place(chain)
        transpose(work, Rows(tokens), (0, 0, width), Rows(turned), (WEST,), "pool: transpose")
        chain = work.chain("pool: sum")
        (flow,) = matmul(chain, WEST, [Pass(turned, 0, 1, width // COLUMN_PAIRS, Rows(mask), 1)])
        chain.write(chain.vxm("mul", flow, Rows(share)), Rows(pooled, block))
        work.plan.place(chain)
    length = one.scratch("length", 1, "f32", WEST)
    norm = RmsNorm("length", 1, eps)
    mean_square_scales(one, norm, (Part(pooled, 0, blocks),), blocks, (length,))
    out = work.memory.take(Request(EMBEDDING, blocks, "f32", EAST, OUTPUT))
    loops: Loops = ((1, 1), (blocks, 1))
    chain = work.chain("pool: length 1")
    chain.write(chain.vxm("mul", Rows(pooled), Rows(length, 0, (0, 0)), loops=loops), Rows(out))
    work.plan.place(chain)
