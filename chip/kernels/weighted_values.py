"""The weighted sum of values: powers times V, over their sum.

Probabilities are not made: products with V and sums of powers leave the MXM at the same time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chip.kernels.linear import deliver
from chip.kernels.matmul import Pass, matmul
from chip.kernels.quantise import Rounding
from chip.kernels.work import Laid, Work, targets
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Chain, Flow, Loops, Rows
from chip.spec import EAST, WEST

if TYPE_CHECKING:
    from chip.kernels.attention import Caches, Heads

SMALLEST_SUM = 2.0**-24  # keeps 1 / sum finite in lanes that belong to no head


@dataclass(frozen=True)
class Powers:
    """fp16 rows (block, head, token) of powers, on each side; those of `sinks` are beside them."""

    east: Buffer
    west: Buffer
    sinks: Buffer | None = None


Place = Callable[[int, int], tuple[Buffer, int]]  # of (head, block): the columns that are its


def weigh(
    work: Work, heads: "Heads", powers: Powers, caches: "Sequence[Caches]", out: Laid,
    rounding: Rounding | None,
) -> None:  # fmt: skip
    """out = powers . V / sum of powers, (pack, token): heads of a pack side by side.

    There may be a rounding of what comes of it.
    """
    slots, packs = range(len(caches)), range(heads.packs)
    if len(caches) == 1 and caches[0].side == WEST and powers.sinks is None:
        for pack in packs:
            chain = work.chain("attention: weighted values")
            value = _weighed(chain, work, heads, pack, powers, caches[0])
            deliver(chain, value, targets(work, out.copies, pack))
            if rounding:
                rounding.note(chain, value, pack)
            work.plan.place(chain)
        return
    sums = work.scratch("sums", heads.packs, "f32", EAST)
    values = work.scratch("values", heads.packs, "f32", WEST)
    for pack in packs:
        chain = work.chain("attention: sums")
        chain.write(_inverse(chain, work, heads, pack, powers), Rows(sums, pack * work.rows))
        work.plan.place(chain)
    for slot, mine in zip(slots, caches, strict=True):
        for pack in packs:
            chain = work.chain("attention: weighted values")
            flow = _values(chain, work, heads, (pack, slot), powers, mine)
            chain.write(flow, Rows(values, pack * work.rows + slot))
            work.plan.place(chain)
    chain, steps = work.chain("attention: normalise"), (work.rows, 1)
    loops: Loops = ((heads.packs, work.rows), (work.rows, 1))
    mixed = chain.vxm("mul", Rows(values, 0, steps), Rows(sums, 0, steps), loops=loops)
    deliver(chain, mixed, targets(work, out.copies))
    work.plan.place(chain)
    if rounding:
        rounding.apart()


def _weighed(
    chain: Chain, work: Work, heads: "Heads", pack: int, powers: Powers, mine: "Caches"
) -> Flow:
    """A pack of one slot: both arrays are at work at a time, values wait for the reciprocal."""
    inverse = _inverse(chain, work, heads, pack, powers)
    flow = _values(chain, work, heads, (pack, 0), powers, mine)
    value = chain.wait(chain.vxm("copy", flow), inverse.cycle)
    return chain.vxm("mul", value, inverse)


def _inverse(chain: Chain, work: Work, heads: "Heads", pack: int, powers: Powers) -> Flow:
    """[token] 1 / sum of powers, in the lanes of each head of the pack."""
    ones = work.shared("ones", heads.head_lanes, "f16", EAST, "columns")
    rows = _Weights(powers.east, work.rows, sinks=powers.sinks)
    passes = _pack_passes(work, heads, pack, rows, lambda _h, _b: (ones, 0))
    (flow,) = matmul(chain, EAST, passes)
    return chain.vxm("recip", chain.vxm("max", flow, SMALLEST_SUM))


def _values(
    chain: Chain, work: Work, heads: "Heads", at: tuple[int, int], powers: Powers, mine: "Caches"
) -> Flow:
    """[token] the sum over tokens of power x V, each head in its lanes: `at` (pack, slot)."""
    (pack, slot), words = at, heads.head_lanes // COLUMN_PAIRS
    row_words, count = heads.row_lanes // COLUMN_PAIRS, work.rows // work.slots

    def place(head: int, block: int) -> tuple[Buffer, int]:
        row, inside = divmod(heads.kv_of[head], heads.per_row)
        own = mine.columns[row]
        return own.buffer, own.first + mine.spots[block] * row_words + inside * words

    passes = _pack_passes(work, heads, pack, _Weights(powers.west, count, slot), place)
    (flow,) = matmul(chain, mine.side, passes)
    return flow


@dataclass(frozen=True)
class _Weights:
    """Powers of `count` tokens from the `first` on; `sinks` has rows as of a block more."""

    rows: Buffer
    count: int
    first: int = 0
    sinks: Buffer | None = None


def _pack_passes(
    work: Work, heads: "Heads", pack: int, weights: _Weights, place: Place
) -> list[Pass]:
    """Passes that add up, head by head and block by block, each head in its own columns."""
    words = heads.head_lanes // COLUMN_PAIRS
    inside = range(pack * heads.per_pack, min((pack + 1) * heads.per_pack, len(heads.kv_of)))
    blocks = work.blocks + (weights.sinks is not None)
    steps = [(head, block) for head in inside for block in range(blocks)]
    passes = []
    for number, (head, block) in enumerate(steps):
        source, word = place(head, block)
        rows = Rows(weights.rows, (block * len(heads.kv_of) + head) * work.rows)
        if weights.sinks is not None and block == work.blocks:
            rows = Rows(weights.sinks, head * work.rows)
        passes.append(
            Pass(
                source,
                word,
                1,
                words,
                replace(rows, first=rows.first + weights.first),
                weights.count,
                column=(head - inside.start) * heads.head_lanes,
                first=number == 0,
                last=number == len(steps) - 1,
            )
        )
    return passes
