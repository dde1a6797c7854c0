"""Latent attention over a cache of one row per token, which all heads share as key and value.

A key is the latent, in blocks of up to 320 lanes, and behind it the lanes that are turned; each is
a cache of columns east, as it comes. The latents of a context block, transposed, are the values,
west. Queries and results have rows for each block of a head by itself: (head, block, token).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from chip.kernels.append import append, map_rows
from chip.kernels.attention import (
    Heads,
    Scores,
    exponentials,
    masked,
    row_maximum,
)  # fmt: skip
from chip.kernels.columns import IDENTITY, transpose
from chip.kernels.layout import Layout
from chip.kernels.linear import deliver
from chip.kernels.matmul import Pass, matmul
from chip.kernels.weighted_values import SMALLEST_SUM
from chip.kernels.work import Laid, Work
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Loops, Rows
from chip.spec import EAST, WEST


@dataclass(frozen=True)
class LatentCaches:
    """Columns: each block of the keys as they come, each block of the latents transposed."""

    keys: tuple[Buffer, ...]
    columns: tuple[Buffer, ...]


def latent_caches(work: Work, latent: Layout) -> LatentCaches:
    """The caches of a layer; each block of the keys has a spare word for what is written in vain.

    The blocks of either are one buffer, as a chain reads all of a key.
    """
    spare = work.most_blocks * work.spec.lanes + COLUMN_PAIRS
    keys = _cache(work, "K", latent.blocks + 1, spare, EAST, True)
    transposed = work.most_blocks * latent.width
    return LatentCaches(keys, _cache(work, "VT", latent.blocks, transposed, WEST, False))


def _cache(
    work: Work, name: str, count: int, vectors: int, side: int, one_bank: bool
) -> tuple[Buffer, ...]:
    """A cache of `count` parts of so many columns, one after the other."""
    whole = work.cache(name, count * vectors, side, one_bank)
    words = vectors // COLUMN_PAIRS
    own = (whole.region.address + part * words for part in range(count))
    parts = (replace(whole.region, address=address, vectors=vectors) for address in own)
    return tuple(replace(whole, region=region) for region in parts)


@dataclass(frozen=True)
class Compressed:
    """What latent attention is given: rows of queries and of what is cached; the turned apart."""

    q: Laid
    q_turned: Laid
    latent: Laid
    k: Laid


def latent_attention(work: Work, heads: Heads, scores: Scores, x: Compressed, out: Laid) -> None:
    """out = softmax(q . latents + q_turned . keys) latents, behind the rows of latent and k."""
    layout = x.latent.layout
    caches = latent_caches(work, layout)
    every, most = map_rows(work)
    maps = work.given(scores.window.maps, every, most, "u16", EAST)
    for block, cache in enumerate(caches.keys):
        source = work.rows_of(x.latent.copies[0], block) if block < layout.blocks else (
            work.rows_of(x.k.copies[0], 0)
        )  # fmt: skip
        source = replace(source, steps=(0, int(work.rows > 1)))
        append(work, EAST, source, Rows(maps), every, cache)
    raw = _scores(work, heads, layout.blocks, x, caches)
    sides = (WEST, EAST) if work.memory.offers(IDENTITY[EAST]) else (WEST,)
    for cache, columns in zip(caches.keys, caches.columns, strict=False):
        label = "latent attention: transpose"
        which = work.blocks - 1, work.blocks - 1, layout.width
        transpose(work, Rows(cache), which, Rows(columns), sides, label)
    kept, last = masked(work, heads, scores, raw)
    p = exponentials(work, heads, kept, row_maximum(work, heads, last))
    sums = _normalisers(work, heads, layout.width, p[0])
    mixed = _mixed(work, heads, layout, p[1], caches)
    count, tokens = len(heads.kv_of), work.rows
    for block in range(layout.blocks):
        chain = work.chain("latent attention: normalise")
        loops: Loops = ((count, tokens), (tokens, 1))
        values = Rows(mixed, block * count * tokens, (tokens, 1))
        value = chain.vxm("mul", values, Rows(sums, 0, (tokens, 1)), loops=loops)
        rows = (work.rows_of(copy, block) for copy in out.copies)
        steps = (layout.blocks * tokens, 1)
        deliver(chain, value, [replace(target, steps=steps) for target in rows])
        work.plan.place(chain)


def _groups(work: Work, heads: Heads) -> Iterator[tuple[int, int]]:
    """(first, count) of heads whose rows fit the accumulators together."""
    count = len(heads.kv_of)
    most = max(1, work.spec.accumulator_depth // work.rows)
    for first in range(0, count, most):
        yield first, min(most, count - first)


def _scores(work: Work, heads: Heads, blocks: int, x: Compressed, caches: LatentCaches) -> Buffer:
    """[block, head, token] = q . latent + q_turned . key over 320 tokens of context, fp32."""
    tokens, count = work.rows, len(heads.kv_of)
    out = work.scratch("raw", count, "f32", EAST, context=True)
    words = work.spec.lanes // COLUMN_PAIRS
    for first, some in _groups(work, heads):
        rows = [work.rows_of(x.q.copies[0], first * blocks + block) for block in range(blocks)]
        rows = [replace(one, steps=(blocks * tokens, 1)) for one in rows]
        rows.append(replace(work.rows_of(x.q_turned.copies[0], first), steps=(tokens, 1)))
        ends = range(len(rows))
        passes = [
            Pass(cache, spot * words, 1, words, activations, tokens, lines=some,
                 slot_steps=(tokens, 1), first=at == 0, last=at == ends[-1])
            for spot in range(work.blocks)
            for at, cache, activations in zip(ends, caches.keys, rows, strict=True)
        ]  # fmt: skip
        chain = work.chain("latent attention: scores")
        for block, flow in enumerate(matmul(chain, EAST, passes)):
            chain.write(flow, Rows(out, (block * count + first) * tokens, (tokens, 1)))
        work.plan.place(chain)
    return out


def _normalisers(work: Work, heads: Heads, lanes: int, weights: Buffer) -> Buffer:
    """[head, token] = 1 / sum of probabilities, in the lanes of a block of latents."""
    ones = work.shared("ones", lanes, "f16", EAST, "columns")
    out = work.scratch("sums", len(heads.kv_of), "f32", EAST)
    for first, some in _groups(work, heads):
        chain = work.chain("latent attention: sums")
        places = [(ones, 0)] * work.blocks
        passes = _passes(work, heads, (first, some), lanes, weights, places)
        (flow,) = matmul(chain, EAST, passes)
        total = chain.vxm("max", flow, SMALLEST_SUM)
        chain.write(chain.vxm("recip", total), Rows(out, first * work.rows))
        work.plan.place(chain)
    return out


def _mixed(
    work: Work, heads: Heads, layout: Layout, weights: Buffer, caches: LatentCaches
) -> Buffer:
    """[block of latents, head, token] = sum over tokens of probability x latent, fp32."""
    count = len(heads.kv_of)
    out = work.scratch("values", layout.blocks * count, "f32", WEST)
    words = layout.width // COLUMN_PAIRS
    for block, columns in enumerate(caches.columns):
        places = [(columns, spot * words) for spot in range(work.blocks)]
        for first, some in _groups(work, heads):
            chain = work.chain("latent attention: weighted latents")
            passes = _passes(work, heads, (first, some), layout.width, weights, places)
            (flow,) = matmul(chain, WEST, passes)
            chain.write(flow, Rows(out, (block * count + first) * work.rows))
            work.plan.place(chain)
    return out


def _passes(
    work: Work, heads: Heads, group: tuple[int, int], lanes: int, weights: Buffer,
    places: list[tuple[Buffer, int]],
) -> list[Pass]:  # fmt: skip
    """Passes of a group's probabilities that add up block by block of the context."""
    first, some = group
    count, ends = len(heads.kv_of), range(len(places))
    return [
        Pass(source, word, 1, lanes // COLUMN_PAIRS,
             Rows(weights, (at * count + first) * work.rows), some * work.rows,
             first=at == 0, last=at == ends[-1])
        for at, (source, word) in zip(ends, places, strict=True)
    ]  # fmt: skip
