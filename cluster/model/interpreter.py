"""Runs a section of a graph on its ranks in plain NumPy, op by op; see `reference` for models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chip.kernels.layout import Layout
from cluster.compiler.fused import turned_before
from cluster.compiler.quantise import fixed_steps, multiplied
from cluster.compiler.shard import Sharded
from cluster.model.graph.graph import Section
from cluster.model.graph.int8 import Int8Matrix
from cluster.model.graph.linear import Linear
from cluster.model.graph.norm import Norm
from cluster.model.graph.op import F32, Op, Spread
from cluster.model.graph.rotary import RotaryTable
from cluster.model.graph.values import Dim, Weight

Caches = dict[str, tuple[F32, F32]]  # keys and values of a rank, by op


class Stage:
    """A section on its ranks, with its weights and caches of `context` tokens.

    `arrays` are [out, in] or vectors, for all ranks together; `exact` computes as chips do.
    """

    def __init__(
        self, cut: Sharded, arrays: Mapping[Weight, F32], context: int = 1, exact: bool = False
    ) -> None:
        self.section = cut.section
        int8 = {}
        if exact:
            multiplying = [op for op in self.section.ops if op.multiplied]
            for op in multiplying:
                steps = [fixed_steps(self.section, value) for value in multiplied(op)]
                factor = arrays[steps[0]] if steps[0] else np.float32(1)
                for weight in (w for w in op.weights if w.inner):
                    int8[weight] = Int8Matrix.of(arrays[weight] * factor)
        ranks = [_Rank(cut, rank, arrays, int8, context) for rank in range(cut.shares.tp)]
        spreads = dict(cut.spreads)
        self._ranks, self._steps = ranks, []
        for op in self.section.ops:
            held = tuple(spreads[value.name] for value in op.inputs)
            users = ranks if spreads[op.out.name] is not Spread.WHOLE else ranks[:1]
            meaning = on_chips(self.section, op) if exact else op.reference
            names = tuple(value.name for value in op.inputs)
            self._steps.append(_Step(op, meaning, names, held if op.collective else (), users))

    def swap(self, caches: list[Caches] | None) -> list[Caches]:
        """Go on with the caches of another sequence, or with none; return those of this."""
        before = [rank.caches for rank in self._ranks]
        for rank, mine in zip(self._ranks, caches or [{} for _ in before], strict=True):
            rank.caches = mine
        return before

    def run(self, x: F32, positions: NDArray[np.int64]) -> F32:
        """The section's result; a split one is put together."""
        parts = self.values(x, positions)[self.section.out.name]
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def values(self, x: F32, positions: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Every value by its name, on each rank: one where all hold the same."""
        for rank in self._ranks:
            rank.begin(positions)
        values: dict[str, list[Any]] = {self.section.x.name: [x]}
        for step in self._steps:
            values[step.op.out.name] = step.run([values[name] for name in step.names])
        return values


def on_chips(section: Section, op: Op) -> Callable[..., Any]:
    """What an op computes on chips."""
    if isinstance(op, Norm) and turned_before(section, op):
        return op.exact_turned
    return op.exact


@dataclass(frozen=True)
class _Step:
    """An op with its meaning and inputs; what all ranks hold is computed once, for the first.

    `held` says how ranks hold the inputs of an op that sees the summands of all.
    """

    op: Op
    meaning: Callable[..., Any]
    names: tuple[str, ...]
    held: tuple[Spread, ...]
    ranks: list["_Rank"]

    def run(self, inputs: list[list[Any]]) -> list[Any]:
        """The result on each rank, given the inputs on each: one where all hold the same."""
        if self.op.collective:
            given = zip(self.held, inputs, strict=True)
            summands = [parts if how is Spread.PARTIAL else parts[0] for how, parts in given]
            return [self.meaning(self.ranks[0], *summands)]
        return [
            self.meaning(rank, *[parts[rank.rank % len(parts)] for parts in inputs])
            for rank in self.ranks
        ]


class _Rank:
    """What an op may ask for, on one rank; see graph.op.Run. Weights are known by their names."""

    def __init__(
        self,
        cut: Sharded,
        rank: int,
        arrays: Mapping[Weight, F32],
        int8: Mapping[Weight, Int8Matrix],
        context: int,
    ) -> None:
        self.rank, self._shares, self._context = rank, cut.shares, context
        self._positions = np.arange(0)
        self.caches: Caches = {}
        self._int8 = {
            w.name: Int8Matrix(
                self._share(m.integers, w), self._share(m.scales, Weight(w.name, w.out))
            )
            for w, m in int8.items()
        }
        self._beside: dict[str, _SideBySide] = {}
        linears = [] if int8 else [op for op in cut.section.ops if isinstance(op, Linear)]
        for x in dict.fromkeys(op.x for op in linears):
            weights = [op.weight for op in linears if op.x == x]
            parts = [self._share(arrays[weight], weight) for weight in weights]
            names = [weight.name for weight in weights]
            self._beside |= dict.fromkeys(names, _SideBySide(names, parts))
        known = self._int8.keys() | self._beside.keys()
        others = {w: array for w, array in arrays.items() if w.name not in known}
        self._weights = {w.name: self._share(array, w) for w, array in others.items()}
        # of one launch, and of all
        self._products: dict[_SideBySide, F32] = {}
        self._turns: dict[RotaryTable, tuple[F32, F32]] = {}
        self._kv_of: dict[tuple[Dim, Dim], tuple[int, ...]] = {}

    def _share(self, array: F32, weight: Weight) -> F32:
        return self._shares.cut(array, weight, self.rank)

    def begin(self, positions: NDArray[np.int64]) -> None:
        """Take the positions of the rows of a launch."""
        self._positions = positions
        self._products.clear()
        self._turns.clear()

    def positions(self) -> NDArray[np.int64]:
        """Position of each row."""
        return self._positions

    def weight(self, weight: Weight) -> F32:
        """The rank's share of a vector, or of a matrix that no Linear multiplies by."""
        return self._weights[weight.name]

    def product(self, weight: Weight, x: F32) -> F32:
        """x times the rank's share of a matrix."""
        beside = self._beside[weight.name]
        if beside not in self._products:
            self._products[beside] = x @ beside.matrix.T
        return self._products[beside][:, beside.columns[weight.name]]

    def int8(self, weight: Weight) -> Int8Matrix:
        """The rank's share of a matrix as int8."""
        return self._int8[weight.name]

    def turns(self, table: RotaryTable) -> tuple[F32, F32]:
        """Cosine and sine of the rows."""
        if table not in self._turns:
            cosine, sine = _turns(table, self._context)
            self._turns[table] = cosine[self._positions], sine[self._positions]
        return self._turns[table]

    def append(self, op: Op, key: F32, value: F32) -> tuple[F32, F32]:
        """Append rows to a cache; all so far [kv_heads, tokens, ..]."""
        if op.out.name not in self.caches:
            self.caches[op.out.name] = self._empty(key), self._empty(value)
        start, end = self._positions[0], self._positions[-1] + 1
        for cache, rows in zip(self.caches[op.out.name], (key, value), strict=True):
            cache[:, start:end] = rows.swapaxes(0, 1)
        keys, values = self.caches[op.out.name]
        return keys[:, :end], values[:, :end]

    def _empty(self, rows: F32) -> F32:
        return np.zeros((rows.shape[1], self._context, rows.shape[2]), np.float32)

    def kv_of(self, heads: Dim, kv_heads: Dim) -> tuple[int, ...]:
        """The KV head of each query head."""
        pair = heads, kv_heads
        if pair not in self._kv_of:
            self._kv_of[pair] = self._shares.kv_of(heads, kv_heads, self.rank)
        return self._kv_of[pair]

    @property
    def holds_bias(self) -> bool:
        """Whether this rank's summand has the bias."""
        return self._shares.holds_bias(self.rank)

    def own_experts(self, count: int) -> range:
        """Which of `count` experts the rank holds."""
        return self._shares.own_experts(count, self.rank)

    def layout(self, dims: tuple[Dim, ...]) -> Layout:
        """The lanes of a value."""
        return self._shares.layout(dims, self.rank)

    def counted(self, dim: Dim) -> slice:
        """Items that a sum over ranks counts here."""
        return self._shares.counted(dim, self.rank)


@lru_cache(maxsize=16)
def _turns(table: RotaryTable, context: int) -> tuple[F32, F32]:
    """Cosine and sine [context, width / 2] of every position."""
    return table.turns(np.arange(context))


class _SideBySide:
    """Matrices [out, in] that meet the same input: one product for all of them."""

    def __init__(self, names: Sequence[str], parts: Sequence[F32]) -> None:
        bounds = np.cumsum([0, *map(len, parts)])
        self.columns = {n: slice(*bounds[i : i + 2]) for i, n in enumerate(names)}
        self.matrix = np.concatenate(parts) if len(parts) > 1 else parts[0]
