"""Point-wise activations: with a gate, and without."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chip.numerics import exp, reciprocal, tanh
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value

# gelu is its tanh form; gelu_erf that with the error function, which chips compute as the former
FUNCTIONS = ("silu", "gelu", "gelu_erf")


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

    def reference(self, run: Run, gate: F32, up: F32) -> F32:
        """In float32."""
        return activation(gate, self.function) * up

    def exact(self, run: Run, gate: F32, up: F32) -> F32:
        """As chips compute it: sigmoid * (gate * up)."""
        return sigmoid(gate, self.function) * (gate * up)


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

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        return activation(x, self.function)

    def exact(self, run: Run, x: F32) -> F32:
        """As chips compute it: sigmoid * x, or GELU with tanh."""
        if self.function == "silu":
            return sigmoid(x, self.function) * x
        cubic = np.float32(0.044715 * np.sqrt(2 / np.pi))
        inner = x * cubic * (x * x + np.float32(1 / 0.044715))
        return (tanh(inner) + np.float32(1)) * x * np.float32(0.5)


def activation(x: F32, function: str) -> F32:
    """One of FUNCTIONS in float32."""
    result: F32
    if function == "silu":
        result = x / (1 + np.exp(-x))
    elif function == "gelu":
        inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
        result = np.float32(0.5) * x * (1 + np.tanh(inner))
    else:
        from scipy.special import erf

        result = x * (0.5 * (1 + erf(x / np.sqrt(np.float32(2))))).astype(np.float32)
    return result


def sigmoid(x: F32, function: str) -> F32:
    """What chips multiply x by, bit for bit: a sigmoid of x, or of what GELU's tanh form has."""
    minus = -x
    if function != "silu":
        root = np.sqrt(2 / np.pi)
        minus = x * (x * x * np.float32(-2 * root * 0.044715) + np.float32(-2 * root))
    return reciprocal(exp(minus) + np.float32(1))
