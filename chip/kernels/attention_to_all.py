"""Attention of encoders: all rows of a launch see each other, and nothing is kept in caches.

Rows of heads have scratch of their own, so that one's scores are made beside another's softmax.
"""

from dataclasses import dataclass, replace

from chip.kernels.attention import Caches, Heads, Projected, Scores, mix
from chip.kernels.columns import column_rows
from chip.kernels.layout import one_by_one
from chip.kernels.norm import targets
from chip.kernels.work import SCRATCH, Answers, Laid, Part, Request, Work
from chip.schedule import Buffer, Loops, Rows
from chip.spec import EAST, WEST, ChipSpec

HEAD_LANES = "headmask"  # rows with ones in the lanes of a head, one for each head of a row


def attention_to_all(work: Work, heads: Heads, scores: Scores, x: Projected, out: Laid) -> None:
    """out = softmax(scores of q . K) V over the rows of the launch, all of which see each other.

    k and v are columns as they stand, q has the heads of k side by side. Keys that are padding are
    masked by data.
    """
    keys, values = (column_rows(work, value) for value in (x.k, x.v))
    spots = tuple(range(work.blocks))
    for row in range(heads.rows):
        count = len(heads.of_row(row))
        own = replace(heads, kv_of=tuple(range(count)), kv_heads=count)
        mine = replace(work, memory=_OfRow(work.spec, work.memory, row))
        columns = Rows(mine.columns("VT", own.row_lanes, WEST))
        caches = Caches((keys[row],), (values[row],), (columns,), spots, spots[-1])
        selected = _selected(mine, heads, x.q, row)
        mix(mine, own, scores, selected, [caches], targets(mine, out.copies, row))


@dataclass
class _OfRow:
    """Scratch of a row of heads, so that rows are at work beside each other."""

    spec: ChipSpec
    memory: Answers
    row: int

    def take(self, request: Request) -> Buffer:
        """The buffer of a request."""
        if request.role == SCRATCH:
            request = replace(request, name=f"{request.name}.{self.row}")
        return self.memory.take(request)

    def of_slot(self, buffer: Buffer, slot: int) -> Buffer:
        """What another slot has for it."""
        return self.memory.of_slot(buffer, slot)


def _selected(work: Work, heads: Heads, q: Laid, row: int) -> Laid:
    """[head, token] = fp16(q) of the heads of a row, zero outside the lanes of the head."""
    tokens, inside = work.rows, heads.of_row(row)
    own = work.shared(HEAD_LANES, heads.per_row, "f32", WEST)
    out = work.scratch("q.heads", len(inside), "f16", EAST)
    loops: Loops = ((len(inside), tokens), (tokens, 1))
    chain = work.chain("attention: one head")
    rows = replace(work.rows_of(q.copies[0], row), steps=(0, 1))
    value = chain.vxm("mul", rows, Rows(own, 0, (1, 0)), loops=loops)
    chain.write(chain.vxm("to_f16", value), Rows(out, 0, (tokens, 1)))
    work.plan.place(chain)
    columns = [kv % heads.per_row * heads.head_lanes for kv in (heads.kv_of[h] for h in inside)]
    return Laid(one_by_one(columns, heads.head_lanes), ((Part(out, 0, len(inside)),),))
