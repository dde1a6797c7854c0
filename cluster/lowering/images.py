"""What a chip's SRAM holds before the first launch: its shares of the weights, as columns."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.isa import NUMPY_TYPES
from cluster.compiler.stage import Stage
from chip.kernels.shape import Blocks, Matrix
from chip.program import Region
from cluster.lowering.quantised import quantised, quantised_layer, scale_rows
from cluster.compiler.stages import Plan, local_kv, share
from cluster.model.spec import LayerWeights, Weights

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


def stage_image(
    plan: Plan, number: int, stage: Stage, weights: Weights
) -> Iterator[tuple[int, Region, Array]]:
    """(rank, region, values) of every constant of a stage; each layer is dequantised once."""
    part, lanes = plan.stages[number], plan.spec.lanes
    norms: list[F32] = []
    scales = [_no_scales(stage, lanes) for _ in range(plan.tp)]
    biases: list[list[F32]] = [[] for _ in range(plan.tp)]
    for index in range(part.layers):
        layer = weights.layer(part.first + index)
        norms += [layer.attn_norm, layer.ffn_norm]
        layer, channels = quantised_layer(layer) if stage.int8 else (layer, None)
        for rank in range(plan.tp):
            biases[rank] += _bias_rows(plan, stage, layer, rank)
            for name, (matrix, blocks_in, blocks_out) in _shares(plan, stage, layer, rank).items():
                key = f"{index}.{name}"
                placed = stage.matrices[key]
                values = columns(matrix, stage.matrix(key, rank), blocks_out, blocks_in, lanes)
                yield rank, placed.buffer.region, values
            if channels is not None:
                _set_scales(plan, stage, index, channels, rank, scales[rank])
    norms.append(weights.final_norm)
    if part.head:
        yield from _head(plan, stage, weights, scales)
    yield from _tables(plan, stage, norms)
    if stage.int8:
        yield from ((rank, stage.memory["scales"].region, rows) for rank, rows in enumerate(scales))
    for rank, rows in enumerate(biases):
        if rows:
            yield rank, stage.memory["bias"].region, np.stack(rows)


def _no_scales(stage: Stage, lanes: int) -> F32:
    """Room for all scales of a chip; none in fp16."""
    rows = stage.memory["scales"].region.vectors if stage.int8 else 0
    return np.zeros((rows, lanes), np.float32)


def _set_scales(
    plan: Plan, stage: Stage, index: int, channels: LayerWeights, rank: int, out: F32
) -> None:
    """Fill in the scales of a layer's matrices, `channels` holding one at each weight."""
    for name, (matrix, _, width) in _shares(plan, stage, channels, rank).items():
        layout, first = (
            stage.matrix(f"{index}.{name}", rank),
            stage.scales.row_of(f"{index}.{name}"),
        )
        rows = scale_rows(matrix[:, 0], layout, width, plan.spec.lanes)
        out[first : first + len(rows)] = rows


def _head(
    plan: Plan, stage: Stage, weights: Weights, scales: list[F32]
) -> Iterator[tuple[int, Region, Array]]:
    shape = stage.shape
    assert shape.vocab is not None
    for rank in range(plan.tp):
        rows = share(plan.model.vocab, plan.tp, rank)
        head: Array = weights.head_rows(rows.start, rows.stop)
        if stage.int8:
            head, channels = quantised(head)
        for side in (0, 1):
            placed = stage.matrices[f"head{side}"]
            if placed.matrix.outputs:
                values = columns(
                    head, placed.matrix, shape.vocab.width, shape.hidden.width, plan.spec.lanes
                )
                if stage.int8:
                    first = stage.scales.row_of(f"head{side}")
                    found = scale_rows(channels, placed.matrix, shape.vocab.width, plan.spec.lanes)
                    scales[rank][first : first + len(found)] = found
                yield rank, placed.buffer.region, values


def _tables(plan: Plan, stage: Stage, norms: list[F32]) -> Iterator[tuple[int, Region, Array]]:
    """Norm weights, the tile of ones and the identity rows."""
    lanes, memory = plan.spec.lanes, stage.memory
    gamma = np.concatenate([lay(norm, stage.shape.hidden, lanes) for norm in norms])
    ones = np.ones((memory["ones"].region.vectors, lanes), np.float16)
    identity = np.eye(memory["identity"].region.vectors, lanes, dtype=np.float16)
    for rank in range(plan.tp):
        for name, values in (("gamma", gamma), ("ones", ones), ("identity", identity)):
            yield rank, memory[name].region, values


