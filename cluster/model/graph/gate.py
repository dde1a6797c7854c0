"""Point-wise activations: with a gate, and without."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.op import Op, Spread, register
from cluster.model.graph.values import Value

FUNCTIONS = ("silu", "gelu")  # gelu is its tanh form


@register
@dataclass(frozen=True)
class Gate(Op):
    """out = function(gate) * up."""

    kind: ClassVar[str] = "gate"

    gate: Value
    up: Value
    function: str

    def check(self) -> None:
        """Both inputs have the dimensions of the result."""
        self.require(self.function in FUNCTIONS, f"{self.function} is not one of {FUNCTIONS}")
        self.require(self.gate.dims == self.up.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As both inputs."""
        self.require(len(set(inputs)) == 1, "both inputs must be cut alike")
        self.require(inputs[0] is not Spread.PARTIAL, "its inputs must be summed up before")
        return inputs[0]


@register
@dataclass(frozen=True)
class Activation(Op):
    """out = function(x)."""

    kind: ClassVar[str] = "activation"

    x: Value
    function: str

    def check(self) -> None:
        """The function is known, and keeps the dimensions."""
        self.require(self.function in FUNCTIONS, f"{self.function} is not one of {FUNCTIONS}")
        self.require(self.x.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]
