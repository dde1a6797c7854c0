"""What every op of a graph has: shapes, a rule of sharding, a meaning, a kernel.

An op is a frozen dataclass; registering it is defining it. Its inputs and weights are its fields
of those types.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from chip.kernels.layout import Layout
from cluster.errors import ClusterError
from cluster.model.graph.int8 import Int8Matrix
from cluster.model.graph.values import Dim, Value, Weight

if TYPE_CHECKING:
    from cluster.model.graph.rotary import RotaryTable

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Factored:
    """Heads [rows, heads, width], and factors [rows, heads, 1] that are not applied to them yet."""

    heads: F32
    factors: F32


class GraphError(ClusterError):
    """An op that cannot be: it names the op, its inputs and the rule that is broken."""

    def __init__(self, op: str, inputs: tuple[str, ...], rule: str) -> None:
        super().__init__(op, inputs, rule)
        self.op, self.inputs, self.rule = op, inputs, rule

    def __str__(self) -> str:
        return f"{self.op}({', '.join(self.inputs)}): {self.rule}"


class Spread(Enum):
    """How the ranks of a tensor-parallel group hold a value."""

    WHOLE = "whole"  # all of it, on every rank
    SPLIT = "split"  # a share of its first dimension that can be cut, on every rank
    PARTIAL = "partial"  # a summand of it, on every rank


class Run(Protocol):
    """What an op's meaning may ask of the interpreter, for one rank.

    Values are arrays [rows, *sizes of dims], float32; integer ones are float32 where the meaning is
    `reference`, and Int8Rows or Int16Rows where it is `exact`.
    """

    @property
    def rank(self) -> int:
        """The rank; 0 where nothing is cut."""

    def weight(self, weight: Weight) -> F32:
        """The rank's share of a weight, [out, in] or a vector."""

    def product(self, weight: Weight, x: F32) -> F32:
        """x [rows, in] times the rank's share of a matrix: [rows, out] in float32."""

    def int8(self, weight: Weight) -> Int8Matrix:
        """The rank's share of a matrix as int8; rows have the scale of the whole row."""

    def positions(self) -> NDArray[np.int64]:
        """Position of each row in its sequence."""

    def turns(self, table: "RotaryTable") -> tuple[F32, F32]:
        """Cosine and sine [rows, width / 2] at each row's position."""

    def append(self, op: "Op", key: F32, value: F32) -> tuple[F32, F32]:
        """Append rows to the cache of an op; all keys and values so far [kv_heads, tokens, ..]."""

    def kv_of(self, heads: Dim, kv_heads: Dim) -> tuple[int, ...]:
        """The rank's KV head that each of its query heads looks at."""

    def layout(self, dims: tuple[Dim, ...]) -> Layout:
        """The lanes of the rank's share of a value of these dimensions."""

    @property
    def holds_bias(self) -> bool:
        """Whether this rank's summand of a product has the bias: one of them does."""

    def own_experts(self, count: int) -> range:
        """Which of `count` experts the rank holds, or parts of."""

    def counted(self, dim: Dim) -> slice:
        """Items of the rank's share of a dimension that a sum over ranks counts here."""


@dataclass(frozen=True)
class Op:
    """An op with its result; fields of type Value are inputs, of type Weight weights."""

    out: Value

    kind: ClassVar[str] = ""
    multiplied: ClassVar[tuple[str, ...]] = ()  # inputs that are int8 where weights are
    mixes_rows: ClassVar[bool] = False  # whether a row of the result depends on other rows
    collective: ClassVar[bool] = False  # whether it sees every rank's summands, as a list

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """Values it reads, in order."""
        return tuple(v for v in self._fields() if isinstance(v, Value) and v is not self.out)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Weights it reads, in order."""
        return tuple(v for v in self._fields() if isinstance(v, Weight))

    def with_values(self, values: Mapping[Value, Value]) -> Self:
        """The same op with some of its values replaced."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        new = {n: values[v] for n, v in found.items() if isinstance(v, Value) and v in values}
        return replace(self, **new)

    def products_per_row(self, context: int) -> int:
        """Multiply-adds of a matrix unit for a row that looks back at `context` tokens."""
        return 0

    @property
    def takes_sequence(self) -> bool:
        """Whether all rows of a sequence must be in one launch."""
        return False

    @property
    def cached_elements(self) -> int:
        """Elements that a token adds to the op's cache."""
        return 0

    def _fields(self) -> list[Any]:
        return [getattr(self, name) for name in self.__dataclass_fields__]

    def require(self, holds: bool, rule: str) -> None:
        """Raise GraphError with the rule unless it holds."""
        if not holds:
            raise GraphError(self.kind, tuple(value.name for value in self.inputs), rule)

    def check(self) -> None:
        """Raise GraphError unless shapes and settings agree."""

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """How ranks hold the result, given how they hold the inputs."""
        raise NotImplementedError

    def reference(self, run: Run, *inputs: Any) -> Any:
        """The result in float32 NumPy."""
        raise NotImplementedError

    def exact(self, run: Run, *inputs: Any) -> Any:
        """The result bit for bit as chips compute it, for graphs with int8 weights."""
        raise NotImplementedError


OPS: dict[str, type[Op]] = {}
T = TypeVar("T", bound=type[Op])


def register(cls: T) -> T:
    """Class decorator: make an op known under its `kind`."""
    assert cls.kind and cls.kind not in OPS, cls.kind
    OPS[cls.kind] = cls
    return cls
