"""Activations as int8: each token's rows are scaled by their largest magnitude and rounded.

step = max|u| / 127 and q = round(u * (127 / max|u|)), to nearest even, so that u is about q * step.
The products of q with int8 weights are exact int32 sums; `rescale` makes them fp32 again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from chip.kernels.lanes import reduce_alike
from chip.kernels.memory import Memory
from chip.kernels.shape import DecoderShape, head_matrices, layer_matrices
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, Schedule, run
from chip.spec import EAST

LEVELS = 127
SMALLEST_PEAK = 2.0**-100  # keeps 127 / peak finite where all is zero


@dataclass(frozen=True)
class Scales:
    """Where the scales of the weights' output channels rest: a row of lanes per output block.

    The rows of a layer's matrices begin at `first`, layers are `rows` apart; those of the LM head
    follow the last of `layers`.
    """

    layers: int
    rows: int
    first: Mapping[str, int]

    def row_of(self, name: str) -> int:
        """First row of a matrix, by its name with its layer, such as `3.gate`, or `head0`."""
        layer, _, matrix = name.rpartition(".")
        return int(layer or self.layers) * self.rows + self.first[matrix]


NO_SCALES = Scales(0, 0, {})


def place_scales(memory: Memory, shape: DecoderShape, depth: int) -> Scales:
    """Make room for the scales of a stage's matrices, as fp32 rows; raises SramFull."""
    first, rows, heads = {}, 0, 0
    for matrix in layer_matrices(shape, depth):
        first[matrix.name] = rows
        rows += matrix.outputs
    for matrix in head_matrices(shape, depth):
        first[matrix.name] = heads
        heads += matrix.outputs
    memory.layer_rows("scales", (EAST, 0, 0), rows, shape.layers, heads)
    return Scales(shape.layers, rows, first)


def peak(
    plan: Schedule,
    member: int,
    source: Buffer,
    gamma: Rows | None,
    blocks: int,
    step: Buffer,
    inverse: Buffer,
) -> None:
    """step[m] = peak / 127 and inverse[m] = 127 / peak of token m in every lane, fp32.

    The peak is the largest |source * gamma| of the token's rows (block, token); like the mean
    square of a norm, it is reduced over blocks as they come.
    """
    tokens, pace = step.region.vectors, plan.spec.d_func("vxm.alu")
    for start in range(0, tokens, pace):
        loops = run(min(pace, tokens - start))
        chain = Chain(plan.spec, "int8: peak", member)
        total: Flow | None = None
        for block in range(blocks):
            rows = Rows(source, block * tokens + start)
            value = chain.arrive(rows, chain.spec.vxm_position, block * pace, loops)
            if gamma is not None:
                value = chain.vxm("mul", value, Rows(gamma.buffer, gamma.first + block, (0, 0)))
            size = chain.vxm("abs", value)
            total = chain.vxm("copy", size) if total is None else chain.vxm("max", size, total)
        assert total is not None
        top = chain.vxm("max", reduce_alike(chain, "max", total, "f32"), SMALLEST_PEAK)
        chain.write(chain.vxm("mul", top, 1.0 / LEVELS), Rows(step, start))
        chain.write(chain.vxm("mul", chain.vxm("recip", top), LEVELS), Rows(inverse, start))
        plan.place(chain)


def rounded(
    plan: Schedule,
    member: int,
    source: Buffer,
    gamma: Rows | None,
    blocks: int,
    inverse: Buffer,
    out: tuple[Buffer, Buffer],
) -> None:
    """out = int8(source * gamma * inverse[token]) for rows (block, token), on both sides."""
    tokens = inverse.region.vectors
    loops: Loops = ((blocks, tokens), (tokens, 1))
    chain = Chain(plan.spec, "int8: round", member)
    value: Flow | Rows = Rows(source, 0, (tokens, 1))
    if gamma is not None:
        weight = Rows(gamma.buffer, gamma.first, (1, 0))
        value = chain.vxm("mul", value, weight, loops=loops)
    value = chain.vxm("mul", value, Rows(inverse, 0, (0, 1)), loops=loops)
    for buffer in out:
        chain.write(chain.vxm("to_i8", value), Rows(buffer, 0, (tokens, 1)))
    plan.place(chain)


def normalised_step(plan: Schedule, member: int, step: Buffer, scale: Buffer, out: Buffer) -> None:
    """out = step * scale: the step of rows that a norm scales, which rounding need not know."""
    chain = Chain(plan.spec, "int8: step", member)
    value = chain.vxm("mul", Rows(step), Rows(scale), loops=run(scale.region.vectors))
    chain.write(value, Rows(out))
    plan.place(chain)


def rescale(chain: Chain, sums: Flow, step: Buffer, columns: Rows) -> Flow:
    """fp32 of int32 sums (output block, token): times the token's step, times `columns`' scales."""
    value = chain.vxm("mul", chain.vxm("to_f32", sums), Rows(step, 0, (0, 1)))
    return chain.vxm("mul", value, columns)
