"""What every op of a graph has: shapes, a rule of sharding, a meaning, a kernel.

An op is a frozen dataclass; registering it is defining it. Its inputs and weights are its fields
of those types.
"""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.errors import ClusterError
from cluster.model.graph.values import Value, Weight

F32 = NDArray[np.float32]


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
    """What an op's meaning may ask of the interpreter, for one rank."""

    def weight(self, weight: Weight) -> F32:
        """The rank's share of a weight, [out, in] or a vector."""

    def positions(self) -> NDArray[np.int64]:
        """Position of each row in its sequence."""


@dataclass(frozen=True)
class Op:
    """An op with its result; fields of type Value are inputs, of type Weight weights."""

    out: Value

    kind: ClassVar[str] = ""

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Values it reads, in order."""
        return tuple(v for v in self._fields() if isinstance(v, Value) and v is not self.out)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Weights it reads, in order."""
        return tuple(v for v in self._fields() if isinstance(v, Weight))

    def _fields(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

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
