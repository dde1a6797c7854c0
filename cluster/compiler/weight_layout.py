"""What a chip's SRAM holds before the first launch: a rank's share of every weight, as it rests.

A weight takes three steps from its file to SRAM, each for one reason: the source gives float32
[out, in] with rotary pairs adjacent (formats differ), `shares.cut` gives a rank's rows and columns
(tensor parallelism), and `columns` brings them into the order in which tiles enter the MXM, padded
with zeros. With int8 weights rows are rounded between the first and the second.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.isa import NUMPY_TYPES
from chip.kernels.attention import Heads
from chip.kernels.attention_to_all import (
    HEAD_LANES,
    ONES,
    SIDE_BY_SIDE,
    SUM_LANES,
    SumLanes,
    by_powers,
    keys_in_lanes,
)
from chip.kernels.columns import IDENTITY
from chip.kernels.experts import COUNTED, Experts
from chip.kernels.grouped_route import NUMBERS, OUT
from chip.kernels.lanes import SUPERLANE
from chip.kernels.linear import Matrix
from chip.kernels.norm import FIRST_ONES
from chip.kernels.ranks import FAR, LANE_NUMBERS, LOWER, NUMBER_COLUMNS, lower_lanes, superlanes
from chip.program import Region, word_columns
from chip.schedule import Buffer
from chip.spec import EAST, WEST
from cluster.compiler.assign import Assigned
from cluster.compiler.fixed_steps import inverses
from cluster.compiler.quantise import fixed_steps
from cluster.compiler.shard import Sharded
from cluster.compiler.stage import Stage
from cluster.model.graph.attention import Attention
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Place
from cluster.model.graph.grouped_route import GroupedRoute
from cluster.model.graph.head_linear import HeadLinear
from cluster.model.graph.int8 import Int8Matrix
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm, NormBySum, SquareSum
from cluster.model.graph.op import Op
from cluster.model.graph.own_experts import OwnExperts
from cluster.model.graph.source import Weights

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


def stage_image(stage: Stage, first: int, weights: Weights) -> Iterator[tuple[int, Region, Array]]:
    """(rank, region, values) of every constant of a stage whose first layer is `first`.

    Each weight is read from its source once.
    """
    shape, counts = stage.shape, dict.fromkeys(stage.shape.kinds, 0)
    if shape.opening is not None:
        yield from _section(stage, shape.opening, "opening.", 0, "opening", weights)
    for number, sharded in enumerate(shape.layers):
        layer, kind = counts[sharded], shape.kinds.index(sharded)
        counts[sharded] += 1
        yield from _section(stage, sharded, stage.prefix(kind), layer, first + number, weights)
    if shape.head is not None:
        yield from _section(stage, shape.head, "head.", 0, "head", weights)
    yield from inverses(stage, first, weights)
    yield from _tables(stage)


def _section(
    stage: Stage, sharded: Sharded, prefix: str, layer: int, place: Place, weights: Weights
) -> Iterator[tuple[int, Region, Array]]:
    """The weights of one layer, or of the head."""
    most = stage.most_rows(sharded)
    ranks = [stage.assigned(sharded, rank, most) for rank in range(stage.members)]
    for op in sharded.section.ops:
        if isinstance(op, ExpertLinear):
            found = _experts(ranks, sharded, op, place, weights)
        elif isinstance(op, Linear | HeadLinear):
            found = _linear(ranks, sharded, op, place, weights)
        else:
            found = _vectors(ranks, sharded, op, place, weights)
        for rank, name, values in found:
            for region, own in stage.memory.at_rest(prefix + name, layer, values):
                yield rank, region, own


def _linear(
    ranks: list[Assigned],
    sharded: Sharded,
    op: Linear | HeadLinear,
    place: Place,
    weights: Weights,
) -> Iterator[tuple[int, str, Array]]:
    """A matrix as columns; its scales and its bias as rows."""
    whole: Array = weights.array(place, op.weight)
    scales, steps = None, fixed_steps(sharded.section, op.x)
    if ranks[0].weights == "i8":
        rounded = Int8Matrix.of(whole if steps is None else whole * weights.array(place, steps))
        whole, scales = rounded.integers.astype(np.int8), rounded.scales
    biased = op.bias if isinstance(op, Linear) else None
    bias = None if biased is None else weights.array(place, biased)
    vectors, channels = {"scale": scales, "bias": bias}, replace(op.weight, inner=())
    for rank, assigned in enumerate(ranks):
        mine = sharded.shares.cut(whole, op.weight, rank)
        shared = assigned.shared_matrices(op)
        for matrix in assigned.all_matrices(op):
            if not matrix.blocks:
                continue
            yield rank, matrix.name, columns(mine, matrix, assigned.spec.lanes)
            if matrix in shared[1:]:
                continue  # what sums of both meet is there once
            for what, vector in vectors.items():
                if vector is not None:
                    own = sharded.shares.cut(vector, channels, rank)
                    if what == "bias" and isinstance(op, Linear) and op.cut_inputs and rank:
                        own = np.zeros_like(own)  # one of the summands has it
                    rows = matrix.outputs.rows(own)[matrix.blocks.start : matrix.blocks.stop]
                    yield rank, f"{matrix.name}.{what}", rows


def _experts(
    ranks: list[Assigned], sharded: Sharded, op: ExpertLinear, place: Place, weights: Weights
) -> Iterator[tuple[int, str, Array]]:
    """Matrices of experts as columns, one after another; their scales as rows."""
    whole: Array = weights.array(place, op.weight)
    scales = None
    if ranks[0].weights == "i8":
        rounded = Int8Matrix.of(whole)
        whole, scales = rounded.integers.astype(np.int8), rounded.scales
    bias = None if op.bias is None else weights.array(place, op.bias)
    vectors, channels = {"scale": scales, "bias": bias}, replace(op.weight, inner=())
    shares = sharded.shares
    for rank, assigned in enumerate(ranks):
        mine, holds_bias = shares.cut(whole, op.weight, rank), shares.holds_bias(rank)
        mine = mine.reshape(op.held, -1, mine.shape[1])
        for one in assigned.matrices(op):
            if not one.blocks:
                continue
            experts = Experts(one, op.held, op.chosen, op.adds)
            found = np.stack([columns(own, one, assigned.spec.lanes) for own in mine])
            if experts.packed > 1:
                found = _side_by_side(found, experts)
                owners = np.arange(found.shape[2], dtype=np.float32) // one.inputs.width
                yield rank, f"{one.name}.owners", owners[None]
            yield rank, one.name, found.reshape(-1, found.shape[2])
            for what, vector in vectors.items():
                if vector is not None:
                    each_own = shares.cut(vector, channels, rank).reshape(op.held, -1)
                    if what == "bias" and op.cut_inputs and not holds_bias:
                        each_own = np.zeros_like(each_own)  # one of the summands has it
                    rows = [one.outputs.rows(own) for own in each_own]
                    some = [own[one.blocks.start : one.blocks.stop] for own in rows]
                    yield rank, f"{one.name}.{what}", np.concatenate(some)


def _side_by_side(found: Array, experts: Experts) -> Array:
    """Columns [tiles, vectors, lanes] of experts [count, vectors, lanes], in lanes of their own."""
    width, each = experts.matrix.inputs.width, experts.packed
    tiles = np.zeros((experts.groups, *found.shape[1:]), found.dtype)
    for number, own in enumerate(found):
        tile, place = divmod(number, each)
        tiles[tile, :, place * width : (place + 1) * width] = own[:, :width]
    return tiles


def _vectors(
    ranks: list[Assigned], sharded: Sharded, op: Op, place: Place, weights: Weights
) -> Iterator[tuple[int, str, Array]]:
    """Norm weights as rows, in the lanes of what they scale; which lanes a rank counts; sinks."""
    if isinstance(op, SquareSum):
        for rank, assigned in enumerate(ranks):
            heads, layout = sharded.shares.part(op.x.dims[0], rank), assigned.layout(op.x)
            mine = np.zeros(len(heads), np.float32)
            mine[sharded.shares.counted(op.x.dims[0], rank)] = 1
            rows = layout.rows(np.repeat(mine, op.x.dims[-1].size))
            yield rank, f"{op.out.name}.counted", rows
    if isinstance(op, OwnExperts):
        for rank, assigned in enumerate(ranks):
            first = sharded.shares.own_experts(op.experts, rank).start
            yield rank, f"{op.out.name}.first", np.full((1, assigned.spec.lanes), first, np.float32)
    if isinstance(op, Attention) and op.sinks is not None:
        sinks = weights.array(place, op.sinks)
        for rank, assigned in enumerate(ranks):
            own = sharded.shares.cut(sinks, op.sinks, rank)
            scores = np.full((len(own), assigned.spec.lanes), -np.inf, np.float32)
            scores[:, 0] = own
            yield rank, op.sinks.name, scores
    if isinstance(op, GroupedRoute):
        yield from _router(ranks, op, weights.array(place, op.bias))
    if not isinstance(op, Norm | NormBySum):
        return
    for weight in op.weights:
        whole = weights.array(place, weight)
        for rank, assigned in enumerate(ranks):
            layout = assigned.layout(op.x)
            mine = sharded.shares.cut(whole, weight, rank)
            if len(weight.out) < len(op.x.dims):  # alike for every head
                mine = np.tile(mine, layout.total // len(mine))
            yield rank, weight.name, layout.rows(mine)


def _router(
    ranks: list[Assigned], op: GroupedRoute, bias: Array
) -> Iterator[tuple[int, str, Array]]:
    """The bias and the number of the expert in each lane, and what is where none is."""
    numbers = np.arange(op.experts, dtype=np.float32)
    for rank, assigned in enumerate(ranks):
        layout = assigned.layout(op.scores)
        inside = layout.rows(np.ones(op.experts)) > 0
        rows = {"": (bias, OUT)}
        if op.kept < op.groups or layout.blocks > 1:
            rows[f".{NUMBERS}"] = (numbers, FAR)
        for what, (values, other) in rows.items():
            found = np.where(inside, layout.rows(values), np.float32(other))
            yield rank, f"{op.bias.name}{what}", found


def columns(matrix: Array, layout: Matrix, lanes: int) -> Array:
    """Columns [vectors, lanes] of a matrix [out, in], in the order in which its tiles load."""
    data = np.zeros((layout.vectors, lanes), NUMPY_TYPES[layout.dtype])
    at, group = 0, word_columns(layout.dtype)
    for tile in layout.tiles:
        columns = slice(tile.inputs.start, tile.inputs.stop)
        lane = slice(tile.lane, tile.lane + len(tile.inputs))
        for mine in tile.outputs:
            rows = matrix[mine.start : mine.stop, columns]
            data[at : at + len(rows), lane][:, : rows.shape[1]] = rows
            at += tile.words * group
    return data


def _tables(stage: Stage) -> Iterator[tuple[int, Region, Array]]:
    """The tile of ones, the identity rows, the lanes of each head, and rows that count."""
    lanes, buffers = stage.spec.lanes, stage.memory.buffers
    for rank in range(stage.members):
        if "ones" in buffers:
            region = buffers["ones"].region
            yield rank, region, np.ones((region.vectors, lanes), np.float16)
        for name in COUNTED:
            if name in buffers:
                region = buffers[name].region
                numbers = np.arange(region.vectors, dtype=np.uint16)
                yield rank, region, np.repeat(numbers[:, None], lanes, axis=1)
        if LANE_NUMBERS in buffers:
            yield rank, buffers[LANE_NUMBERS].region, np.arange(lanes, dtype=np.float32)[None]
        if FIRST_ONES in buffers:
            region = buffers[FIRST_ONES].region
            ones = np.arange(region.vectors) < region.vectors // 2
            yield rank, region, np.repeat(ones[:, None], lanes, axis=1).astype(np.float32)
        if NUMBER_COLUMNS in buffers:
            columns = np.tile(np.arange(lanes, dtype=np.float16), (lanes, 1))
            yield rank, buffers[NUMBER_COLUMNS].region, columns
        for turns in range(1, superlanes(lanes) + 1):
            if (name := LOWER.format(turns)) in buffers:
                yield rank, buffers[name].region, lower_lanes(turns * SUPERLANE)
        for name in IDENTITY.values():
            if name in buffers:
                region = buffers[name].region
                yield rank, region, np.eye(region.vectors, lanes, dtype=np.float16)
        heads = stage.shape.ranks[rank].heads
        if heads is not None:
            for region, values in _side_by_side_tables(buffers, by_powers(heads), lanes):
                yield rank, region, values


def _side_by_side_tables(
    buffers: Mapping[str, Buffer], heads: Heads, lanes: int
) -> Iterator[tuple[Region, Array]]:
    """The lanes of each head, and the tiles of ones of heads side by side."""
    for row, side in product(range(heads.rows), (EAST, WEST)):
        if (name := HEAD_LANES.format(row, side)) in buffers:
            owner = np.arange(lanes) // heads.head_lanes
            mask = owner == np.arange(heads.per_row)[:, None]
            yield buffers[name].region, mask.astype(np.float16)
    for side in (EAST, WEST):
        if (name := SUM_LANES.format(side)) in buffers:
            sums, found = SumLanes.of(heads), np.zeros((1, lanes), np.float32)
            for head in range(heads.per_row):
                found[0, sums.first(head) :][: sums.each] = 1
            yield buffers[name].region, found
    for tokens, side in product((*SIDE_BY_SIDE, lanes), (EAST, WEST)):
        if (name := ONES.format(tokens, side)) in buffers:
            count, each = keys_in_lanes(tokens, heads)
            owner = np.repeat(np.arange(count), SumLanes.of(heads).stride)
            ones = np.arange(lanes) // each == owner[:, None]
            yield buffers[name].region, ones.astype(np.float16)