def _shares(
    plan: Plan, stage: Stage, layer: LayerWeights, rank: int
) -> dict[str, tuple[F32, int, int]]:
    """name -> (rank's rows and columns of the matrix, lanes per input block, per output block)."""
    model, shape, tp = plan.model, stage.shape, plan.tp
    hidden, ffn, heads = shape.hidden.width, shape.ffn.width, shape.heads
    mine = _elements(share(model.heads, tp, rank), model.head_dim)
    kv = _elements(local_kv(model, tp, rank), model.head_dim)
    inner = share(model.ffn, tp, rank)
    pack = heads.per_pack * heads.head_lanes
    rows = slice(inner.start, inner.stop)
    found = {
        "q": (layer.wq[mine], hidden, heads.head_lanes),
        "k": (layer.wk[kv], hidden, heads.row_lanes),
        "v": (layer.wv[kv], hidden, heads.row_lanes),
        "gate": (layer.w_gate[rows], hidden, ffn),
        "up": (layer.w_up[rows], hidden, ffn),
    }
    for side in (0, 1):
        found[f"o{side}"] = (layer.wo[:, mine], pack, hidden)
        found[f"down{side}"] = (layer.w_down[:, rows], ffn, hidden)
    return {
        name: share_ for name, share_ in found.items() if stage.matrices[f"0.{name}"].matrix.outputs
    }


def _bias_rows(plan: Plan, stage: Stage, layer: LayerWeights, rank: int) -> list[F32]:
    """A row of lanes per query head, per row of keys and per row of values; [] without biases."""
    if layer.q_bias is None or layer.k_bias is None or layer.v_bias is None:
        return []
    model, heads = plan.model, stage.shapes[rank].heads
    rows = np.zeros((stage.shape.bias_rows, plan.spec.lanes), np.float32)
    queries = layer.q_bias.reshape(-1, model.head_dim)
    for row, head in enumerate(share(model.heads, plan.tp, rank)):
        lane = heads.kv_of[row] % heads.per_row * model.head_dim
        rows[row, lane : lane + model.head_dim] = queries[head]
    first = len(heads.kv_of)
    for bias in (layer.k_bias, layer.v_bias):
        mine = bias.reshape(-1, model.head_dim)[local_kv(model, plan.tp, rank)]
        for number, values in enumerate(mine):
            lane = number % heads.per_row * model.head_dim
            row = first + number // heads.per_row
            rows[row, lane : lane + model.head_dim] = values
        first += heads.rows
    return list(rows)


def _elements(heads: range | list[int], head_dim: int) -> npt.NDArray[np.int64]:
    return (np.array(list(heads))[:, None] * head_dim + np.arange(head_dim)).ravel()


def columns(matrix: Array, layout: Matrix, width_out: int, width_in: int, lanes: int) -> Array:
    """Columns [vectors, lanes] of a matrix [out, in], in the order its tiles load."""
    last, dtype = max(start + count for start, count, _ in layout.runs), NUMPY_TYPES[layout.dtype]
    padded = np.zeros((last * width_out, layout.inputs * width_in), dtype)
    rows = min(len(matrix), len(padded))
    padded[:rows, : matrix.shape[1]] = matrix[:rows]
    blocks = padded.reshape(last, width_out, layout.inputs, width_in)
    data = np.zeros((layout.vectors, lanes), dtype)
    at = 0
    for start, count, _ in layout.runs:
        run = blocks[start : start + count].transpose(2, 0, 1, 3).reshape(-1, width_in)
        data[at : at + len(run), :width_in] = run
        at += len(run)
    return data


def lay(vector: F32, blocks: Blocks, lanes: int) -> F32:
    """Elements [total] as block rows [count, lanes], zero beyond them."""
    rows = np.zeros((blocks.count, blocks.width), np.float32)
    rows.reshape(-1)[: len(vector)] = vector
    out = np.zeros((blocks.count, lanes), np.float32)
    out[:, : blocks.width] = rows
    return out
