"""What a stage of a model holds, before anything of it has a place."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any

from chip.hashed import hashed_once
from chip.kernels.window import Window
from chip.kernels.work import PART_ROWS
from chip.spec import ChipSpec
from cluster.compiler.layouts import to_all
from cluster.compiler.limits import ACTIVATION_TYPES, STATIC, WEIGHT_TYPES
from cluster.compiler.quantise import quantise
from cluster.compiler.rank import Rank, ranks_of
from cluster.compiler.shard import Sharded, shard
from cluster.compiler.sides import keys_first
from cluster.model.graph.attention import Attention
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.latent_attention import ATTENTIONS

WIDE_WORDS = 1 << 24  # of a slice that has room for everything


@hashed_once
@dataclass(frozen=True)
class StageShape:
    """What a stage holds: layers, perhaps what is before and behind them, for each rank.

    `context` tokens of caches, a multiple of 320, for each of `slots` sequences, `rows` of which
    share a decode launch; `chunk` tokens at most in a launch. `weights` is the MXM type of
    matrices, which rest in 16 neighbouring slices, or cut in `anywhere` there is room.
    """

    layers: tuple[Sharded, ...]
    head: Sharded | None
    ranks: tuple[Rank, ...]
    context: int
    chunk: int
    weights: str = "f16"
    slots: int = 1
    rows: int = 1
    opening: Sharded | None = None
    anywhere: bool = False
    whole: "StageShape | None" = None  # with one layer of each kind of the model, and all else

    @cached_property
    def digest(self) -> str:
        """The same for stages that hold the same, in this process and others."""
        return _hashed(tuple(_said(getattr(self, one.name)) for one in fields(self)))

    @cached_property
    def kinds(self) -> tuple[Sharded, ...]:
        """The different layers, in order."""
        return tuple(dict.fromkeys(self.layers))

    @property
    def part_rows(self) -> int:
        """Tokens that layers work on at a time, where these look at each other both ways."""
        ops = (op for sharded in self.kinds for op in sharded.section.ops)
        mixing = (op for op in ops if isinstance(op, Attention))
        return PART_ROWS * any(to_all(op, self.ranks[0]) for op in mixing)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """How far back its layers look."""
        return windows(sharded.section for sharded in self.kinds)


def _said(value: Any) -> str:
    """What a digest is made of: what many shapes have in common has a digest of its own."""
    if isinstance(value, StageShape):
        return value.digest
    if isinstance(value, Sharded):
        return _hashed(value)
    return str(tuple(map(_said, value)) if isinstance(value, tuple) else value)


@lru_cache(maxsize=512)
def _hashed(value: Hashable) -> str:
    return sha256(repr(value).encode()).hexdigest()


def windows(sections: Iterable[Section]) -> tuple[Window, ...]:
    """How far back the rows of some sections look."""
    ops = (op for section in sections for op in section.ops)
    return tuple(dict.fromkeys(Window(op.window) for op in ops if isinstance(op, ATTENTIONS)))


def keeps_all(model: Model) -> bool:
    """Whether caches hold all tokens: the ring of a window holds the last ones only."""
    return all(window.tokens is None for window in windows(dict.fromkeys(model.layers)))


@lru_cache(maxsize=512)
def compiled(section: Section, tp: int, weights: str) -> Sharded:
    """A section as each rank of a group runs it."""
    integers, fixed = ACTIVATION_TYPES.get(weights), weights == STATIC
    return shard(keys_first(quantise(section, integers, fixed) if integers else section), tp)


@lru_cache(maxsize=256)
def ranks(model: Model, tp: int, weights: str, lanes: int) -> tuple[Rank, ...]:
    """What each rank of a group has room for."""
    sections = dict.fromkeys((*model.layers, model.head))
    return ranks_of([compiled(section, tp, weights) for section in sections], lanes)


def stage_shape(
    model: Model, spec: ChipSpec, tp: int, context: int, chunk: int, weights: str,
    slots: tuple[int, int], layers: tuple[int, int], head: bool,
) -> StageShape:  # fmt: skip
    """What a stage of these layers (first, count) holds, for slots (all, in a decode launch)."""
    first, count = layers
    mine = tuple(compiled(s, tp, weights) for s in model.layers[first : first + count])
    last = compiled(model.head, tp, weights) if head else None
    opening = None
    if model.opening is not None and first == 0:
        opening = compiled(model.opening, tp, weights)
    size = context, chunk, WEIGHT_TYPES[weights], *slots
    everyone = ranks(model, tp, weights, spec.lanes)
    whole = _whole(model, everyone, tp, context, chunk, weights, slots[1])
    return StageShape(mine, last, everyone, *size, opening, whole=whole)


@lru_cache(maxsize=256)
def _whole(
    model: Model, everyone: tuple[Rank, ...], tp: int, context: int, chunk: int, weights: str,
    rows: int,
) -> StageShape:  # fmt: skip
    """A layer of each kind of the model, with what is before and behind them."""
    layers = tuple(compiled(section, tp, weights) for section in dict.fromkeys(model.layers))
    head = compiled(model.head, tp, weights)
    opening = compiled(model.opening, tp, weights) if model.opening is not None else None
    size = context, chunk, WEIGHT_TYPES[weights], 1, rows
    return StageShape(layers, head, everyone, *size, opening)


@lru_cache(maxsize=64)
def roomy(spec: ChipSpec) -> ChipSpec:
    """The same chip with room for everything: its kernels ask for no more, and no less."""
    return replace(spec, slice_words=WIDE_WORDS)
