"""Cutting a decoder into pipeline stages and tensor-parallel shares."""

import math
from dataclasses import dataclass, replace

from chip.kernels.attention import Heads
from chip.kernels.decoder import Stage
from chip.kernels.memory import SramFull
from chip.kernels.shape import DecoderShape, blocks
from chip.program import word_columns
from chip.spec import ChipSpec
from cluster.errors import BadValue, DoesNotFit
from cluster.model.spec import ModelSpec

CONTEXT_BLOCK = 320  # tokens of a KV block: the lanes of a chip
PREFILL_TOKENS = 32  # tokens of a prefill launch
WEIGHT_TYPES = {"fp16": "f16", "int8": "i8"}  # as the command line names them: the MXM's type


@dataclass(frozen=True)
class StagePlan:
    """Layers `first`..`first + layers` on `tp` chips; the last stage also holds the LM head."""

    first: int
    layers: int
    head: bool
    sram_bytes: int


@dataclass(frozen=True)
class Plan:
    """pp x tp chips and what each holds; `context` tokens is a multiple of 320.

    `weights` are "fp16", or "int8" with activations made int8 for each token (W8A8).
    """

    model: ModelSpec
    spec: ChipSpec
    tp: int
    context: int
    chunk: int
    stages: tuple[StagePlan, ...]
    weights: str = "fp16"

    @property
    def pp(self) -> int:
        return len(self.stages)

    @property
    def chips(self) -> int:
        return self.pp * self.tp

    @property
    def sram_bytes_max(self) -> int:
        return max(stage.sram_bytes for stage in self.stages)

    def stage(self, number: int) -> Stage:
        """Memory map and kernels of one stage."""
        part = self.stages[number]
        return Stage(self.spec, _shapes(self, part.layers, part.head))


def share(total: int, tp: int, rank: int) -> range:
    """Rank's part of `total` items, cut as evenly as possible."""
    base, extra = divmod(total, tp)
    start = rank * base + min(rank, extra)
    return range(start, start + base + (rank < extra))


