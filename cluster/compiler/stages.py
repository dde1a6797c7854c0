"""Cutting a model into pipeline stages of tensor-parallel groups: what fits where."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import floor, prod

from chip.kernels.memory import SramFull
from chip.spec import ChipSpec
from cluster.compiler.limits import (
    CONTEXT_BLOCK,
    check_context,
    check_heads,
    check_weights,
    said_widest,
    widest_of,
    widths_of,
)
from cluster.compiler.sizes import Sizes
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import stage_shape
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.graph import Model
from cluster.model.graph.shares import share
from cluster.model.mixture import expert_parts


@dataclass(frozen=True)
class StagePlan:
    """Layers `first`..`first + layers` on `tp` chips; the last one also holds the LM head.

    Where matrices rest `anywhere` its layers take other cycles than those of other stages.
    """

    first: int
    layers: int
    head: bool
    sram_bytes: int
    anywhere: bool = False


@dataclass(frozen=True)
class Plan:
    """pp x tp chips and what each holds; `context` tokens is a multiple of 320.

    `weights` are "fp16", "int8" with activations made int8 for each token (W8A8), or "w8a16".
    There are caches for `slots` sequences, `rows` of which share a decode launch.
    """

    model: Model
    spec: ChipSpec
    tp: int
    context: int
    chunk: int
    stages: tuple[StagePlan, ...]
    weights: str = "fp16"
    slots: int = 1
    rows: int = 1

    @property
    def caches(self) -> int:
        """Slots with caches: those of a launch that is not full have them, too."""
        return -(-self.slots // self.rows) * self.rows

    @property
    def ep(self) -> int:
        """Parts of a group that experts are spread over; `tp` counts the ranks of all parts."""
        return expert_parts(self.model)

    @property
    def pp(self) -> int:
        return len(self.stages)

    @property
    def chips(self) -> int:
        return self.pp * self.tp

    @property
    def tokens_max(self) -> int:
        """Tokens of a sequence: caches come in blocks, and may hold more than the model takes."""
        return min(self.context, self.model.context_max)

    @property
    def cut(self) -> bool:
        """Whether stages have matrices that are cut, to rest anywhere."""
        return any(stage.anywhere for stage in self.stages)

    @property
    def sram_bytes_max(self) -> int:
        return max(stage.sram_bytes for stage in self.stages)

    def kinds(self, number: int) -> tuple[int, ...]:
        """The kinds of the layers of a stage."""
        part = self.stages[number]
        return self.model.kinds[part.first : part.first + part.layers]

    def parameters(self, number: int) -> int:
        """Parameters of a stage, of all ranks together."""
        part, model = self.stages[number], self.model
        sections = [*model.layers[part.first : part.first + part.layers]]
        sections += [model.head] if part.head else []
        if number == 0 and model.opening is not None:
            sections.append(model.opening)
        return sum(prod(weight.shape) for section in sections for weight in section.weights)

    def stage(self, number: int) -> Stage:
        """Memory map and kernels of one stage."""
        part = self.stages[number]
        shape = stage_shape(
            self.model, self.spec, self.tp, self.context, self.chunk, self.weights,
            (self.caches, self.rows), (part.first, part.layers), part.head,
        )  # fmt: skip
        return Stage(self.spec, replace(shape, anywhere=part.anywhere))


def partition(
    model: Model,
    spec: ChipSpec,
    tp: int,
    pp: int,
    context: int = CONTEXT_BLOCK,
    weights: str = "fp16",
    sizes: Sizes | None = None,
    slots: int = 1,
    rows: int = 1,
    cut: bool = True,
) -> Plan:
    """Split a model over pp x tp chips, with the largest prefill chunk there is room for.

    Where whole matrices find no room with any chunk they are `cut`, if they may be.

    There are caches for `slots` sequences, `rows` of which share a decode launch. Raises BadValue,
    or DoesNotFit with what would fit. `sizes` remembers between calls, and knows slots and rows.
    """
    _check(model, tp, pp, context)
    check_weights(model, spec, weights)
    sizes = sizes or Sizes(model, spec, context, weights, slots, rows)
    for some in (sizes.whole, sizes.cutting) if cut else (sizes.whole,):
        failed: DoesNotFit | None = None
        for chunk in some.chunks:
            try:
                return _partition(some, tp, pp, chunk)
            except DoesNotFit as error:
                failed = failed or error
    assert failed is not None
    raise failed


def _partition(sizes: Sizes, tp: int, pp: int, chunk: int) -> Plan:
    padded = -(-sizes.context // CONTEXT_BLOCK) * CONTEXT_BLOCK
    stages, first = [], 0
    for number, layers in enumerate(layer_counts(sizes, tp, pp, chunk)):
        head = number == pp - 1
        try:
            laid = sizes.laid(tp, chunk, layers, head)
        except SramFull as full:
            need = sizes.wanted_bytes(tp, layers, head)
            has = sizes.spec.sram_bytes
            more = max(-(-need * (number + 1) // has), 2)
            advice = f"{full}; use more stages or chips, about {more} x as many: see --pp and --tp"
            raise DoesNotFit(number, need, has, advice) from None
        need = sum(laid.kinds.values())
        stages.append(StagePlan(first, layers, head, need, laid.anywhere))
        first += layers
    size = tuple(stages), sizes.weights, sizes.slots, sizes.rows
    return Plan(sizes.model, sizes.spec, tp, padded, chunk, *size)


def smallest(
    model: Model,
    spec: ChipSpec,
    context: int,
    tp: int | None = None,
    weights: str = "fp16",
    slots: int = 1,
    rows: int = 1,
) -> Plan:
    """The plan with the fewest chips; ties go to the smaller tensor-parallel degree.

    That is of whole matrices; of cut ones where those fit no plan.
    """
    check_weights(model, spec, weights)
    sizes = Sizes(model, spec, context, weights, slots, rows)
    widths = [tp] if tp else widths_of(model)
    for width in widths:
        _check(model, width, 1, context)
    best = _shortest(sizes, widths) or _shortest(sizes.cutting, widths)
    _, width, stages = best or (0, tp or widths_of(model)[-1], len(model.layers))
    return partition(model, spec, width, stages, context, weights, sizes)


def _shortest(sizes: Sizes, widths: Iterable[int]) -> tuple[int, int, int] | None:
    """(chips, tp, pp) of the plan of some widths with the fewest chips; None if none fits."""
    best: tuple[int, int, int] | None = None
    for width in widths:
        least = sizes.least_stages(width)
        if least is None or (best and width * least >= best[0]):
            continue
        shortest = sizes.shortest(width)
        if shortest and (best is None or width * shortest < best[0]):
            best = (width * shortest, width, shortest)
    return best


def _check(model: Model, tp: int, pp: int, context: int) -> None:
    if not 1 <= tp <= widest_of(model):
        ep = expert_parts(model)
        parts = f" over {ep} parts" * (ep > 1)
        rule = f"must be 1 to {widest_of(model) // ep}, {said_widest(model)}{parts}"
        raise BadValue("--tp", tp // ep, rule)
    most = len(model.layers) + 1
    if not 1 <= pp <= most:
        raise BadValue("--pp", pp, f"must be 1 to {most}, the layers of {model.name} and its head")
    check_context(model, context)
    check_heads(model)


def layer_counts(sizes: Sizes, tp: int, pp: int, chunk: int) -> list[int]:
    """Layers per stage: even in bytes, the LM head counted as the layers it weighs.

    Where that overfills a stage and another split does not, the other split. With several
    sequences in flight it is the longest stage that counts: the best of what there is room for.
    """
    total = sizes.layers
    if pp == 1:
        return [total]
    if sizes.slots > 1 and (last := _shortest_step(sizes, tp, pp, chunk)) is not None:
        return [len(share(total - last, pp - 1, n)) for n in range(pp - 1)] + [last]
    layer, head = sizes.weigh(tp)
    even = (total * layer + head) / pp
    last = min(max(1, floor((even - head) / layer)), total - pp + 1)
    each = -(-(total - last) // (pp - 1))
    if not (sizes.fits(tp, chunk, last, True) and sizes.fits(tp, chunk, each, False)):
        last = min(max(0, sizes.most_layers(tp, chunk, True)), total - pp + 1)
    return [len(share(total - last, pp - 1, n)) for n in range(pp - 1)] + [last]


def _shortest_step(sizes: Sizes, tp: int, pp: int, chunk: int) -> int | None:
    """Layers of the last stage where the longest stage is shortest; None if nothing fits."""
    layer, head = sizes.pace(tp, chunk)
    most, most_last = (sizes.most_layers(tp, chunk, with_head) for with_head in (False, True))
    found = {}
    for last in range(min(most_last, sizes.layers - pp + 1) + 1):
        others = -(-(sizes.layers - last) // (pp - 1))
        if others <= most:
            found[last] = max(others * layer, last * layer + head)
    return min(found, key=lambda last: (found[last], -last)) if found else None
