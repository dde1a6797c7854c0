"""Products with a weight matrix."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.int8 import Int8Rows, Int16Rows
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import SHARDED, Value, Weight, names


@register
@dataclass(frozen=True)
class Linear(Op):
    """out = weight . x (+ bias); with int8 weights x is an `i8` or `i16` value."""

    kind: ClassVar[str] = "linear"
    multiplied: ClassVar[tuple[str, ...]] = ("x",)

    x: Value
    weight: Weight
    bias: Weight | None = None

    def check(self) -> None:
        """Dimensions of x are the inner ones of the weight, those of the result its outer ones."""
        self.require(
            self.x.dims == self.weight.inner,
            f"x has {names(self.x.dims)}, {self.weight.name} takes {names(self.weight.inner)}",
        )
        self.require(self.out.dims == self.weight.out, "the result has other dimensions")
        if self.bias is not None:
            self.require(self.bias.out == self.weight.out, "the bias has other dimensions")

    @property
    def cut_outputs(self) -> bool:
        """Whether tensor parallelism may cut the rows of the matrix."""
        return bool(self.weight.out) and self.weight.out[0].name in SHARDED

    @property
    def cut_inputs(self) -> bool:
        """Whether tensor parallelism cuts the columns of the matrix."""
        return self.weight.inner[0].name in SHARDED

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """Rows are cut where they can be; columns where the input is: then ranks hold summands."""
        (x,) = inputs
        if x is Spread.SPLIT:
            self.require(not self.cut_outputs, "both its inputs and its outputs would be cut")
            return Spread.PARTIAL
        self.require(x is Spread.WHOLE, "its input must be whole on every rank")
        return Spread.SPLIT if self.cut_outputs else Spread.WHOLE

    def products_per_row(self, context: int) -> int:
        """One for each weight."""
        return self.out.width * self.x.width

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        return self._biased(run, run.product(self.weight, x.reshape(len(x), -1)))

    def exact(self, run: Run, x: Int8Rows | Int16Rows) -> F32:
        """Sums of integers, rescaled."""
        return self._biased(run, run.int8(self.weight).dot(x))

    def _biased(self, run: Run, product: F32) -> F32:
        """With the bias, which only one of several summands has."""
        if self.bias is not None and not (self.cut_inputs and run.rank):
            product = product + run.weight(self.bias)
        return product.reshape(len(product), -1, *(dim.size for dim in self.out.dims[1:]))
