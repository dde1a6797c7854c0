"""What the stages of a model need of a chip's SRAM, and how many layers one can hold."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any, TypeVar

from chip.isa import WIDTHS
from chip.kernels.memory import SramFull, columns_may_rest, most_column_words
from chip.program import WEIGHT_SLICES
from chip.spec import ChipSpec
from cluster.compiler.limits import CONTEXT_BLOCK, WEIGHT_TYPES
from cluster.compiler.section_demands import column_words
from cluster.compiler.segments import has_experts
from cluster.compiler.stage import Stage
from cluster.compiler.stage_shape import StageShape, roomy, stage_shape
from cluster.compiler.store import Store
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.latent_attention import ATTENTIONS

CHUNKS = (32, 16, 8)  # tokens of a prefill launch: the most there is room for
Paces = dict[tuple[int, int], tuple[int, int]]  # of (tp, chunk): cycles of a layer, and of the head
Sides = tuple[list[int], list[int]]  # of the east and of the west half of a chip
T = TypeVar("T")


Kinds = dict[str, int]  # SRAM bytes of a stage by what they hold


@dataclass(frozen=True)
class Laid:
    """What a stage takes of SRAM, and whether its matrices rest in any slices to find room."""

    kinds: Kinds
    anywhere: bool


def _plain(laid: Laid | SramFull) -> Any:
    if isinstance(laid, SramFull):
        return [laid.what, laid.needs_bytes, laid.has_bytes]
    return asdict(laid)


def _laid_of(plain: Any) -> Laid | SramFull:
    return Laid(**plain) if isinstance(plain, dict) else SramFull(*plain)


@dataclass
class Sizes:
    """SRAM needs of the stages of one model on one chip, each kind of stage laid out once.

    Matrices lie in 16 neighbouring slices; with `cut`, those of stages that find no room so lie in
    any slices.
    """

    model: Model
    spec: ChipSpec
    context: int = CONTEXT_BLOCK
    weights: str = "fp16"
    slots: int = 1
    rows: int = 1  # of slots, in a decode launch
    cut: bool = False
    _laid: dict[tuple[int, int, int, bool, bool], Laid | SramFull] = field(default_factory=dict)
    _room: dict[tuple[int, bool, bool], int] = field(default_factory=dict)
    paces: Paces = field(default_factory=dict, repr=False)
    store: Store | None = None  # keeps what was laid out once

    @cached_property
    def cutting(self) -> "Sizes":
        """The same where matrices may be cut; both know what either has laid out."""
        return self if self.cut else replace(self, cut=True)

    @cached_property
    def whole(self) -> "Sizes":
        """The same where matrices are not cut."""
        return replace(self, cut=False) if self.cut else self

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Tokens of a prefill launch, the most first; decode launches have no more rows.

        Experts that are cut fill chips, and tokens meet them one by one: a longer launch takes as
        long for each, but its program more room.
        """
        found = tuple(chunk for chunk in CHUNKS if chunk >= self.rows)
        return found[-1:] if self.cut and self._mixed else found

    @property
    def _padded(self) -> int:
        return -(-self.context // CONTEXT_BLOCK) * CONTEXT_BLOCK

    @property
    def _slots(self) -> tuple[int, int]:
        """Slots with caches, and those of a decode launch."""
        return -(-self.slots // self.rows) * self.rows, self.rows

    @cached_property
    def layers(self) -> int:
        """Layers of the model."""
        return len(self.model.layers)

    def need_bytes(self, tp: int, chunk: int, layers: int, head: bool) -> int:
        """SRAM of a stage; raises SramFull."""
        return sum(self.kinds(tp, chunk, layers, head).values())

    def kinds(self, tp: int, chunk: int, layers: int, head: bool) -> Kinds:
        """SRAM bytes of a stage by what they hold; raises SramFull."""
        return self.laid(tp, chunk, layers, head).kinds

    def laid(self, tp: int, chunk: int, layers: int, head: bool) -> Laid:
        """What a stage takes, and how; raises SramFull."""
        key = (tp, chunk, layers, head, self.cut)
        if key not in self._laid:
            self._laid[key] = self._laid_out(*key[:-1])
        found = self._laid[key]
        if isinstance(found, SramFull):
            raise found
        return found

    def _laid_out(self, tp: int, chunk: int, layers: int, head: bool) -> Laid | SramFull:
        if self.cut:
            try:
                return self.whole.laid(tp, chunk, layers, head)
            except SramFull:
                pass
        if layers > self.room(tp, head) or self.room(tp, False) < 1:
            has = self.spec.sram_bytes
            needs = self.wanted_bytes(tp, layers, head)
            if needs <= has:  # they cannot be packed: fewer layers can
                has = self.wanted_bytes(tp, max(0, self.room(tp, head)), head)
            return SramFull("weights and caches", needs, has)
        shape = replace(self._shape(self.spec, tp, chunk, layers, head), anywhere=self.cut)

        def lay_out() -> Laid | SramFull:
            try:
                return Laid(Stage(self.spec, shape).memory.bytes_by_kind(), self.cut)
            except SramFull as error:
                return error

        return self._kept("laid", (self.spec, shape.digest), lay_out, _plain, _laid_of)

    def stage(
        self, tp: int, chunk: int, layers: int, head: bool, wide: bool = False,
        kind: int | None = None,
    ) -> Stage:  # fmt: skip
        """A stage, on a chip with room for everything if `wide`; raises SramFull.

        Its first layer is of a `kind`, if given.
        """
        spec = roomy(self.spec) if wide else self.spec
        first = None if kind is None else self.model.kinds.index(kind)
        return Stage(spec, self._shape(spec, tp, chunk, layers, head, first))

    def _heaviest(self, layers: int) -> int:
        """The first of so many neighbouring layers that weigh the most."""
        kinds, every = self.model.kinds, range(self.layers - layers + 1)
        if len(set(kinds)) == 1:
            return 0
        by_kind = {kind: self._weight(self._layer_of(kind)) for kind in set(kinds)}
        return max(every, key=lambda n: sum(by_kind[kind] for kind in kinds[n : n + layers]))

    def _layer_of(self, kind: int) -> Section:
        return self.model.layers[self.model.kinds.index(kind)]

    def _weight(self, layer: Section) -> int:
        """Elements of the weights and caches of a layer."""
        kept = (min(self.context, op.window or self.context) * op.cached_elements
                for op in layer.ops if isinstance(op, ATTENTIONS))  # fmt: skip
        return sum(prod(weight.shape) for weight in layer.weights) + self.slots * sum(kept)

    def _shape(
        self, spec: ChipSpec, tp: int, chunk: int, layers: int, head: bool, first: int | None = None
    ) -> StageShape:
        if first is None:
            first = self.layers - layers if head else self._heaviest(layers)
        size = self._padded, chunk, self.weights, self._slots
        return stage_shape(self.model, spec, tp, *size, (first, layers), head)

    def fits(self, tp: int, chunk: int, layers: int, head: bool) -> bool:
        """Whether a chip has room for the stage."""
        try:
            return self.need_bytes(tp, chunk, layers, head) <= self.spec.sram_bytes
        except SramFull:
            return False

    def most_layers(self, tp: int, chunk: int, head: bool) -> int:
        """Layers a stage can hold at most; -1 if there is no room even for the LM head."""
        room, least = self.room(tp, head), 0 if head else 1
        if room < least or self.room(tp, False) < 1:  # no stage can have a layer: none is laid out
            return least - 1
        if self.fits(tp, chunk, room, head):  # often: what is laid out takes little more
            return room
        every = range(least, room)
        return least - 1 + bisect_left(every, True, key=lambda n: not self.fits(tp, chunk, n, head))

    def room(self, tp: int, head: bool) -> int:
        """Layers whose weights and caches a chip has the words for; -1 if not for the head."""
        if (tp, head, self.cut) not in self._room:
            kinds, most = self.model.kinds, most_column_words(self.spec)
            words = {kind: self._words(tp, kinds.index(kind)) for kind in set(kinds)}
            _, last = self._words(tp)
            helped = self.cut and not self._mixed  # those of experts lie on their own side
            most, fullest = (2 * most, sum) if helped else (most, max)
            lightest = min(fullest(map(sum, layer)) for layer, _ in words.values())

            def fit(count: int) -> bool:
                first = self.layers - count if head else self._heaviest(count)
                mine = Counter(kinds[first : first + count])  # layers of a kind lie in a row

                def rows(side: int) -> list[int]:
                    return [n * one for kind, n in mine.items() for one in words[kind][0][side]]

                every = [[*rows(side), *own * head] for side, own in enumerate(last)]
                if helped:  # either side takes columns of the other
                    return sum(map(sum, every)) <= most
                if self.cut:
                    return max(map(sum, every)) <= most
                return all(columns_may_rest(self.spec, words) for words in every)

            counts = range(min(self.layers, most // max(1, lightest)), -1, -1)
            self._room[tp, head, self.cut] = next((count for count in counts if fit(count)), -1)
        return self._room[tp, head, self.cut]

    def weigh(self, tp: int) -> tuple[int, int]:
        """Padded weights and caches of a layer, and of the LM head, on a chip, in SRAM bytes."""
        layer, last = self._words(tp)
        each = WEIGHT_SLICES * self.spec.lanes
        return sum(map(sum, layer)) * each, sum(map(sum, last)) * each

    def wanted_bytes(self, tp: int, layers: int, head: bool) -> int:
        """SRAM bytes of the weights and caches of a stage, wherever they rest."""
        layer, last = self.weigh(tp)
        return layers * layer + last * head

    def _words(self, tp: int, number: int | None = None) -> tuple[Sides, Sides]:
        """Words of 16 slices of each matrix and cache of a layer, and of the head, by sides.

        The layer is the last one, unless its number is given.
        """
        size = self._padded, self.chunks[-1], self.weights, self._slots
        return _words(self.model, self.spec, tp, *size, number, self.store)

    def pace(self, tp: int, chunk: int) -> tuple[int, int]:
        """Cycles of a layer and of the LM head for one token, as a chip takes them alone."""
        if (tp, chunk) not in self.paces:
            wide = not self.whole.fits(tp, chunk, 1, True)
            stage = self.stage(tp, chunk, 1, True, wide)

            def made() -> list[int]:
                alone = stage.alone(1, 1, lambda _index, address: address)
                return [sum(step.cycles for step in part) for part in (alone, stage.behind(1))]

            key = (stage.spec, stage.key)
            found: list[int] = self._kept("pace", key, made, list[int], list[int])
            self.paces[tp, chunk] = found[0], found[1]
        return self.paces[tp, chunk]

    def _kept(
        self,
        what: str,
        key: object,
        make: Callable[[], T],
        plain: Callable[[T], Any],
        read: Callable[[Any], T],
    ) -> T:
        """What `make` returns, from the store if there is one."""
        return self.store.kept(what, key, make, plain, read) if self.store else make()

    def fewest_stages(self, tp: int) -> tuple[int, int] | None:
        """(stages, chunk) of the shortest pipeline of that width; None if none has room."""
        least = self.least_stages(tp)
        if least is None:
            return None
        if self.stages(tp, self.chunks[0]) == least:
            return least, self.chunks[0]
        least = self.shortest(tp)
        if least is None:
            return None
        found = ((self.stages(tp, chunk), chunk) for chunk in self.chunks)
        return next((least, chunk) for stages, chunk in found if stages == least)

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """Chunks with which room is looked for, each closer than the one before.

        The smallest of prefill says it, as none leaves more. Of mixtures, of which each token is
        placed by itself, decode says sooner what has no room in any case.
        """
        return (self.rows, self.chunks[-1]) if self._mixed else self.chunks[-1:]

    def shortest(self, tp: int, most: int | None = None) -> int | None:
        """Stages of the shortest pipeline of that width; None if none of `most` stages has room."""
        found: int | None = None
        for chunk in self.looks:
            found = self.stages(tp, chunk)
            if found is None or (most and found > most):
                return None
        return found

    @cached_property
    def _mixed(self) -> bool:
        """Whether layers have experts."""
        return any(map(has_experts, dict.fromkeys(self.model.layers)))

    def least_stages(self, tp: int) -> int | None:
        """Stages that no pipeline of that width goes below: chips have so many words."""
        if self.heaviest_bytes > tp * self.spec.sram_bytes:  # seen without asking kernels
            return None
        last, each = (self.room(tp, head) for head in (True, False))
        return self._length(last, each)

    def stages(self, tp: int, chunk: int) -> int | None:
        """Stages of the shortest pipeline with prefill chunks of that size."""
        if self.least_stages(tp) is None:
            return None
        last = self.most_layers(tp, chunk, True)
        rest = self.layers - last
        each = self.most_layers(tp, chunk, False) if rest > 0 <= last else 1
        return self._length(last, each)

    def _length(self, last: int, each: int) -> int | None:
        """Stages of so many layers in the last one, and in all others."""
        rest = max(self.layers - last, 0)
        return 1 + -(-rest // each) if last >= 0 and (each or not rest) else None

    def outweighs(self, chips: int) -> bool:
        """Whether weights alone are more than the SRAM of so many chips: no width need be tried."""
        each = WIDTHS[WEIGHT_TYPES[self.weights]]
        return self.model.chip_parameters * each > chips * self.spec.sram_bytes

    @cached_property
    def heaviest_bytes(self) -> int:
        """What the weights of the heaviest layer take at least, over all chips of a stage."""
        each = WIDTHS[WEIGHT_TYPES[self.weights]]
        kinds = map(self._layer_of, set(self.model.kinds))
        return each * max(sum(prod(one.shape) for one in layer.weights) for layer in kinds)

    def fits_on(self, chips: int, tp: int, pp: int | None = None) -> bool:
        """Whether a pipeline of that width, of `pp` stages if given, has room on some chips.

        What has not the words for its weights, or one stage too full, is not looked into further.
        """
        if self.outweighs(chips):
            return False
        most = min(pp or self.layers + 1, chips // tp)
        least = self.least_stages(tp)
        if (pp or 1) > most or least is None or least > most:
            return False
        rest = max(0, self.layers - self.room(tp, True))
        if rest and not self.fits(tp, self.looks[0], -(-rest // (most - 1)), False):
            return False
        return self.shortest(tp, most) is not None


@lru_cache(maxsize=1024)
def _words(
    model: Model, spec: ChipSpec, tp: int, context: int, chunk: int, weights: str,
    slots: tuple[int, int], number: int | None, store: Store | None,
) -> tuple[Sides, Sides]:  # fmt: skip
    """See `Sizes._words`: those who say why nothing fits look at all widths again and again."""
    first = len(model.layers) - 1 if number is None else number
    shape = stage_shape(model, spec, tp, context, chunk, weights, slots, (first, 1), True)

    def asked() -> tuple[Sides, Sides]:
        assert shape.head is not None
        size = shape.chunk, shape.context // CONTEXT_BLOCK, shape.weights, shape.slots, shape.rows
        layer, last = (
            column_words(spec, section, shape.ranks[0], prefix, *size)
            for section, prefix in ((shape.kinds[0], "layer."), (shape.head, "head."))
        )
        return layer, last

    def read(kept: Any) -> tuple[Sides, Sides]:
        (east, west), (last_east, last_west) = kept
        return (east, west), (last_east, last_west)

    if store is None:
        return asked()
    return store.kept("words", (spec, shape.digest), asked, list, read)
