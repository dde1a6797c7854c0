"""Sections, which are lists of ops from one value to another, and models, which are sections."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal

from chip.hashed import hashed_once
from cluster.model.graph.op import GraphError, Op
from cluster.model.graph.stand_in import StandIn
from cluster.model.graph.values import Dim, Value, Weight
from topology.collectives.sums import FP32

Place = int | Literal["embedding", "opening", "head"]  # a layer's number, or another section


@hashed_once
@dataclass(frozen=True)
class Section:
    """A layer, or what stands before or behind them all: ops in order, from `x` to `out`.

    On wide groups partial sums of its values travel between nodes as `sums`, a format.
    """

    x: Value
    ops: tuple[Op, ...]
    sums: str = FP32

    @property
    def out(self) -> Value:
        """What the last op makes."""
        return self.ops[-1].out if self.ops else self.x

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight that its ops read, once."""
        return tuple(dict.fromkeys(weight for op in self.ops for weight in op.weights))

    @property
    def takes_sequence(self) -> bool:
        """Whether all rows of a sequence must be in one launch."""
        return any(op.takes_sequence for op in self.ops)

    def consumers(self, value: Value) -> tuple[Op, ...]:
        """Ops that read a value."""
        return self._readers.get(value, ())

    @cached_property
    def _readers(self) -> dict[Value, tuple[Op, ...]]:
        found: dict[Value, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                found.setdefault(value, []).append(op)
        return {value: tuple(ops) for value, ops in found.items()}

    def check(self) -> "Section":
        """Return self; raise GraphError where an op is illegal or reads what is not there."""
        known = {self.x.name: self.x}
        for op in self.ops:
            op.check()
            for value in op.inputs:
                op.require(known.get(value.name) == value, f"nothing has made {value.name}")
            op.require(op.out.name not in known, f"{op.out.name} is made twice")
            known[op.out.name] = op.out
        twice = [n for n, count in Counter(w.name for w in self.weights).items() if count > 1]
        if twice:
            raise GraphError("section", (twice[0],), "a weight has two shapes")
        return self


@dataclass(frozen=True)
class Embedding:
    """Rows of a table by token, times `scale`; encoders add a row by position and one for all."""

    table: Weight
    scale: float = 1.0
    positions: Weight | None = None
    kinds: Weight | None = None


@hashed_once
@dataclass(frozen=True)
class Model:
    """A model: the host looks up the embedding, chips do the rest.

    Equal layers are equal sections. `opening` comes between embedding and layers (a norm, in
    encoders), `head` behind the last layer. With `tied_head` the head reads the embedding's table.
    """

    name: str
    architecture: str
    hidden: Dim
    vocab: int
    context_max: int
    embedding: Embedding
    layers: tuple[Section, ...] = field(repr=False)
    head: Section = field(repr=False)
    opening: Section | None = None
    tied_head: bool = False
    stand_in: StandIn | None = None  # for a model that ops are missing for
    in_8_bits: bool = False  # whether its makers publish its matrices so

    @property
    def places(self) -> tuple[tuple[Place, Section], ...]:
        """Every section that chips compute, in order, with its place."""
        opening: tuple[tuple[Place, Section], ...] = ()
        if self.opening is not None:
            opening = (("opening", self.opening),)
        return (*opening, *enumerate(self.layers), ("head", self.head))

    def with_sections(self, change: Callable[[Section], Section]) -> "Model":
        """The same model with its sections changed; equal ones stay one object."""
        changed = {section: change(section) for section, _ in self.distinct}
        opening = changed[self.opening] if self.opening is not None else None
        layers = tuple(changed[layer] for layer in self.layers)
        return replace(self, opening=opening, layers=layers, head=changed[self.head])

    def with_sums(self, sums: str) -> "Model":
        """The same model, whose partial sums travel between nodes as `sums`, a format."""
        if sums == self.sums:
            return self
        return self.with_sections(lambda section: replace(section, sums=sums))

    @property
    def sums(self) -> str:
        """The format in which partial sums travel between nodes."""
        return self.head.sums

    @property
    def sections(self) -> tuple[Section, ...]:
        """Every section, in order."""
        return tuple(section for _, section in self.places)

    @cached_property
    def distinct(self) -> tuple[tuple[Section, int], ...]:
        """Sections that differ, in order, with the number of times that they are there."""
        found: list[tuple[Section, int]] = []
        for section in self.sections:
            for number, (known, times) in enumerate(found):
                if known is section or known == section:  # hashing all of them takes long
                    found[number] = known, times + 1
                    break
            else:
                found.append((section, 1))
        return tuple(found)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """The kind of each layer: equal layers have equal numbers, from 0 on in their order."""
        known: list[Section] = []
        found = []
        for layer in self.layers:
            same = (n for n, one in enumerate(known) if one is layer or one == layer)
            number = next(same, len(known))
            if number == len(known):
                known.append(layer)
            found.append(number)
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the graph differs from the model that it stands for, in words."""
        return self.stand_in.notes if self.stand_in else ()

    @property
    def has_logits(self) -> bool:
        """Whether it says which token comes next; encoders do not."""
        return self.head.out.dims == self.embedding.table.out

    def reads_embedding(self, weight: Weight) -> bool:
        """Whether a weight of the head is the embedding's table."""
        return self.tied_head and weight.shape == self.embedding.table.shape

    def size(self, dimension: str) -> int:
        """The size of a dimension by name, the largest where layers differ; 0 if there is none."""
        ops = (op for section, _ in self.distinct for op in section.ops)
        dims = (dim for op in ops for value in (op.out, *op.inputs) for dim in value.dims)
        return max((dim.size for dim in dims if dim.name == dimension), default=0)

    @property
    def parameters(self) -> int:
        """The number of weights; a tied head counts once."""
        tables = (self.embedding.table, self.embedding.positions, self.embedding.kinds)
        total = sum(prod(table.shape) for table in tables if table)
        for section, times in self.distinct:
            ours = (w for w in section.weights if not self.reads_embedding(w))
            total += times * sum(prod(weight.shape) for weight in ours)
        return total + (self.stand_in.more_parameters if self.stand_in else 0)

    @property
    def chip_parameters(self) -> int:
        """Those that chips hold: the host looks up embeddings."""
        tables = (self.embedding.table, self.embedding.positions, self.embedding.kinds)
        on_host = sum(prod(table.shape) for table in tables if table)
        on_both = prod(self.embedding.table.shape) if self.tied_head else 0
        return self.parameters - on_host + on_both

    @property
    def cached_elements(self) -> int:
        """Elements that a token adds to the caches of all layers."""
        if self.stand_in and self.stand_in.cached_elements is not None:
            return self.stand_in.cached_elements
        return sum(op.cached_elements for layer in self.layers for op in layer.ops)

    def check(self) -> "Model":
        """Return self; raise GraphError where a section is illegal or two do not fit together."""
        distinct = [section for section, _ in self.distinct]
        for section in distinct:
            section.check()
            if section.x.dims != (self.hidden,):
                raise GraphError("model", (self.name,), "a section starts from another width")
        for section in distinct:
            if section != self.head and section.out.dims != (self.hidden,):
                raise GraphError("model", (self.name,), "a section ends with another width")
        return self
