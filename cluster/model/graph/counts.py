"""What a model weighs and costs, before any chip pads it; `Model` counts its parameters."""

from math import prod

from cluster.model.graph.graph import Model

KV_BYTES = 2  # of an element of keys and values: fp16
VECTOR_BYTES = 4  # norms, biases and the scales of int8 weights rest as fp32
# Of a weight, by what `--weights` is.
MATRIX_BYTES = {"fp16": 2, "int8": 1, "w8a16": 1, "int8-static": 1}


def weight_bytes(model: Model, weights: str = "fp16") -> int:
    """Bytes of all that chips hold; the host keeps the table of embeddings."""
    total = 0
    for section, count in model.distinct:
        for weight in section.weights:
            if weight.inner:
                total += count * prod(weight.shape) * MATRIX_BYTES[weights]
                total += count * weight.shape[0] * VECTOR_BYTES * (weights != "fp16")
            else:
                total += count * prod(weight.shape) * VECTOR_BYTES
    return total


def kv_bytes_per_token(model: Model) -> int:
    """Bytes that a token of context keeps in caches."""
    return KV_BYTES * model.cached_elements


def flops_per_row(model: Model, context: int) -> int:
    """Multiplications and additions of matrix units for a row that looks back at `context`."""
    return 2 * sum(
        count * op.products_per_row(context)
        for section, count in model.distinct
        for op in section.ops
    )
