"""What the stages of a model need of a chip's SRAM, and how many layers one can hold."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, Protocol, TypeVar

from chip.kernels.memory import SramFull
from chip.program import WEIGHT_SLICES
from chip.spec import ChipSpec
from cluster.compiler.limits import CONTEXT_BLOCK, heads_of
from cluster.compiler.section_demands import column_words
from cluster.compiler.stage import WIDE_WORDS, Stage
from cluster.compiler.stage_shape import StageShape, stage_shape
from cluster.model.graph.attention import Attention
from cluster.model.graph.graph import Model, Section

CHUNKS = (32, 16, 8)  # tokens of a prefill launch: the most there is room for
Paces = dict[tuple[int, int], tuple[int, int]]  # of (tp, chunk): cycles of a layer, and of the head


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

    def stage(
        self, tp: int, chunk: int, layers: int, head: bool, wide: bool = False,
        kind: int | None = None,
    ) -> Stage:  # fmt: skip
        """A stage, on a chip with room for everything if `wide`; raises SramFull.

        Its first layer is of a `kind`, if given.
        """
        spec = replace(self.spec, slice_words=WIDE_WORDS) if wide else self.spec
        first = None if kind is None else self.model.kinds.index(kind)
        return Stage(spec, self._shape(spec, tp, chunk, layers, head, first))

    def _heaviest(self, layers: int) -> int:
        """The first of so many neighbouring layers that weigh the most."""
        kinds, every = self.model.kinds, range(self.layers - layers + 1)
        if len(set(kinds)) == 1:
            return 0
        by_kind = {kind: self._weight(self.model.layers[kinds.index(kind)]) for kind in set(kinds)}
        return max(every, key=lambda n: sum(by_kind[kind] for kind in kinds[n : n + layers]))

    def _weight(self, layer: Section) -> int:
        """Elements of the weights and caches of a layer."""
        kept = (min(self.context, op.window or self.context) * op.cached_elements
                for op in layer.ops if isinstance(op, Attention))  # fmt: skip
        return sum(prod(weight.shape) for weight in layer.weights) + self.slots * sum(kept)

    def _shape(
        self, spec: ChipSpec, tp: int, chunk: int, layers: int, head: bool, first: int | None = None
    ) -> StageShape:
        padded = -(-self.context // CONTEXT_BLOCK) * CONTEXT_BLOCK
        if first is None:
            first = self.layers - layers if head else self._heaviest(layers)
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
