"""Products of each head with a matrix of its own."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from cluster.model.graph.int8 import Int8Rows, Int16Rows
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.values import Value, Weight, names


@register
@dataclass(frozen=True)
class HeadLinear(Op):
    """out[h] = weight[h] . x[h], for every head h."""

    kind: ClassVar[str] = "head_linear"
    multiplied: ClassVar[tuple[str, ...]] = ("x",)

    x: Value
    weight: Weight

    def check(self) -> None:
        """x is [heads, in], the weight [heads, out, in], the result [heads, out]."""
        self.require(len(self.x.dims) == len(self.out.dims) == 2, "x must be [heads, in]")
        heads, inner = self.x.dims
        self.require(
            self.weight.inner == (inner,),
            f"x has {names(self.x.dims)}, {self.weight.name} takes {names(self.weight.inner)}",
        )
        self.require(self.weight.out == self.out.dims, "the result has other dimensions")
        self.require(self.out.dims[0] == heads, "the result has other heads")

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As its input: heads are cut alike."""
        self.require(inputs[0] is not Spread.PARTIAL, "its input must be summed up before")
        return inputs[0]

    def products_per_row(self, context: int) -> int:
        """One for each weight."""
        return self.out.width * self.x.dims[1].size

    def reference(self, run: Run, x: F32) -> F32:
        """In float32."""
        matrices = run.weight(self.weight).reshape(x.shape[1], -1, x.shape[2])
        product: F32 = np.einsum("rhi,hoi->rho", x, matrices)
        return product

    def exact(self, run: Run, x: Int8Rows | Int16Rows) -> F32:
        """Sums of integers, times the row's step, then the scale of the output."""
        matrix, (rows, heads, inner) = run.int8(self.weight), x.shape
        integers = matrix.integers.reshape(heads, -1, inner)
        own = (x.of_each(partial(np.take, indices=h, axis=1)) for h in range(heads))
        sums = np.stack([mine.sums(integers[h]) for h, mine in enumerate(own)], axis=1)
        product = sums.reshape(rows, -1) * x.steps * matrix.scales
        return product.reshape(rows, heads, -1)
