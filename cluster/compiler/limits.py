"""What the compiler can take of a model: its heads, contexts and types of weights."""

from collections.abc import Iterator
from math import lcm

from chip.kernels.lanes import reducible
from chip.program import word_columns
from chip.spec import ChipSpec
from cluster.errors import BadValue
from cluster.model.graph.attention import Attention
from cluster.model.graph.graph import Model
from cluster.model.graph.latent_attention import ATTENTIONS, LatentAttention
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import Op
from cluster.model.graph.values import SHARDED
from cluster.model.mixture import expert_parts

NODE_CHIPS = 8  # of a fully connected node
CONTEXT_BLOCK = 320  # tokens of a KV block: the lanes of a chip
MOST_TO_ALL = 256  # elements of a head of an encoder: the other lanes have sums
# As the command line names them: the MXM's type, and the integers that activations become.
STATIC = "int8-static"  # with steps of activations that are known before, of encoders
WEIGHT_TYPES = {"fp16": "f16", "int8": "i8", "w8a16": "i8", STATIC: "i8"}
DECODER_TYPES = tuple(name for name in WEIGHT_TYPES if name != STATIC)
ACTIVATION_TYPES = {"int8": "i8", "w8a16": "i16", STATIC: "i8"}


def rows_max(model: Model) -> int:
    """Sequences that can share a decode launch: one where caches hold latents."""
    ops = (op for section in model.layers for op in section.ops)
    return 1 if any(isinstance(op, LatentAttention) for op in ops) else 32


def least_rows(model: Model, batch: int, given: int | None = None) -> tuple[int, ...]:
    """Rows of a decode launch of which one or the other leaves the most room for caches."""
    return (given,) if given else tuple(range(1, min(batch, rows_max(model), 2) + 1))


def check_rows(model: Model, rows: int | None, batch: int, option: str) -> None:
    """Raise BadValue for launches of more rows than there are sequences, or than can share one."""
    most = rows_max(model)
    if rows and rows > batch:
        raise BadValue("--rows-per-launch", rows, f"must be at most {option} {batch}")
    if rows and rows > most:
        raise BadValue("--rows-per-launch", rows, f"must be at most {most} with {model.name}")


def heads_of(model: Model) -> int:
    """Query heads; without attention, blocks of an FFN."""
    sizes = (op.q.dims[0].size for op in ops_of(model) if isinstance(op, ATTENTIONS))
    widest = max(model.size("ffn"), model.size("expert_ffn"))
    return max(sizes, default=max(1, widest // CONTEXT_BLOCK))


def widest_of(model: Model) -> int:
    """Ranks of the widest tensor-parallel group: as many as there are heads.

    Of latent attention, the row of whose cache is whole on each rank, there may be twice as many:
    some of them have a head of zeros, and their shares of all else.
    """
    heads, every = heads_of(model), [*ops_of(model)]
    if not any(isinstance(op, LatentAttention) for op in every):
        return heads
    cut = (d.size for op in every for d in op.out.dims if d.name in SHARDED and d.name != "heads")
    return max(heads, min(2 * heads, *cut))


def said_widest(model: Model) -> str:
    """What the widest group is, in words."""
    more = "twice " * (widest_of(model) > heads_of(model))
    return f"{more}the heads of {model.name}"


def ops_of(model: Model) -> Iterator[Op]:
    """The ops of all layers, of equal layers once."""
    return (op for section in dict.fromkeys(model.layers) for op in section.ops)


def widths_of(model: Model) -> tuple[int, ...]:
    """Chips that a stage may have: equal parts, where experts are spread over several.

    Wider than there are heads are only those of whole nodes.
    """
    ep, heads = expert_parts(model), heads_of(model)
    wide = lcm(ep, NODE_CHIPS)
    beyond = range(heads // wide * wide + wide, widest_of(model) + 1, wide)
    return (*range(ep, heads + 1, ep), *beyond)


def check_context(model: Model, context: int) -> None:
    """Raise BadValue for a context beyond the model's; one block is there in any case."""
    if not 1 <= context <= max(model.context_max, CONTEXT_BLOCK):
        raise BadValue("--context", context, f"must be 1 to {model.context_max} tokens")


def check_heads(model: Model) -> None:
    """Raise BadValue unless heads fill whole words of columns, and fit a row.

    Where tokens look at each other both ways, sums of their powers are in the same row.
    """
    to_all = any(isinstance(op, Attention) and op.takes_sequence for op in ops_of(model))
    most = MOST_TO_ALL if to_all else CONTEXT_BLOCK
    for size in head_sizes(model):
        if size % 8 or size > most:
            raise BadValue("head_dim", size, f"must be a multiple of 8, at most {most}")
    for size in normed_heads(model):
        if not reducible(size):
            raise BadValue("head_dim", size, "has a norm, so its factors must be 2, 3, 5 and 7")


def normed_heads(model: Model) -> set[int]:
    """Elements of heads that have a norm of their own."""
    return {
        op.x.dims[1].size
        for op in ops_of(model)
        if isinstance(op, Norm) and op.over == ("head_dim",)
    }


def head_sizes(model: Model) -> set[int]:
    """Elements of a head."""
    return {op.q.dims[1].size for op in ops_of(model) if isinstance(op, Attention)}


def check_weights(model: Model, spec: ChipSpec, weights: str) -> None:
    """Raise BadValue unless the chip and the model can have weights of that type."""
    if weights not in WEIGHT_TYPES:
        raise BadValue("--weights", weights, f"must be one of {', '.join(WEIGHT_TYPES)}")
    kind = WEIGHT_TYPES[weights]
    if kind not in spec.mxm_types:
        known = ", ".join(name for name, mine in WEIGHT_TYPES.items() if mine in spec.mxm_types)
        raise BadValue("--weights", weights, f"chip {spec.name} multiplies {known or 'neither'}")
    for size in head_sizes(model):
        if size % word_columns(kind):
            rule = f"{weights} needs heads of a multiple of {word_columns(kind)} elements"
            raise BadValue("--weights", weights, f"{rule}, {model.name} has {size}")
    if ACTIVATION_TYPES.get(weights) == "i16" and any(op.takes_sequence for op in ops_of(model)):
        rule = f"is for decoders, {model.name} is an encoder: take fp16 or int8"
        raise BadValue("--weights", weights, rule)
    if weights == STATIC and not any(op.takes_sequence for op in ops_of(model)):
        rule = f"is for encoders, {model.name} is a decoder: take fp16, int8 or w8a16"
        raise BadValue("--weights", weights, rule)
