"""The memory map of a decoder stage but for its weights: what chains hand to each other.

Rows that a chain reads in the same cycles rest in different groups of slices, and what it writes
not in the bank that it reads.
"""

from chip.kernels.allreduce import reserve_parts
from chip.kernels.memory import Memory
from chip.kernels.shape import DecoderShape, halves
from chip.program import COLUMN_PAIRS
from chip.spec import EAST, WEST

SIDES = (EAST, WEST)


def place_activations(memory: Memory, shape: DecoderShape, members: int) -> None:
    """Make room for what passes from chain to chain, outside attention; raises SramFull."""
    rows = memory.rows
    hidden, ffn = (b.count * shape.chunk for b in (shape.hidden, shape.ffn))
    for number in (0, 1):
        rows(f"x{number}", (EAST, 0, number), hidden, "f32")
    rows("scale", (WEST, 1, 0), shape.chunk, "f32")
    for side in SIDES:
        rows(f"xn{side}", (side, 2, 0), hidden, shape.weights)
        rows(f"y{side}", (side, 1, 0), hidden, "f32")
        rows(f"h{side}", (side, 2, 0), ffn, shape.weights)
    if shape.int8:
        rows("h", (WEST, 1, 0), ffn, "f32")
        rows("o", (WEST, 0, 1), shape.heads.packs * shape.chunk, "f32")
        rows("peak", (EAST, 0, 1), shape.chunk, "f32")
        rows("inverse", (EAST, 1, 0), shape.chunk, "f32")
        rows("step", (EAST, 1, 1), shape.chunk, "f32")
    rows("gate0", (EAST, 1, 0), ffn, "f32")
    rows("gate1", (WEST, 0, 1), ffn, "f32")
    rows("up", (WEST, 1, 1), ffn, "f32")
    if members > 1:
        reserve_parts(memory, shape.hidden.count, members, shape.chunk)
    if shape.vocab is not None:
        for side, part in zip(SIDES, halves(shape.vocab.count), strict=True):
            # of int8: not in the bank of the step, which is read while logits are written
            rows(f"logits{side}", (side, 1, 0 if shape.int8 else 1), len(part), "f32")


def place_attention(memory: Memory, shape: DecoderShape) -> None:
    """Make room for attention and its caches; raises SramFull."""
    heads, chunk, rows = shape.heads, shape.chunk, memory.rows
    blocks = shape.context // memory.spec.lanes
    per_head, per_row = len(heads.kv_of) * chunk, heads.rows * chunk
    rows("cos", (WEST, 0, 1), chunk, "f32")
    rows("sin", (EAST, 0, 1), chunk, "f32")
    rows("mask", (WEST, 0, 1), blocks * chunk, "f32")
    rows("maps", (EAST, 2, 1), max(chunk, COLUMN_PAIRS), "u16")
    rows("q", (EAST, 1, 0), per_head, "f32")
    rows("k", (WEST, 1, 1), per_row, "f32")
    rows("q16", (EAST, 2, 0), per_head, "f16", pair=1)
    rows("k16", (EAST, 2, 1), per_row, "f16", pair=1)
    rows("v16", (WEST, 2, 1), per_row, "f16")
    rows("raw", (EAST, 1, 1), blocks * per_head, "f32")
    rows("masked", (WEST, 1, 0), blocks * per_head, "f32")
    for number in (0, 1):
        rows(f"running{number}", (WEST, 2, number), per_head, "f16", pair=1)
    rows("top", (EAST, 2, 1), per_head, "f16", pair=1)
    for side in SIDES:
        rows(f"p{side}", (side, 2, 0), blocks * per_head, "f16")
        rows(f"o{side}", (side, 2, 1), heads.packs * chunk, shape.weights)
    rows("sums", (EAST, 1, 0), heads.packs * chunk, "f32")
    rows("values", (WEST, 1, 1), heads.packs * chunk, "f32")
    spare = shape.context + COLUMN_PAIRS
    transposed = blocks * heads.row_lanes
    for row in range(heads.rows):
        caches = shape.layers * shape.slots
        memory.per_layer(f"K{row}", EAST, spare, caches, one_bank=True)
        memory.per_layer(f"V{row}", WEST, spare, caches, one_bank=True)
        memory.per_layer(f"VT{row}", WEST, transposed, caches, groups=(1,))
    memory.columns("ones", EAST, heads.head_lanes)
    # identity rows stream while V transposed is written: they must not share a bank
    memory.outer_rows("identity", WEST, heads.row_lanes, group=0)