def local_kv(model: ModelSpec, tp: int, rank: int) -> list[int]:
    """KV heads that the query heads of a rank use, in order; replicated where ranks share one."""
    group = model.heads // model.kv_heads
    return sorted({head // group for head in share(model.heads, tp, rank)})


def local_heads(model: ModelSpec, tp: int, rank: int) -> tuple[int, ...]:
    """The local KV head of each query head of a rank.

    Ranks with one head less than others have a head of zeros, which adds nothing.
    """
    group, local = model.heads // model.kv_heads, local_kv(model, tp, rank)
    mine = [local.index(head // group) for head in share(model.heads, tp, rank)]
    most = len(share(model.heads, tp, 0))
    return tuple(mine + mine[-1:] * (most - len(mine)))


def partition(
    model: ModelSpec,
    spec: ChipSpec,
    tp: int,
    pp: int,
    context: int = CONTEXT_BLOCK,
    weights: str = "fp16",
) -> Plan:
    """Split a model over pp x tp chips; raises BadValue or DoesNotFit with what would fit."""
    _check(model, tp, pp, context)
    _check_weights(model, spec, weights)
    padded = -(-context // CONTEXT_BLOCK) * CONTEXT_BLOCK
    plan = Plan(model, spec, tp, padded, PREFILL_TOKENS, (), weights)
    counts = _layer_counts(plan, pp)
    stages, first = [], 0
    for number, layers in enumerate(counts):
        head = number == pp - 1
        stages.append(StagePlan(first, layers, head, _stage_bytes(plan, number, layers, head)))
        first += layers
    return replace(plan, stages=tuple(stages))


def smallest(
    model: ModelSpec,
    spec: ChipSpec,
    context: int,
    tp: int | None = None,
    weights: str = "fp16",
) -> Plan:
    """The plan with the fewest chips; ties go to the smaller tensor-parallel degree."""
    widths = [tp] if tp else list(range(1, model.heads + 1))
    for chips in range(1, model.layers * max(widths) + 1):
        for width in widths:
            pp, rest = divmod(chips, width)
            if rest or not 1 <= pp <= model.layers:
                continue
            try:
                return partition(model, spec, width, pp, context, weights)
            except DoesNotFit as error:
                last = error
    raise last


def _check(model: ModelSpec, tp: int, pp: int, context: int) -> None:
    if not 1 <= tp <= model.heads:
        raise BadValue("--tp", tp, f"must be 1 to {model.heads}, the heads of {model.name}")
    if not 1 <= pp <= model.layers:
        raise BadValue("--pp", pp, f"must be 1 to {model.layers}, the layers of {model.name}")
    if not 1 <= context <= model.context_max:
        raise BadValue("--context", context, f"must be 1 to {model.context_max} tokens")
    if model.head_dim % 8 or model.head_dim > CONTEXT_BLOCK:
        raise BadValue("head_dim", model.head_dim, "must be a multiple of 8, at most 320")


def _check_weights(model: ModelSpec, spec: ChipSpec, weights: str) -> None:
    if weights not in WEIGHT_TYPES:
        raise BadValue("--weights", weights, f"must be one of {', '.join(WEIGHT_TYPES)}")
    kind = WEIGHT_TYPES[weights]
    if kind not in spec.mxm_types:
        known = ", ".join(name for name, mine in WEIGHT_TYPES.items() if mine in spec.mxm_types)
        raise BadValue("--weights", weights, f"chip {spec.name} multiplies {known or 'neither'}")
    if model.head_dim % word_columns(kind):
        rule = f"{weights} needs heads of a multiple of {word_columns(kind)} elements"
        raise BadValue("--weights", weights, f"{rule}, {model.name} has {model.head_dim}")


def _shapes(plan: Plan, layers: int, head: bool) -> tuple[DecoderShape, ...]:
    model, tp, kind = plan.model, plan.tp, WEIGHT_TYPES[plan.weights]
    kv_heads = max(len(local_kv(model, tp, rank)) for rank in range(tp))
    ffn, vocab = (len(share(total, tp, 0)) for total in (model.ffn, model.vocab))
    shapes = []
    for rank in range(tp):
        shapes.append(
            DecoderShape(
                hidden=blocks(model.hidden, kind),
                heads=Heads(local_heads(model, tp, rank), kv_heads, model.head_dim),
                ffn=blocks(ffn, kind),
                vocab=blocks(vocab, kind) if head else None,
                layers=layers,
                eps=model.rms_eps,
                context=plan.context,
                chunk=plan.chunk,
                biased=model.qkv_bias,
                activation=model.activation,
                weights=kind,
            )
        )
    return tuple(shapes)


def _layer_counts(plan: Plan, pp: int) -> list[int]:
    """Layers per stage: even in bytes, the LM head counted as the layers it weighs."""
    total = plan.model.layers
    if pp == 1:
        return [total]
    layer, head = _parameters(plan)
    even = (total * layer + head) / pp
    last = min(max(1, math.floor((even - head) / layer)), total - pp + 1)
    return [len(share(total - last, pp - 1, n)) for n in range(pp - 1)] + [last]


def _parameters(plan: Plan) -> tuple[int, int]:
    """Padded weights of a layer and of the LM head on one chip, in SRAM bytes."""
    sizes = []
    for layers, head in ((1, False), (2, False), (1, True)):
        wide = replace(plan.spec, slice_words=1 << 24)
        stage = Stage(wide, _shapes(plan, layers, head))
        sizes.append(stage.memory.used_bytes)
    return sizes[1] - sizes[0], sizes[2] - sizes[0]


def _stage_bytes(plan: Plan, number: int, layers: int, head: bool) -> int:
    try:
        return Stage(plan.spec, _shapes(plan, layers, head)).memory.used_bytes
    except SramFull:
        wide = replace(plan.spec, slice_words=1 << 24)
        needs = Stage(wide, _shapes(plan, layers, head)).memory.used_bytes
        more = -(-needs * (number + 1) // plan.spec.sram_bytes)
        advice = f"use more stages or chips: about {max(more, 2)} x as many; see --pp and --tp"
        raise DoesNotFit(number, needs, plan.spec.sram_bytes, advice) from None
