"""Rows as integers: what the `quantise` pass puts before products with int8 weights."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.model.graph.int8 import Int8Rows, Int16Rows, integers_of, with_steps
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value, Weight


@register
@dataclass(frozen=True)
class Quantise(Op):
    """out = x as integers, each row (of a rank's share) scaled by its largest magnitude.

    In int8 step = max |x| / 127 and q = round(x * (127 / max |x|)), to nearest even: x is about
    q * step. In 16 bits what that leaves is rounded to 254ths of a step, which is its step then.
    With `steps`, fixed ones, each element of a row has its own, and matrices that rows meet have it
    as a factor of their columns, before they are rounded; what is beyond 127 of them becomes 127.
    """

    kind: ClassVar[str] = "quantise"

    x: Value
    steps: Weight | None = None

    def check(self) -> None:
        """The result is integers with the dimensions of x; those of fixed steps are int8."""
        self.require(self.out.integers, "the result must be integers")
        fits = self.steps is None or self.steps.out == self.x.dims
        self.require(fits, "there must be a step for each element of a row")
        self.require(self.steps is None or self.out.dtype == "i8", "fixed steps are for int8")
        self.require(self.x.dims == self.out.dims, "dimensions differ")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]

    def reference(self, run: Run, x: F32) -> F32:
        """x: float32 knows no rounding."""
        return x

    def exact(self, run: Run, x: F32) -> Int8Rows | Int16Rows:
        """Rounded."""
        if self.steps is not None:
            return with_steps(x, run.weight(self.steps))
        return integers_of(self.out.dtype, x)
