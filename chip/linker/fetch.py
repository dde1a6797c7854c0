"""How a step gets an operand from the values of other nodes: callable, and open to `chip.tape`.

Every fetch gives an array [iterations, lanes]. They are data, so that a tape can be made of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.arrays import Array, DType

Ints = npt.NDArray[np.int64]
Fetch = Callable[[list[Array]], Array]


@dataclass(frozen=True, eq=False)
class Scalar:
    """An immediate, the same in all lanes."""

    value: Any

    def __call__(self, values: list[Array]) -> Any:
        return self.value


@dataclass(frozen=True, eq=False)
class Take:
    """Some iterations of a node's value, or all; no copy where they are a progression."""

    node: int
    where: slice | Ints | None = None

    def __call__(self, values: list[Array]) -> Array:
        value = values[self.node]
        return value if self.where is None else value[self.where]


@dataclass(frozen=True, eq=False)
class Plane:
    """One byte plane of elements `width` bytes wide."""

    source: Take
    byte: int
    width: int

    def __call__(self, values: list[Array]) -> Array:
        array = np.ascontiguousarray(self.source(values))
        return array.view(np.uint8).reshape(*array.shape, self.width)[..., self.byte]


@dataclass(frozen=True, eq=False)
class Layer:
    """One byte stream of a group of streams that are no elements."""

    source: Take
    byte: int

    def __call__(self, values: list[Array]) -> Array:
        layer: Array = self.source(values)[..., self.byte]
        return layer


@dataclass(frozen=True, eq=False)
class Cast:
    """The same bytes as another type of one byte."""

    source: Fetch
    dtype: DType

    def __call__(self, values: list[Array]) -> Array:
        return self.source(values).view(self.dtype)


@dataclass(frozen=True, eq=False)
class Merge:
    """Iterations from several sources, each with the places where its iterations go."""

    parts: tuple[tuple[Ints, Fetch], ...]
    shape: tuple[int, int]
    dtype: DType

    def __call__(self, values: list[Array]) -> Array:
        merged = np.empty(self.shape, self.dtype)
        for at, fetch in self.parts:
            merged[at] = fetch(values)
        return merged


@dataclass(frozen=True, eq=False)
class Stack:
    """Elements put together from byte planes; as planes [.., bytes] if there is no `dtype`."""

    planes: tuple[Fetch, ...]
    dtype: DType | None

    def __call__(self, values: list[Array]) -> Array:
        stacked = np.stack([fetch(values) for fetch in self.planes], axis=-1)
        return stacked if self.dtype is None else stacked.view(self.dtype)[..., 0]


def as_slice(indices: Ints) -> slice | Ints:
    """The slice that selects an increasing progression, or the indices themselves."""
    if len(indices) == 1:
        return slice(int(indices[0]), int(indices[0]) + 1, 1)
    step = int(indices[1] - indices[0])
    if step > 0 and bool((np.diff(indices) == step).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1, step)
    return indices


def take(node: int, iterations: Ints, count: int) -> Take:
    """Fetch `iterations` of a node's value, which has `count` of them."""
    where = as_slice(iterations)
    everything = isinstance(where, slice) and where == slice(0, count, 1)
    return Take(node, None if everything else where)


def moved(where: slice | Ints, words: int) -> slice | Ints:
    """The same selection, `words` further on."""
    if not words:
        return where
    if isinstance(where, slice):
        return slice(where.start + words, where.stop + words, where.step)
    return where + words
