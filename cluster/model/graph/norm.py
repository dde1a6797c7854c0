"""RMSNorm and LayerNorm, over a row, over each head of it, or over all heads together."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from chip.numerics import rsqrt
from cluster.model.graph.int8 import Int8Rows, Int16Rows, group_sum, integers_of, lane_sum
from cluster.model.graph.op import F32, Factored, Op, Run, Spread, register
from cluster.model.graph.values import Value, Weight, names

KINDS = ("rms", "layer")


@register
@dataclass(frozen=True)
class Norm(Op):
    """out = x / sqrt(mean square of x + eps) * weight; "layer" takes off the mean, adds a bias.

    The mean runs over the last dimensions of x, as many as the weight has: over `hidden`, over
    `head_dim` (each head by itself), or over heads and `head_dim` (all heads of a row together).
    """

    kind: ClassVar[str] = "norm"

    x: Value
    weight: Weight
    eps: float
    form: str = "rms"
    bias: Weight | None = None

    def check(self) -> None:
        """The weight has the last dimensions of x; a bias only with "layer"."""
        own, last = self.weight.out, self.x.dims[-len(self.weight.out) :]
        self.require(self.form in KINDS, f"form {self.form} is not one of {KINDS}")
        self.require(own == last, f"x has {names(self.x.dims)}, the weight {names(own)}")
        self.require(self.out.dims == self.x.dims, "the result has other dimensions")
        self.require(not self.out.integers or self.may_be_int8, "this norm cannot make integers")
        self.require((self.bias is not None) == (self.form == "layer"), "a bias goes with layer")
        self.require(self.eps > 0, f"eps is {self.eps}")

    @property
    def over(self) -> tuple[str, ...]:
        """Names of the dimensions that the mean runs over."""
        return names(self.weight.out)

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input; over dimensions that are cut, ranks add up their sums of squares."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]

    def sums_over_ranks(self, x: Spread) -> bool:
        """Whether the mean runs over what ranks share."""
        return x is Spread.SPLIT and len(self.weight.out) == len(self.x.dims)

    @property
    def may_be_int8(self) -> bool:
        """Whether its rows can be made int8 before they are scaled: one factor for all of a row."""
        return self.form == "rms" and len(self.weight.out) == len(self.x.dims)

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        rows, bias = self._rows(x), None
        if self.bias is not None:
            rows, bias = rows - rows.mean(axis=-1, keepdims=True), run.weight(self.bias)
        mean = np.square(rows).sum(axis=-1, keepdims=True) / np.float32(rows.shape[-1])
        normed = rows / np.sqrt(mean + np.float32(self.eps)) * run.weight(self.weight)
        result: F32 = normed if bias is None else normed + bias
        return result.reshape(x.shape)

    def exact(self, run: Run, x: F32) -> F32 | Int8Rows | Int16Rows:
        """As chips compute it; integers are rounded first, and their step is scaled."""
        rows, weight = self._rows(x), run.weight(self.weight)
        share = np.float32(1 / rows.shape[-1])
        whole = len(self.weight.out) == len(self.x.dims)
        squares = np.square(rows)
        square = (
            lane_sum(squares, run.layout(self.x.dims)) if whole else group_sum(squares)
        ) * share
        if self.bias is not None:
            mean = lane_sum(rows, run.layout(self.x.dims)) * share
            spread = rsqrt(np.maximum(square - mean * mean, np.float32(0)) + np.float32(self.eps))
            return ((rows - mean) * spread * weight + run.weight(self.bias)).reshape(x.shape)
        factor = rsqrt(square + np.float32(self.eps))
        if self.out.integers:
            return integers_of(self.out.dtype, (rows * weight).reshape(x.shape), factor)
        normed: F32 = rows * factor * weight
        return normed.reshape(x.shape)

    def exact_turned(self, run: Run, x: F32) -> Factored:
        """As chips compute it for a rotary embedding, which multiplies what it has turned."""
        heads = x.reshape(-1, x.shape[-1])
        square = group_sum(np.square(heads)) * np.float32(1 / x.shape[-1])
        factor = rsqrt(square + np.float32(self.eps))
        return Factored(x * run.weight(self.weight), factor.reshape(*x.shape[:-1], 1))

    def _rows(self, x: F32) -> F32:
        """What is normed together, as rows."""
        return x.reshape(-1, prod(x.shape[-len(self.weight.out) :]))


@register
@dataclass(frozen=True)
class SquareSum(Op):
    """out = the sum of the squares of a row, of which each rank has a summand.

    Heads that two ranks hold, the first of them counts.
    """

    kind: ClassVar[str] = "square_sum"

    x: Value

    def check(self) -> None:
        """The result has no dimensions: a number for each row."""
        self.require(self.out.dims == (), "the result must be one number")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """A summand, of what is cut."""
        self.require(inputs[0] is Spread.SPLIT, "its input must be cut")
        return Spread.PARTIAL

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        total: F32 = self._squares(run, x).sum(axis=1)
        return total

    def exact(self, run: Run, x: F32) -> F32:
        """In the order of lanes."""
        return lane_sum(self._squares(run, x), run.layout(self.x.dims))[:, 0]

    def _squares(self, run: Run, x: F32) -> F32:
        """Squares of the row, 0 for heads that another rank counts."""
        counted, squares = run.counted(self.x.dims[0]), np.zeros_like(x)
        squares[:, counted] = np.square(x[:, counted])
        return squares.reshape(len(x), -1)


@register
@dataclass(frozen=True)
class NormBySum(Op):
    """RMSNorm over what ranks share: out = x / sqrt(total / count + eps) * weight.

    `total` is the sum of the squares over all ranks, of `count` elements.
    """

    kind: ClassVar[str] = "norm_by_sum"

    x: Value
    total: Value
    weight: Weight
    eps: float

    def check(self) -> None:
        """The weight has the dimensions of x, the total none."""
        self.require(self.weight.out == self.x.dims == self.out.dims, "dimensions differ")
        self.require(self.total.dims == (), "the total must be one number")
        self.require(self.eps > 0, f"eps is {self.eps}")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As x; the total is whole."""
        self.require(inputs[1] is Spread.WHOLE, "the total must be summed up before")
        self.require(inputs[0] is Spread.SPLIT, "x must be cut")
        return Spread.SPLIT

    def reference(self, run: Run, x: F32, total: F32) -> F32:
        """In float32."""
        root = np.sqrt(total / np.float32(self.x.width) + np.float32(self.eps))
        normed: F32 = x.reshape(len(x), -1) / root[:, None] * run.weight(self.weight)
        return normed.reshape(x.shape)

    def exact(self, run: Run, x: F32, total: F32) -> F32 | Int8Rows | Int16Rows:
        """As chips compute it; integers are rounded first, and their step is scaled."""
        mean = total[:, None] * np.float32(1 / self.x.width)
        factor = rsqrt(mean + np.float32(self.eps))
        rows, weight = x.reshape(len(x), -1), run.weight(self.weight)
        if self.out.integers:
            return integers_of(self.out.dtype, (rows * weight).reshape(x.shape), factor)
        normed: F32 = rows * factor * weight
        return normed.reshape(x.shape)
