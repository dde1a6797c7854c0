"""Attention over a KV cache in SRAM: scores, softmax and the weighted sum of values.

K rows are the columns of the score product as they stand. V rows are transposed by the MXM: the
block of 320 tokens is installed as columns and identity rows stream through it, which is exact.
Rows of scores and probabilities are (block, head, token); lanes are the 320 tokens of a block.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from chip.kernels.lanes import RUN_LIMIT, reduce_lanes
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import Memory
from chip.kernels.pointwise import both_sides
from chip.program import COLUMN_PAIRS, Region
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, Schedule, run, span
from chip.spec import EAST, WEST

SMALLEST_SUM = 2.0**-24  # keeps 1 / sum finite in lanes that belong to no head


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


def append_cache(
    plan: Schedule, member: int, side: int, source: Rows, tokens: int, maps: Buffer, cache: Buffer
) -> None:
    """Scatter fp16 rows into a cache of columns; token t belongs to slice pair t % 8.

    A run of `tokens` consecutive rows is written as it comes. A single token is sent eight times,
    once for each pair, and the address maps send all but one of them to a spare word.
    """
    count = max(tokens, COLUMN_PAIRS)
    loops = run(count)
    spec, region = plan.spec, cache.region
    chain = Chain(spec, "attention: append to cache", member)
    nearest = spec.slice_position(region.index)
    steps = (0, 1 if tokens > 1 else 0)
    data = chain.arrive(Rows(source.buffer, source.first, steps), nearest, 0, loops)
    lanes = chain.arrive(Rows(maps), nearest, 0, loops)
    assert data.need is not None and lanes.need is not None and data.direction == side
    part: Loops = ((1, count), (count // COLUMN_PAIRS, COLUMN_PAIRS))
    width = 2 * COLUMN_PAIRS
    spots = map(spec.slice_position, range(region.index, region.index + width))
    issues = [abs(spot - nearest) + plane // 2 for plane, spot in enumerate(spots)]
    for index, cycle in enumerate(issues, region.index):
        chain.hold(cycle, span(part), "mem.w", index)
        for bank in range(spec.slice_banks):
            chain.hold(cycle, span(part), "bank", index, bank)
    args, names = [region.address, region.words, 0, 0], [lanes.name, data.name]
    needs, spread = {2: (lanes.need, 0)}, (3, data.need)
    chain.add_piece(
        "mem.w", region.index, None, issues, "mem.scatter", args, needs, part, names,
        spread=spread,
    )  # fmt: skip
    whole: Loops = ((1, 1), (region.words, 1))
    chain.touch_all(Rows(cache), whole, min(issues), max(issues) + span(part) - 1)
    plan.place(chain)


def transpose_values(
    plan: Schedule, member: int, cache: Buffer, block: int, identity: Buffer, out: Buffer
) -> None:
    """Write block `block` of V transposed: `out` holds, per block, one column per V lane."""
    rows = identity.region.vectors
    words = plan.spec.lanes // COLUMN_PAIRS
    chain = Chain(plan.spec, "attention: transpose V", member)
    part = Pass(cache, block * words, 1, words, Rows(identity), rows, slot_steps=(0, 0))
    (flow,) = matmul(chain, WEST, [part])
    columns = chain.vxm("to_f16", flow)
    write_columns(chain, columns, out, block * (rows // COLUMN_PAIRS))
    plan.place(chain)


def write_columns(chain: Chain, value: Flow, out: Buffer, word: int = 0) -> None:
    """Write fp16 vectors as columns from word `word` on: vector i into the slice pair i % 8."""
    region = out.region
    for pair in range(COLUMN_PAIRS):
        rows = Region(region.index + 2 * pair, region.address, region.words, "f16")
        target = Rows(Buffer(out.name, rows, out.any_bank), word)
        chain.write(value, target, every=COLUMN_PAIRS, phase=pair)


def scores(
    plan: Schedule,
    member: int,
    heads: Heads,
    tokens: int,
    blocks: int,
    queries: Buffer,
    caches: list[Buffer],
    out: Buffer,
) -> None:
    """out[block, head, token] = q . K over the 320 tokens of the block, fp32."""
    words = plan.spec.lanes // COLUMN_PAIRS
    for row, cache in enumerate(caches):
        inside = heads.of_row(row)
        count = len(inside) * tokens
        if not count:
            continue
        chain = Chain(plan.spec, "attention: scores", member)
        activations = Rows(queries, inside.start * tokens)
        passes = [
            Pass(cache, block * words, 1, words, activations, count, slot_steps=(0, 0))
            for block in range(blocks)
        ]
        for block, flow in enumerate(matmul(chain, EAST, passes)):
            first = (block * len(heads.kv_of) + inside.start) * tokens
            chain.write(flow, Rows(out, first))
        plan.place(chain)


def mask_scores(
    plan: Schedule,
    member: int,
    count: int,
    tokens: int,
    blocks: int,
    raw: Buffer,
    scale: float,
    mask: Buffer,
    out: Buffer,
    running: tuple[Buffer, Buffer],
) -> Buffer:
    """out = raw * scale + mask; the lane-wise fp16 maximum over blocks, in the buffer returned."""
    loops: Loops = ((count, tokens), (tokens, 1))
    for block in range(blocks):
        first = block * count * tokens
        chain = Chain(plan.spec, "attention: mask", member)
        value = chain.vxm("mul", Rows(raw, first, (tokens, 1)), scale, loops=loops)
        value = chain.vxm("add", value, Rows(mask, block * tokens, (0, 1)))
        chain.write(value, Rows(out, first, (tokens, 1)))
        top = chain.vxm("to_f16", value)
        if block:
            before = Rows(running[1 - block % 2], 0, (tokens, 1))
            top = chain.vxm("max", top, before, dtype="f16")
        chain.write(top, Rows(running[block % 2], 0, (tokens, 1)))
        plan.place(chain)
    return running[(blocks - 1) % 2]


def row_maximum(plan: Schedule, member: int, source: Buffer, out: Buffer, count: int) -> None:
    """out[row] = the largest lane of source[row], in every lane, fp16."""
    for start in range(0, count, RUN_LIMIT):
        loops = run(min(RUN_LIMIT, count - start))
        chain = Chain(plan.spec, "attention: maximum", member)
        value = chain.vxm("copy", Rows(source, start), loops=loops, dtype="f16")
        chain.write(reduce_lanes(chain, "max", value, "f16"), Rows(out, start))
        plan.place(chain)


def exponentials(
    plan: Schedule,
    member: int,
    count: int,
    blocks: int,
    masked: Buffer,
    top: Buffer,
    out: tuple[Buffer, Buffer],
) -> None:
    """out = fp16(exp(masked - top)), on both sides of the chip."""
    for block in range(blocks):
        loops = run(count)
        chain = Chain(plan.spec, "attention: exp", member)
        peak = chain.vxm("to_f32", Rows(top), loops=loops)
        value = chain.vxm("sub", Rows(masked, block * count), peak)
        value = chain.vxm("exp", value)
        both_sides(chain, value, out, (0, 1), block * count)
        plan.place(chain)


def normalisers(
    plan: Schedule,
    member: int,
    heads: Heads,
    tokens: int,
    blocks: int,
    weights: Buffer,
    ones: Buffer,
    out: Buffer,
) -> None:
    """out[pack, token] = 1 / sum of probabilities, in the lanes of each head of the pack."""
    for pack in range(heads.packs):
        chain = Chain(plan.spec, "attention: sums", member)
        passes = _pack_passes(heads, pack, tokens, blocks, weights, lambda _h, _b: (ones, 0))
        (flow,) = matmul(chain, EAST, passes)
        total = chain.vxm("max", flow, SMALLEST_SUM)
        chain.write(chain.vxm("recip", total), Rows(out, pack * tokens))
        plan.place(chain)


def weighted_values(
    plan: Schedule,
    member: int,
    heads: Heads,
    tokens: int,
    blocks: int,
    weights: Buffer,
    values: list[Buffer],
    out: Buffer,
) -> None:
    """out[pack, token] = sum over tokens of probability x V, each head in its lanes, fp32."""
    words = heads.head_lanes // COLUMN_PAIRS
    row_words = heads.row_lanes // COLUMN_PAIRS

    def place(head: int, block: int) -> tuple[Buffer, int]:
        row, inside = divmod(heads.kv_of[head], heads.per_row)
        return values[row], block * row_words + inside * words

    for pack in range(heads.packs):
        chain = Chain(plan.spec, "attention: weighted values", member)
        passes = _pack_passes(heads, pack, tokens, blocks, weights, place)
        (flow,) = matmul(chain, WEST, passes)
        chain.write(flow, Rows(out, pack * tokens))
        plan.place(chain)


def _pack_passes(
    heads: Heads,
    pack: int,
    tokens: int,
    blocks: int,
    weights: Buffer,
    place: Callable[[int, int], tuple[Buffer, int]],
) -> list[Pass]:
    """Passes that add up, head by head and block by block, each head in its own columns.

    `place(head, block)` is the buffer and word of the head's columns.
    """
    words = heads.head_lanes // COLUMN_PAIRS
    inside = range(pack * heads.per_pack, min((pack + 1) * heads.per_pack, len(heads.kv_of)))
    steps = [(head, block) for head in inside for block in range(blocks)]
    passes = []
    for number, (head, block) in enumerate(steps):
        source, word = place(head, block)
        passes.append(
            Pass(
                source,
                word,
                1,
                words,
                Rows(weights, (block * len(heads.kv_of) + head) * tokens),
                tokens,
                column=(head - inside.start) * heads.head_lanes,
                first=number == 0,
                last=number == len(steps) - 1,
            )
        )
    return passes


def normalise(
    plan: Schedule, member: int, sums: Buffer, scales: Buffer, out: tuple[Buffer, ...]
) -> None:
    """out = sums * scales: fp16 on both sides of the chip, or fp32."""
    chain = Chain(plan.spec, "attention: normalise", member)
    value = chain.vxm("mul", Rows(sums), Rows(scales), loops=run(scales.region.vectors))
    both_sides(chain, value, out, (0, 1))
    plan.place(chain)


def attend(
    plan: Schedule,
    member: int,
    buffer: Memory,
    layer: int,
    heads: Heads,
    tokens: int,
    blocks: int,
) -> None:
    """Scores, probabilities and their weighted sum of values; V is transposed meanwhile."""
    count = len(heads.kv_of)
    total = count * tokens
    caches = [[buffer[f"{layer}.{n}{r}"] for r in range(heads.rows)] for n in ("K", "V", "VT")]
    scores(plan, member, heads, tokens, blocks, buffer["q16"], caches[0], buffer["raw"])
    for cache, out in zip(caches[1], caches[2], strict=True):
        transpose_values(plan, member, cache, blocks - 1, buffer["identity"], out)
    scale = 1.0 / math.sqrt(heads.head_lanes)
    running = (buffer["running0"], buffer["running1"])
    last = mask_scores(
        plan, member, count, tokens, blocks, buffer["raw"], scale, buffer["mask"],
        buffer["masked"], running,
    )  # fmt: skip
    row_maximum(plan, member, last, buffer["top"], total)
    p = (buffer["p0"], buffer["p1"])
    exponentials(plan, member, total, blocks, buffer["masked"], buffer["top"], p)
    normalisers(plan, member, heads, tokens, blocks, p[0], buffer["ones"], buffer["sums"])
    weighted_values(plan, member, heads, tokens, blocks, p[1], caches[2], buffer["values"])
