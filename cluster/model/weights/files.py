"""Weights from a file of named tensors, whatever its format."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.errors import ModelError
from cluster.model.architecture import Tensors
from cluster.model.graph.graph import Model, Place
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import F32
from cluster.model.graph.values import Weight

_CHUNK_ROWS = 4096  # of tables that are compared


class TensorFile(Protocol):
    """An open file; raises ModelError for what is absent, misshapen or not finite."""

    def error(self, problem: str, advice: str = ...) -> ModelError:
        """Return the error to raise about this file."""

    def tensor_names(self) -> frozenset[str]:
        """Names of all tensors."""

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise ModelError unless there is a tensor of that name and shape, [out, in]."""

    def rows(self, name: str, rows: slice | list[int] = ...) -> F32:
        """A fresh float32 copy of some rows."""


def placed_weights(model: Model) -> Iterator[tuple[Place, Weight]]:
    """Every weight of a model with its place; a tied head's matrix is the embedding's."""
    tables = model.embedding
    for table in (tables.table, tables.positions, tables.kinds):
        if table is not None:
            yield "embedding", table
    if model.opening is not None:
        yield from (("opening", weight) for weight in model.opening.weights)
    for weight in model.head.weights:
        if not model.reads_embedding(weight):
            yield "head", weight
    for number, layer in enumerate(model.layers):
        yield from ((number, weight) for weight in layer.weights)


def norm_weights(model: Model) -> frozenset[Weight]:
    """Weights (not biases) of norms."""
    ops = (op for section, _ in model.distinct for op in section.ops)
    return frozenset(op.weight for op in ops if isinstance(op, Norm))


def check_ids(model: Model, ids: Sequence[int]) -> None:
    """Raise ModelError unless all token ids are inside the vocabulary."""
    for token in ids:
        if not 0 <= token < model.vocab:
            problem = f"token {token} is not in the vocabulary of {model.vocab} tokens"
            raise ModelError(model.name, problem)


