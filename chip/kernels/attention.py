"""Attention over a KV cache in SRAM: scores, softmax and the weighted sum of values.

K rows are the columns of the score product as they stand; V rows are transposed by the MXM.
Rows of scores and probabilities are (block, head, token); lanes are the 320 tokens of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chip.isa import WIDTHS
from chip.kernels.append import append, map_rows
from chip.kernels.columns import IDENTITY, transpose
from chip.kernels.lanes import SHORT_RUN_BYTES, reduce_lanes, runs
from chip.kernels.linear import deliver
from chip.kernels.matmul import Pass, matmul
from chip.kernels.quantise import Rounding
from chip.kernels.soft_cap import soft_cap
from chip.kernels.weighted_values import Powers, weigh
from chip.kernels.window import Window
from chip.kernels.work import Laid, Work
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

ALL = Window()


@dataclass(frozen=True)
class Heads:
    """Query heads of one chip: `kv_of[h]` is the local KV head of head h; sizes in lanes.

    `per_row` KV heads share a row of the caches, `per_pack` query heads a row of the output.
    """

    kv_of: tuple[int, ...]
    kv_heads: int
    head_lanes: int
    lanes: int = 320

    @property
    def per_row(self) -> int:
        return min(self.kv_heads, self.lanes // self.head_lanes)

    @property
    def rows(self) -> int:
        """Cache rows per token."""
        return -(-self.kv_heads // self.per_row)

    @property
    def row_lanes(self) -> int:
        return self.per_row * self.head_lanes

    @property
    def per_pack(self) -> int:
        return min(len(self.kv_of), self.lanes // self.head_lanes)

    @property
    def packs(self) -> int:
        return -(-len(self.kv_of) // self.per_pack)

    def of_row(self, row: int) -> range:
        """Query heads whose KV head is in cache row `row`; heads are in order of KV head."""
        inside = [h for h, kv in enumerate(self.kv_of) if kv // self.per_row == row]
        return range(inside[0], inside[-1] + 1) if inside else range(0)


@dataclass(frozen=True)
class Scores:
    """What becomes of q . K: times `scale`, softly capped at +-`cap`, masked beyond the window.

    `sinks` names rows, one for each head, with a score more in lane 0 and -infinity beside it.
    """

    scale: float
    cap: float | None = None
    window: Window = ALL
    sinks: str = ""


@dataclass(frozen=True)
class Projected:
    """What attention is given: rows of queries, keys and values."""

    q: Laid
    k: Laid
    v: Laid


@dataclass(frozen=True)
class Caches:
    """Columns by cache row, from a word on: K and V as they come, and V transposed.

    `spots` are the blocks of them that a launch reads, in the order of their tokens, and `newest`
    is where the last of them rests in V as it comes; `side` is the array by which V is transposed
    and multiplied.
    """

    keys: tuple[Rows, ...]
    values: tuple[Rows, ...]
    columns: tuple[Rows, ...]
    spots: tuple[int, ...]
    newest: int
    side: int = WEST


def caches_of(work: Work, heads: Heads, window: Window = ALL, slot: int = 0) -> Caches:
    """The caches of a layer and slot, with a spare word each for what is written in vain."""
    kept, values_kept = window.blocks(work.most_blocks), window.value_blocks(work.most_blocks)
    spare = [n * work.spec.lanes + COLUMN_PAIRS for n in (kept, values_kept)]
    newest = (work.blocks - 1) % values_kept
    rows = range(heads.rows)

    def cache(name: str, vectors: int, side: int, one_bank: bool) -> Buffer:
        return work.memory.of_slot(work.cache(name, vectors, side, one_bank), slot)

    keys = tuple(Rows(cache(f"K{row}", spare[0], EAST, True)) for row in rows)
    values = tuple(Rows(cache(f"V{row}", spare[1], WEST, True)) for row in rows)
    spots = window.spots(work.blocks, work.most_blocks)
    if kept > 1 or work.most_slots == 1:
        transposed = kept * heads.row_lanes
        columns = tuple(Rows(cache(f"VT{row}", transposed, WEST, False)) for row in rows)
        return Caches(keys, values, columns, spots, newest)
    # The only block is transposed anew by each launch: its slots take turns at the two arrays.
    (turn, side), each = divmod(slot, 2), -(-work.most_slots // 2) * heads.row_lanes
    both = [[work.columns(f"VT{row}.{n}", each, n) for n in (WEST, EAST)] for row in rows]
    first = turn * heads.row_lanes // COLUMN_PAIRS
    turned = tuple(Rows(pair[side], first) for pair in both)
    return Caches(keys, values, turned, spots, newest, (WEST, EAST)[side])


def attention(
    work: Work, heads: Heads, scores: Scores, x: Projected, out: Laid,
    rounding: Rounding | None = None,
) -> None:  # fmt: skip
    """out = softmax(scores of q . K) V, behind the rows of k and v in the caches.

    q has a row for each head, in the lanes of its KV head; out has heads side by side. Tokens of
    several slots have caches, and cache words, of their own: what reads or writes them goes token
    by token, all else takes the tokens together. V is transposed in the last block, which alone is
    new. The result may be rounded, too.
    """
    caches, most = _appended(work, heads, scores, x), scores.window.blocks(work.most_blocks)
    work = replace(work, blocks=len(caches[0].spots), most_blocks=most)
    count, sinks = len(heads.kv_of), None
    if scores.sinks:
        sinks = work.constant(scores.sinks, count, "f32", EAST)
    short = work.rows == work.blocks == most == 1 and count * WIDTHS["f16"] <= SHORT_RUN_BYTES
    powers = None
    if short and not sinks:
        powers = Powers(*_powers_at_once(work, heads, scores, x.q, caches))
    raw = None if powers else _scores(work, heads, x.q, caches)
    for mine in caches:
        both = len(caches) == 1 and work.memory.offers(IDENTITY[EAST])
        sides = (EAST, WEST) if both else (mine.side,)  # it is farther to the east
        for cache, columns in zip(mine.values, mine.columns, strict=True):
            which = mine.newest, mine.spots[-1], heads.row_lanes
            transpose(work, cache, which, columns, sides, "attention: transpose V")
    if raw:
        kept, last = masked(work, heads, scores, raw, sinks)
        top = row_maximum(work, heads, last)
        more = _sink_powers(work, heads, sinks, top) if sinks else None
        powers = Powers(*exponentials(work, heads, kept, top), more)
    assert powers is not None
    weigh(work, heads, powers, caches, out, rounding)


def _appended(work: Work, heads: Heads, scores: Scores, x: Projected) -> list[Caches]:
    """The caches of each slot, with the rows of k and v in them."""
    caches = [caches_of(work, heads, scores.window, slot) for slot in range(work.slots)]
    every, most = map_rows(work)
    names = list(scores.window.maps_of(work.most_blocks))  # of keys, perhaps others of values
    maps = [
        work.given(name, work.slots * every, most, "u16", side)
        for side, name in zip((EAST, WEST), names, strict=False)
    ]
    for slot, mine in enumerate(caches):
        for row in range(heads.rows):
            for side, source, cache in ((EAST, x.k, mine.keys), (WEST, x.v, mine.values)):
                rows = work.rows_of(source.copies[0], row)
                rows = Rows(rows.buffer, rows.first + slot, (0, int(work.slots < work.rows)))
                own = Rows(maps[min(side, len(maps) - 1)], slot * every)
                append(work, side, rows, own, every, cache[row].buffer)
    return caches


def _scores(work: Work, heads: Heads, q: Laid, caches: Sequence[Caches]) -> Buffer:
    """[block, head, token] = q . K over the 320 tokens of the block, fp32."""
    for slot, mine in enumerate(caches):
        for row in range(heads.rows):
            if heads.of_row(row):
                chain = work.chain("attention: scores")
                _scores_of(chain, work, heads, q, mine, (row, slot))
                work.plan.place(chain)
    return _raw(work, heads)


def _raw(work: Work, heads: Heads) -> Buffer:
    return work.scratch("raw", len(heads.kv_of), "f32", EAST, context=True)


def _scores_of(
    chain: Chain, work: Work, heads: Heads, q: Laid, mine: Caches, at: tuple[int, int]
) -> list[Flow]:
    """Scores of the heads of a cache row, for the tokens of a slot: `at` (row, slot)."""
    (row, slot), out = at, _raw(work, heads)
    inside, cache = heads.of_row(row), mine.keys[row]
    tokens, words = work.rows, work.spec.lanes // COLUMN_PAIRS
    step = work.slots
    rows = work.rows_of(q.copies[0], inside.start)
    activations = Rows(rows.buffer, rows.first + slot, (0, step))
    count = len(inside) * tokens // step
    passes = [
        Pass(cache.buffer, cache.first + spot * words, 1, words, activations, count,
             slot_steps=(0, 0))
        for spot in mine.spots
    ]  # fmt: skip
    flows = matmul(chain, EAST, passes)
    for block, flow in enumerate(flows):
        first = (block * len(heads.kv_of) + inside.start) * tokens + slot
        chain.write(flow, Rows(out, first, (0, step)))
    return flows


def _powers_at_once(
    work: Work, heads: Heads, scores: Scores, q: Laid, caches: Sequence[Caches]
) -> tuple[Buffer, Buffer]:
    """As `exponentials` of what is `masked`, of one token and few rows of one block: by one chain.

    That of scores goes on so, if it can. They are read once more when the maximum is there. Buffers
    of other launches are asked for, too.
    """
    count, raw, begun = len(heads.kv_of), Rows(_raw(work, heads)), 0
    _kept(work, heads), work.scratch("top", count, "f16", EAST)
    chain, loops = work.chain("attention: softmax"), run(count)
    source: Flow | Rows = raw
    every = count * work.spec.abc_interval_fp16 * WIDTHS["f16"]  # bytes a lane as they leave
    if heads.rows == 1 and every <= SHORT_RUN_BYTES:
        (source,) = _scores_of(chain, work, heads, q, caches[0], (0, 0))
        begun = source.cycle + abs(source.position - work.spec.vxm_position)
        loops = source.loops
    else:
        _scores(work, heads, q, caches)
    first = _seen(work, chain, scores, (source, 0), loops)
    top = reduce_lanes(chain, "max", chain.vxm("to_f16", first), "f16")
    top = chain.vxm("to_f32", top)
    again = _seen(work, chain, scores, (raw, 0), loops, begun + top.cycle - first.cycle)
    value = chain.vxm("exp", chain.vxm("sub", again, top))
    p = _powers(work, heads)
    deliver(chain, value, [Rows(buffer) for buffer in p])
    work.plan.place(chain)
    return p


def _seen(
    work: Work, chain: Chain, scores: Scores, block: tuple[Flow | Rows, int], loops: Loops,
    at: int = 0,
) -> Flow:  # fmt: skip
    """Scores (head, token) of a block, perhaps capped, with the mask of its tokens."""
    (source, number), tokens = block, work.rows
    most = work.most_blocks * work.most_rows
    mask = work.given(scores.window.mask, work.blocks * tokens, most, "f32", WEST)
    if scores.cap is None:
        value = chain.vxm("mul", source, scores.scale, loops=loops, at=at)
    else:
        value = soft_cap(chain, source, scores.cap, scores.scale, loops, at)
    return chain.vxm("add", value, Rows(mask, number * tokens, (0, int(tokens > 1))))


def _kept(work: Work, heads: Heads) -> tuple[Buffer, list[Buffer]]:
    """What rests of scores: masked ones, and in turn the largest so far of each lane."""
    count = len(heads.kv_of)
    out = work.scratch("masked", count, "f32", WEST, context=True)
    return out, [work.scratch(f"running{n}", count, "f16", WEST) for n in (0, 1)]


def _powers(work: Work, heads: Heads) -> tuple[Buffer, Buffer]:
    """Powers of all blocks, on both sides of the chip."""
    count = len(heads.kv_of)
    east, west = (work.scratch(f"p{n}", count, "f16", n, context=True) for n in (EAST, WEST))
    return east, west


def masked(
    work: Work, heads: Heads, scores: Scores, raw: Buffer, sinks: Buffer | None = None
) -> tuple[Buffer, Buffer]:
    """raw * scale, perhaps capped, + mask; and its lane-wise fp16 maximum over blocks and sinks."""
    count, tokens = len(heads.kv_of), work.rows
    out, running = _kept(work, heads)
    loops: Loops = ((count, tokens), (tokens, 1))
    for block in range(work.blocks):
        first = block * count * tokens
        chain = work.chain("attention: mask")
        value = _seen(work, chain, scores, (Rows(raw, first, (tokens, 1)), block), loops)
        chain.write(value, Rows(out, first, (tokens, 1)))
        if sinks and not block:
            value = chain.vxm("max", value, Rows(sinks, 0, (1, 0)))
        top = chain.vxm("to_f16", value)
        if block:
            before = Rows(running[1 - block % 2], 0, (tokens, 1))
            top = chain.vxm("max", top, before, dtype="f16")
        chain.write(top, Rows(running[block % 2], 0, (tokens, 1)))
        work.plan.place(chain)
    return out, running[(work.blocks - 1) % 2]


def row_maximum(work: Work, heads: Heads, source: Buffer) -> Buffer:
    """[head, token] = the largest lane of a row, in every lane, fp16."""
    count = len(heads.kv_of) * work.rows
    out = work.scratch("top", len(heads.kv_of), "f16", EAST)
    for number, (start, length) in enumerate(runs(count, "f16")):
        chain = work.chain("attention: maximum")
        value = chain.vxm("copy", Rows(source, start), loops=run(length), dtype="f16")
        top = reduce_lanes(chain, "max", value, "f16", side=number % 2)
        chain.write(top, Rows(out, start))
        work.plan.place(chain)
    return out


def exponentials(work: Work, heads: Heads, kept: Buffer, top: Buffer) -> tuple[Buffer, Buffer]:
    """fp16(exp(kept - top)), on both sides of the chip."""
    count = len(heads.kv_of) * work.rows
    p = _powers(work, heads)
    for block in range(work.blocks):
        chain = work.chain("attention: exp")
        peak = chain.vxm("to_f32", Rows(top), loops=run(count))
        value = chain.vxm("sub", Rows(kept, block * count), peak)
        value = chain.vxm("exp", value)
        deliver(chain, value, [Rows(buffer, block * count) for buffer in p])
        work.plan.place(chain)
    return p


def _sink_powers(work: Work, heads: Heads, sinks: Buffer, top: Buffer) -> Buffer:
    """[head, token] = fp16(exp(sink - top)) in lane 0, zeros beside it."""
    count, tokens = len(heads.kv_of), work.rows
    out, chain = work.scratch("p.sinks", count, "f16", EAST), work.chain("attention: sinks")
    loops: Loops = ((count, tokens), (tokens, 1))
    peak = chain.vxm("to_f32", Rows(top, 0, (tokens, 1)), loops=loops)
    power = chain.vxm("exp", chain.vxm("sub", Rows(sinks, 0, (1, 0)), peak))
    deliver(chain, power, [Rows(out, 0, (tokens, 1))])
    work.plan.place(chain)
    return out
