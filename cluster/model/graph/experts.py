"""Products with the matrices of the experts that each row has chosen."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from cluster.model.graph.int8 import Int8Rows, Int16Rows
from cluster.model.graph.op import F32, Op, Run, Spread, register
from cluster.model.graph.route import CHOICE
from cluster.model.graph.values import SHARDED, Dim, Value, Weight, names


@register
@dataclass(frozen=True)
class ExpertLinear(Op):
    """out[c] = weight[e] . x (+ bias[e]), for each of the experts e = choice[0, c] of a row.

    Where each of them has an x of its own, they are added up, each times choice[1, c].
    """

    kind: ClassVar[str] = "expert_linear"
    multiplied: ClassVar[tuple[str, ...]] = ("x",)

    x: Value
    choice: Value
    weight: Weight
    bias: Weight | None = None
    ep: int | None = None  # parts of a group that experts are spread over; whole groups, if None

    def check(self) -> None:
        """The weight is [experts, *out, *inner]; x is [*inner], or [chosen, *inner]."""
        self.require(len(self.choice.dims) == 2, "the choice must be [choice, chosen]")
        self.require(self.choice.dims[0] == CHOICE, "the choice must be [choice, chosen]")
        self.require(len(self.weight.out) == 2, "the weight must be [experts, out]")
        chosen, out = self.choice.dims[1], self.weight.out[1:]
        inner = (chosen, *self.weight.inner) if self.adds else self.weight.inner
        self.require(
            self.x.dims == inner, f"x has {names(self.x.dims)}, the weight takes {names(inner)}"
        )
        wanted = out if self.adds else (chosen, *out)
        self.require(self.out.dims == wanted, "the result has other dimensions")
        if self.bias is not None:
            self.require(self.bias.out == self.weight.out, "the bias has other dimensions")

    @property
    def experts(self) -> int:
        """How many there are."""
        return self.weight.out[0].size

    @property
    def held(self) -> int:
        """How many each part of a group holds."""
        return self.experts // (self.ep or 1)

    @property
    def chosen(self) -> int:
        """How many each row has chosen."""
        return self.choice.dims[1].size

    @property
    def adds(self) -> bool:
        """Whether each expert has an x of its own, and their results are added up."""
        return self.x.dims[0] == self.choice.dims[1]

    @property
    def cut_inputs(self) -> bool:
        """Whether tensor parallelism cuts the columns of the matrices."""
        return self.weight.inner[0].name in SHARDED

    @property
    def each(self) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
        """Dimensions of x and of the result for one expert."""
        return self.weight.inner, self.weight.out[1:]

    def spread(self, inputs: tuple[Spread, ...]) -> Spread:
        """As a product: rows of matrices are cut, or columns, of which ranks hold summands."""
        x, choice = inputs
        own = Spread.WHOLE if self.ep is None else Spread.SPLIT
        self.require(choice is own, "the choice must be whole on every rank, or its own")
        cut = self.weight.out[1].name in SHARDED
        if x is Spread.SPLIT:
            self.require(not cut, "both its inputs and its outputs would be cut")
            return Spread.PARTIAL
        self.require(x is Spread.WHOLE, "its input must be whole on every rank")
        return Spread.SPLIT if cut or self.ep is not None else Spread.WHOLE

    def products_per_row(self, context: int) -> int:
        """One for each weight of the chosen experts."""
        out, inner = self.weight.shape
        return self.chosen * (out // self.experts) * inner

    def reference(self, run: Run, x: F32, choice: F32) -> F32:
        """In float32."""
        matrices = run.weight(self.weight)
        matrices = matrices.reshape(self.held, -1, matrices.shape[1])
        numbers = choice[:, 0].astype(np.int64)
        found = np.stack(
            [
                np.stack([matrices[e] @ self._of(x[row], c) for c, e in enumerate(mine)])
                for row, mine in enumerate(numbers)
            ]
        )
        return self._given(run, found, choice)

    def exact(self, run: Run, x: Int8Rows | Int16Rows, choice: F32) -> F32:
        """As chips compute it: sums of integers, times the row's step, then the expert's scales."""
        matrices, numbers = run.int8(self.weight), choice[:, 0].astype(np.int64)
        integers = matrices.integers.reshape(self.held, -1, matrices.integers.shape[1])
        scales = matrices.scales.reshape(self.held, -1)
        found = np.empty((*numbers.shape, scales.shape[1]), np.float32)
        for row, mine in enumerate(numbers):
            for c, e in enumerate(mine):
                own = x.of_each(partial(self._row_of, row, c))
                found[row, c] = own.sums(integers[e])[0] * x.steps[row] * scales[e]
        return self._given(run, found, choice)

    def _row_of(self, row: int, slot: int, x: F32) -> F32:
        """What one of a row's experts takes, as a row."""
        return self._of(x[row], slot).reshape(1, -1)

    def _of(self, x: F32, slot: int) -> F32:
        """What one of a row's experts takes."""
        mine: F32 = np.ravel(x[slot] if self.adds else x)
        return mine

    def _given(self, run: Run, found: F32, choice: F32) -> F32:
        """Products [rows, chosen, out] with biases, of which one of several summands has them.

        Where they are added up, that is in order, each times its gate.
        """
        if self.bias is not None and (run.holds_bias or not self.cut_inputs):
            biases = run.weight(self.bias).reshape(self.held, -1)
            found = found + biases[choice[:, 0].astype(np.int64)]
        if not self.adds:
            return found
        total: F32 = found[:, 0] * choice[:, 1, :1]
        for slot in range(1, self.chosen):
            total = total + found[:, slot] * choice[:, 1, slot : slot + 1]
        return total