class FileWeights:
    """The `Weights` of an open file; raises ModelError at once for tensors that do not fit.

    `notes` says in words where the file and its settings disagree and what was done.
    """

    def __init__(self, model: Model, file: TensorFile, tensors: Tensors) -> None:
        self._file, self._tensors = file, tensors
        self.model, self.notes = self._decide_head(model)
        self._norms = norm_weights(model)
        expected: set[str] = set()
        for place, weight in placed_weights(self.model):
            group, parts = self._group(place, weight), self._parts(place, weight)
            for name in parts:
                if name not in expected:
                    file.check_shape(name, self._tensor_shape(group, len(parts)))
                expected.add(name)
        extra = (n for n in file.tensor_names() - expected if not n.endswith(tensors.ignored))
        unknown = sorted(set(extra) - {tensors.tensor("head", "head")})
        if unknown:
            problem = f"tensor {unknown[0]} is not part of a {model.architecture} model"
            raise file.error(problem, "it would be ignored, use another model")

    def _group(self, place: Place, weight: Weight) -> tuple[Weight, ...]:
        """The weights in the tensor of one, in order."""
        names = self._tensors.together(weight.name)
        if not isinstance(place, int) or len(names) == 1:
            return (weight,)
        known = {one.name: one for one in self.model.layers[place].weights}
        return tuple(known[name] for name in names)

    def _tensor_shape(self, group: tuple[Weight, ...], parts: int) -> tuple[int, ...]:
        """The shape of each of the tensors of a group of weights."""
        first, rows = group[0], sum(self._stored(one)[0] for one in group) // parts
        stacked = self._tensors.stacked.get(first.name)
        if stacked is None:
            return (rows, *self._stored(first)[1:])
        experts = first.out[0].size
        inside = (rows // experts, *first.shape[1:])
        return (experts, *(reversed(inside) if stacked.turned else inside))

    def _of_stack(self, name: str, group: tuple[Weight, ...], weight: Weight) -> F32:
        """A weight of all experts; weights of a group take turns."""
        whole = self._file.rows(name)
        if self._tensors.stacked[weight.name].turned:
            whole = whole.swapaxes(1, 2)
        return whole[:, group.index(weight) :: len(group)].reshape(weight.shape)

    def _stored(self, weight: Weight) -> tuple[int, ...]:
        """The shape of a weight as the file has it."""
        if weight.name not in self._tensors.transposed:
            return weight.shape
        heads, outputs = (dim.size for dim in weight.out)
        return heads * weight.shape[1], outputs

    def _parts(self, place: Place, weight: Weight) -> tuple[str, ...]:
        """The tensors of a weight: one, or one for each expert."""
        name = self._tensors.tensor(place, weight.name)
        if "{}" not in name:
            return (name,)
        return tuple(name.format(expert) for expert in range(weight.out[0].size))

    def _decide_head(self, model: Model) -> tuple[Model, tuple[str, ...]]:
        """A model that says its head is tied may come with another head: that one counts."""
        head, table = (self._tensors.tensor(p, p) for p in ("head", "embedding"))
        if not model.tied_head or head not in self._file.tensor_names():
            return model, ()
        self._file.check_shape(head, model.embedding.table.shape)
        for first in range(0, model.vocab, _CHUNK_ROWS):
            rows = slice(first, first + _CHUNK_ROWS)
            if not np.array_equal(self._file.rows(head, rows), self._file.rows(table, rows)):
                note = f"the output head is {head}, though the settings say that it is tied"
                return replace(model, tied_head=False), (note,)
        return model, ()

    def array(self, place: Place, weight: Weight, rows: slice = slice(None)) -> F32:
        """Some rows of a weight, [out, in] or a vector, rotary pairs adjacent."""
        if isinstance(place, int) and not 0 <= place < len(self.model.layers):
            problem = f"has no layer {place}, only {len(self.model.layers)}"
            raise ModelError(self.model.name, problem)
        name, *others = self._parts(place, weight)
        if others:
            every = [self._file.rows(part) for part in (name, *others)]
            whole: F32 = np.concatenate(every)[rows]
            return whole
        if place == "head" and self.model.reads_embedding(weight):
            name = self._tensors.tensor("embedding", self._table.name)
        group = self._group(place, weight)
        if weight.name in self._tensors.stacked:
            return self._of_stack(name, group, weight)[rows]
        if weight.name in self._tensors.by_head:
            return self._of_heads(name, group, weight)[rows]
        above = sum(one.shape[0] for one in group[: group.index(weight)])
        if weight.rotary and not self._tensors.adjacent_pairs:
            array = self._reordered(name, adjacent_order(weight)[rows] + above)
        else:
            first, last, _ = rows.indices(weight.shape[0])
            array = self._file.rows(name, slice(above + first, above + max(first, last)))
        if self._tensors.norm_offset and weight in self._norms:
            array += np.float32(self._tensors.norm_offset)
        return array

    def _of_heads(self, name: str, group: tuple[Weight, ...], weight: Weight) -> F32:
        """A weight whose rows alternate with those of its group, head by head."""
        heads, order = weight.out[0].size, adjacent_order(weight)
        bounds = np.cumsum([0, *(self._stored(one)[0] // heads for one in group)])
        first, last = bounds[group.index(weight) :][:2]
        whole = self._file.rows(name)
        mine = whole.reshape(heads, -1, whole.shape[1])[:, first:last]
        if weight.name in self._tensors.transposed:
            mine = mine.swapaxes(1, 2)
        found = mine.reshape(weight.shape)
        return found[order] if weight.rotary and not self._tensors.adjacent_pairs else found

    def _reordered(self, name: str, order: NDArray[np.int64]) -> F32:
        if not order.size:
            return self._file.rows(name, slice(0, 0))
        first = int(order.min())
        array: F32 = self._file.rows(name, slice(first, int(order.max()) + 1))[order - first]
        return array

    @property
    def _table(self) -> Weight:
        return self.model.embedding.table

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Embeddings [len(ids), hidden] as the first section reads them; ids are a sequence's."""
        check_ids(self.model, ids)
        tables = self.model.embedding
        total = self._file.rows(self._tensors.tensor("embedding", self._table.name), list(ids))
        if tables.scale != 1.0:
            total *= np.float32(tables.scale)
        if tables.positions is not None:
            name = self._tensors.tensor("embedding", tables.positions.name)
            total += self._file.rows(name, slice(0, len(ids)))
        if tables.kinds is not None:
            total += self._file.rows(self._tensors.tensor("embedding", tables.kinds.name), [0])
        return total


def adjacent_order(weight: Weight) -> NDArray[np.int64]:
    """For each row of a rotary weight with adjacent pairs, where files keep it that pair i with
    i + head_dim / 2 (Hugging Face's, and those of llama.cpp but for its llama)."""
    rows, width = weight.shape[0], weight.out[-1].size
    halves = np.arange(rows).reshape(-1, 2, width // 2)
    return halves.swapaxes(1, 2).reshape(rows)
