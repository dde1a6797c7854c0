"""What a chip's SRAM holds of an encoder before the first launch."""

from collections.abc import Iterator

import numpy as np

from chip.kernels.encoder import EncoderStage
from chip.kernels.shape import Blocks, halves
from chip.program import Region
from chip.spec import EAST, WEST
from cluster.lowering.images import Array, columns, lay
from cluster.model.bert import EncoderWeights
from cluster.model.graph.op import F32

NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


def encoder_image(
    stage: EncoderStage, weights: EncoderWeights, first: int
) -> Iterator[tuple[Region, Array]]:
    """(region, values) of every constant of a stage whose first layer is `first`."""
    lanes, shape = stage.spec.lanes, stage.shape
    vectors: dict[str, list[F32]] = {name: [] for name in ("gamma", "beta", "bias0", "bias1")}
    for index in range(shape.layers):
        layer = weights.layer(first + index)
        for name, (matrix, width_in, width_out) in _matrices(stage, layer).items():
            placed = stage.matrices.get(f"{index}.{name}")
            if placed:
                values = columns(matrix, placed.matrix, width_out, width_in, lanes)
                yield placed.buffer.region, values
        for norm in NORMS:
            vectors["gamma"].append(lay(layer[f"{norm}.weight"], shape.hidden, lanes))
            vectors["beta"].append(lay(layer[f"{norm}.bias"], shape.hidden, lanes))
        for side, rows in enumerate(_biases(stage, layer)):
            vectors[f"bias{side}"] += rows
    if shape.first:
        for name, vector in zip(("gamma", "beta"), weights.embedding_norm, strict=True):
            vectors[name].append(lay(vector, shape.hidden, lanes))
    for name, found in vectors.items():
        yield stage.memory[name].region, np.concatenate(found)
    yield from _tables(stage)


def _tables(stage: EncoderStage) -> Iterator[tuple[Region, Array]]:
    """The lanes of each head, the tile of ones and the identity rows."""
    lanes, heads = stage.spec.lanes, stage.shape.heads
    owner = np.arange(lanes) // heads.head_lanes
    mask = owner == np.arange(heads.per_row)[:, None]
    yield stage.memory["headmask"].region, mask.astype(np.float32)
    ones, identity = (stage.memory[name].region for name in ("ones", "identity"))
    yield ones, np.ones((ones.vectors, lanes), np.float16)
    yield identity, np.eye(identity.vectors, lanes, dtype=np.float16)


def _matrices(stage: EncoderStage, layer: dict[str, F32]) -> dict[str, tuple[F32, int, int]]:
    """name -> (matrix, lanes per input block, lanes per output block)."""
    shape = stage.shape
    hidden, ffn, row = shape.hidden.width, shape.ffn.width, shape.heads.row_lanes
    found = {
        name: (layer[f"attention.self.{long}.weight"], hidden, row)
        for name, long in (("q", "query"), ("k", "key"), ("v", "value"))
    }
    for side in (0, 1):
        found[f"o{side}"] = (layer["attention.output.dense.weight"], row, hidden)
        found[f"up{side}"] = (layer["intermediate.dense.weight"], hidden, ffn)
        found[f"down{side}"] = (layer["output.dense.weight"], ffn, hidden)
    return found


def _biases(stage: EncoderStage, layer: dict[str, F32]) -> tuple[list[F32], list[F32]]:
    """Rows of both bias tables for a layer, in the order of `EncoderShape.biases`.

    As probabilities sum to 1, the bias of V passes attention unchanged; it is in that of the
    projection behind it.
    """
    shape, lanes = stage.shape, stage.spec.lanes
    heads = Blocks(shape.hidden.total, shape.heads.rows, shape.heads.row_lanes)
    out = layer["attention.output.dense.bias"].astype(np.float64)
    out += layer["attention.output.dense.weight"] @ layer["attention.self.value.bias"]
    shared = (
        (out.astype(np.float32), shape.hidden),
        (layer["intermediate.dense.bias"], shape.ffn),
        (layer["output.dense.bias"], shape.hidden),
    )
    found: tuple[list[F32], list[F32]] = ([], [])
    for name in ("query", "key"):
        found[WEST].append(lay(layer[f"attention.self.{name}.bias"], heads, lanes))
    for side in (EAST, WEST):
        for vector, cut in shared:
            part = halves(cut.count)[side]
            found[side].append(lay(vector, cut, lanes)[part.start : part.stop])
    return found
