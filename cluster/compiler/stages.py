"""Cutting a model into pipeline stages of tensor-parallel groups: what fits where."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol, TypeVar

from chip.kernels.memory import SramFull
from chip.program import WEIGHT_SLICES
from chip.spec import ChipSpec
from cluster.compiler.assign import Rank, ranks_of
from cluster.compiler.limits import (
    WEIGHT_TYPES,
    check_context,
    check_heads,
    check_weights,
    heads_of,
)
from cluster.compiler.quantise import quantise
from cluster.compiler.section_demands import column_words
from cluster.compiler.shard import Sharded, shard
from cluster.compiler.stage import CONTEXT_BLOCK, WIDE_WORDS, Stage, StageShape
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.shares import share

CHUNKS = (32, 16, 8)  # tokens of a prefill launch: the most there is room for
Paces = dict[tuple[int, int], tuple[int, int]]  # of (tp, chunk): cycles of a layer, and of the head


@dataclass(frozen=True)
class StagePlan:
    """Layers `first`..`first + layers` on `tp` chips; the last one also holds the LM head."""

    first: int
    layers: int
    head: bool
    sram_bytes: int


@dataclass(frozen=True)
class Plan:
    """pp x tp chips and what each holds; `context` tokens is a multiple of 320.

    `weights` are "fp16", or "int8" with activations made int8 for each token (W8A8).
    There are caches for `slots` sequences.
    """

    model: Model
    spec: ChipSpec
    tp: int
    context: int
    chunk: int
    stages: tuple[StagePlan, ...]
    weights: str = "fp16"
    slots: int = 1

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
    def sram_bytes_max(self) -> int:
        return max(stage.sram_bytes for stage in self.stages)

    def stage(self, number: int) -> Stage:
        """Memory map and kernels of one stage."""
        part = self.stages[number]
        shape = stage_shape(
            self.model, self.spec, self.tp, self.context, self.chunk, self.weights, self.slots,
            (part.first, part.layers), part.head,
        )  # fmt: skip
        return Stage(self.spec, shape)


@lru_cache(maxsize=512)
def compiled(section: Section, tp: int, weights: str) -> Sharded:
    """A section as each rank of a group runs it."""
    return shard(quantise(section) if weights == "int8" else section, tp)


@lru_cache(maxsize=256)
def ranks(model: Model, tp: int, weights: str, lanes: int) -> tuple[Rank, ...]:
    """What each rank of a group has room for."""
    sections = dict.fromkeys((*model.layers, model.head))
    return ranks_of([compiled(section, tp, weights) for section in sections], lanes)


def stage_shape(
    model: Model, spec: ChipSpec, tp: int, context: int, chunk: int, weights: str, slots: int,
    layers: tuple[int, int], head: bool,
) -> StageShape:  # fmt: skip
    """What a stage of these layers (first, count) holds."""
    first, count = layers
    mine = tuple(compiled(s, tp, weights) for s in model.layers[first : first + count])
    last = compiled(model.head, tp, weights) if head else None
    opening = None
    if model.opening is not None and first == 0:
        opening = compiled(model.opening, tp, weights)
    size = context, chunk, WEIGHT_TYPES[weights], slots
    everyone = ranks(model, tp, weights, spec.lanes)
    whole = _whole(model, everyone, tp, context, chunk, weights)
    return StageShape(mine, last, everyone, *size, opening, whole)


@lru_cache(maxsize=256)
def _whole(
    model: Model, everyone: tuple[Rank, ...], tp: int, context: int, chunk: int, weights: str
) -> StageShape:
    """A layer of each kind of the model, with what is before and behind them."""
    layers = tuple(compiled(section, tp, weights) for section in dict.fromkeys(model.layers))
    head = compiled(model.head, tp, weights)
    opening = compiled(model.opening, tp, weights) if model.opening is not None else None
    return StageShape(layers, head, everyone, context, chunk, WEIGHT_TYPES[weights], 1, opening)


T = TypeVar("T")


class Store(Protocol):
    """Keeps what was made once, by what it was made of."""

    def kept(
        self,
        kind: str,
        key: object,
        make: Callable[[], T],
        plain: Callable[[T], Any],
        read: Callable[[Any], T],
    ) -> T:
        """What `make` returns, perhaps from before; `plain` and `read` are to JSON and back."""


def _plain_need(need: int | SramFull) -> Any:
    return need if isinstance(need, int) else [need.what, need.needs_bytes, need.has_bytes]


def _need_of(plain: Any) -> int | SramFull:
    return plain if isinstance(plain, int) else SramFull(*plain)


@dataclass
class Sizes:
    """SRAM needs of the stages of one model on one chip, each kind of stage laid out once."""

    model: Model
    spec: ChipSpec
    context: int = CONTEXT_BLOCK
    weights: str = "fp16"
    slots: int = 1
    _needs: dict[tuple[int, int, int, bool], int | SramFull] = field(default_factory=dict)
    _room: dict[tuple[int, bool], int] = field(default_factory=dict)
    paces: Paces = field(default_factory=dict, repr=False)
    store: Store | None = None  # keeps what was laid out once

    @cached_property
    def heads(self) -> int:
        """Query heads of the model."""
        return heads_of(self.model)

    @cached_property
    def layers(self) -> int:
        """Layers of the model."""
        return len(self.model.layers)

    def need_bytes(self, tp: int, chunk: int, layers: int, head: bool) -> int:
        """SRAM of a stage; raises SramFull."""
        key = (tp, chunk, layers, head)
        if key not in self._needs:
            self._needs[key] = self._need(*key)
        found = self._needs[key]
        if isinstance(found, SramFull):
            raise found
        return found

    def _need(self, tp: int, chunk: int, layers: int, head: bool) -> int | SramFull:
        if layers > self.room(tp, head):
            has = self.spec.sram_bytes
            return SramFull("weights and caches", self.wanted_bytes(tp, layers, head), has)
        shape = self._shape(self.spec, tp, chunk, layers, head)

        def lay_out() -> int | SramFull:
            try:
                return Stage(self.spec, shape).memory.used_bytes
            except SramFull as error:
                return error

        if self.store is None:
            return lay_out()
        return self.store.kept("need", (self.spec, shape.digest), lay_out, _plain_need, _need_of)

    def stage(self, tp: int, chunk: int, layers: int, head: bool, wide: bool = False) -> Stage:
        """A stage, on a chip with room for everything if `wide`; raises SramFull."""
        spec = replace(self.spec, slice_words=WIDE_WORDS) if wide else self.spec
        return Stage(spec, self._shape(spec, tp, chunk, layers, head))

    def _shape(self, spec: ChipSpec, tp: int, chunk: int, layers: int, head: bool) -> StageShape:
        padded = -(-self.context // CONTEXT_BLOCK) * CONTEXT_BLOCK
        first = self.layers - layers if head else 0
        return stage_shape(
            self.model, spec, tp, padded, chunk, self.weights, self.slots, (first, layers), head
        )

    def fits(self, tp: int, chunk: int, layers: int, head: bool) -> bool:
        """Whether a chip has room for the stage."""
        try:
            return self.need_bytes(tp, chunk, layers, head) <= self.spec.sram_bytes
        except SramFull:
            return False

    def most_layers(self, tp: int, chunk: int, head: bool) -> int:
        """Layers a stage can hold at most; -1 if there is no room even for the LM head."""
        if not self.room(tp, False):  # words alone refuse it: no need to lay anything out
            return -1 if head else 0
        if head and not self.fits(tp, chunk, 0, True):
            return -1
        if not self.fits(tp, chunk, 1, head):
            return 0
        every = range(2, self.room(tp, head) + 1)
        return 1 + bisect_left(every, True, key=lambda n: not self.fits(tp, chunk, n, head))

    def room(self, tp: int, head: bool) -> int:
        """Layers whose weights and caches a chip has the words for, wherever they rest."""
        if (tp, head) not in self._room:
            layer, last = self._column_words(tp, CHUNKS[-1])
            left = self.spec.slices * self.spec.slice_words // WEIGHT_SLICES - last * head
            self._room[tp, head] = max(0, min(self.layers, left // layer))
        return self._room[tp, head]

    def weigh(self, tp: int, chunk: int) -> tuple[int, int]:
        """Padded weights and caches of a layer, and of the LM head, on a chip, in SRAM bytes."""
        layer, last = self._column_words(tp, chunk)
        each = WEIGHT_SLICES * self.spec.lanes
        return layer * each, last * each

    def wanted_bytes(self, tp: int, layers: int, head: bool) -> int:
        """SRAM bytes of the weights and caches of a stage, wherever they rest."""
        layer, last = self.weigh(tp, CHUNKS[-1])
        return layers * layer + last * head

    def _column_words(self, tp: int, chunk: int) -> tuple[int, int]:
        """Words of 16 slices that the columns of a layer, and of the head, take."""
        shape = self._shape(self.spec, tp, chunk, 1, True)
        assert shape.head is not None
        size = shape.chunk, shape.context // CONTEXT_BLOCK, shape.weights, shape.slots
        layer, last = (
            column_words(self.spec, section, shape.ranks[0], prefix, *size)
            for section, prefix in ((shape.kinds[0], "layer."), (shape.head, "head."))
        )
        return layer, last

    def pace(self, tp: int, chunk: int) -> tuple[int, int]:
        """Cycles of a layer and of the LM head for one token, as a chip takes them alone."""
        if (tp, chunk) not in self.paces:
            wide = not self.fits(tp, chunk, 1, True)
            stage = self.stage(tp, chunk, 1, True, wide)
            alone = stage.alone(1, 1, lambda _index, address: address)
            parts = alone, stage.behind(1)
            cycles = tuple(sum(step.cycles for step in part) for part in parts)
            self.paces[tp, chunk] = (cycles[0], cycles[1])
        return self.paces[tp, chunk]

    def fewest_stages(self, tp: int) -> tuple[int, int] | None:
        """(stages, chunk) of the shortest pipeline of that width; None if none has room."""
        least = self._stages(tp, CHUNKS[-1])  # no chunk leaves more room
        if least is None:
            return None
        found = ((self._stages(tp, chunk), chunk) for chunk in CHUNKS)
        return next((least, chunk) for stages, chunk in found if stages == least)

    def _stages(self, tp: int, chunk: int) -> int | None:
        """Stages of the shortest pipeline with prefill chunks of that size."""
        if not self.room(tp, False):
            return None
        last = self.most_layers(tp, chunk, True)
        rest = self.layers - last
        each = self.most_layers(tp, chunk, False) if rest > 0 <= last else 1
        return 1 + -(-max(rest, 0) // each) if last >= 0 and each else None

    def fits_on(self, chips: int, tp: int, pp: int | None = None) -> bool:
        """Whether a pipeline of that width, of `pp` stages if given, has room on some chips.

        What has not the words for its weights is not laid out.
        """
        most = min(pp or self.layers + 1, chips // tp)
        if (pp or 1) > most:
            return False
        if self.room(tp, True) + (most - 1) * self.room(tp, False) < self.layers:
            return False
        shortest = self.fewest_stages(tp)
        return shortest is not None and shortest[0] <= most


def partition(
    model: Model,
    spec: ChipSpec,
    tp: int,
    pp: int,
    context: int = CONTEXT_BLOCK,
    weights: str = "fp16",
    sizes: Sizes | None = None,
    slots: int = 1,
) -> Plan:
    """Split a model over pp x tp chips, with the largest prefill chunk there is room for.

    There are caches for `slots` sequences. Raises BadValue, or DoesNotFit with what would fit.
    `sizes` remembers between calls, and knows the slots.
    """
    _check(model, tp, pp, context)
    check_weights(model, spec, weights)
    sizes = sizes or Sizes(model, spec, context, weights, slots)
    failed: DoesNotFit | None = None
    for chunk in CHUNKS:
        try:
            return _partition(sizes, tp, pp, chunk)
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
            need = sizes.need_bytes(tp, chunk, layers, head)
        except SramFull as full:
            need = sizes.wanted_bytes(tp, layers, head)
            has = sizes.spec.sram_bytes
            more = max(-(-need * (number + 1) // has), 2)
            advice = f"{full}; use more stages or chips, about {more} x as many: see --pp and --tp"
            raise DoesNotFit(number, need, has, advice) from None
        stages.append(StagePlan(first, layers, head, need))
        first += layers
    return Plan(
        sizes.model, sizes.spec, tp, padded, chunk, tuple(stages), sizes.weights, sizes.slots
    )


def smallest(
    model: Model,
    spec: ChipSpec,
    context: int,
    tp: int | None = None,
    weights: str = "fp16",
    slots: int = 1,
) -> Plan:
    """The plan with the fewest chips; ties go to the smaller tensor-parallel degree."""
    check_weights(model, spec, weights)
    sizes = Sizes(model, spec, context, weights, slots)
    best: tuple[int, int, int] | None = None
    for width in [tp] if tp else range(1, heads_of(model) + 1):
        _check(model, width, 1, context)
        if best and width >= best[0]:
            break
        shortest = sizes.fewest_stages(width)
        if shortest and (best is None or width * shortest[0] < best[0]):
            best = (width * shortest[0], width, shortest[0])
    if best is None:
        return partition(
            model, spec, tp or heads_of(model), len(model.layers), context, weights, sizes
        )
    return partition(model, spec, best[1], best[2], context, weights, sizes)


def _check(model: Model, tp: int, pp: int, context: int) -> None:
    if not 1 <= tp <= heads_of(model):
        raise BadValue("--tp", tp, f"must be 1 to {heads_of(model)}, the heads of {model.name}")
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
    layer, head = sizes.weigh(tp, chunk)
    even = (total * layer + head) / pp
    last = min(max(1, math.floor((even - head) / layer)), total - pp + 1)
    most = sizes.most_layers(tp, chunk, True)
    if most < last or -(-(total - last) // (pp - 1)) > sizes.most_layers(tp, chunk, False):
        last = min(max(0, most), total - pp + 1)
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
