"""What of a dimension each rank of a tensor-parallel group holds."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from chip.kernels.layout import LANES, Layout, even, grouped, one_by_one
from cluster.model.graph.op import F32
from cluster.model.graph.values import SHARDED, Dim, Weight


def share(total: int, tp: int, rank: int) -> range:
    """Rank's part of `total` items, cut as evenly as possible."""
    base, extra = divmod(total, tp)
    start = rank * base + min(rank, extra)
    return range(start, start + base + (rank < extra))


@dataclass(frozen=True)
class Part:
    """Items of a dimension that a rank holds, and behind them zeros."""

    items: range
    zeros: int = 0

    def __len__(self) -> int:
        return len(self.items) + self.zeros


@dataclass(frozen=True)
class Shares:
    """How `tp` ranks cut the dimensions of a section.

    Query heads are cut as evenly as can be; ranks with one head less than others have a head of
    zeros, which adds nothing: so there may be more ranks than heads. Each rank holds the KV heads
    that its query heads look at, so that two ranks may hold the same one: `groups` has the pairs
    (KV heads, query heads) of a section.
    Experts are spread over `ep` parts of the group, each of neighbours that cut what they hold.
    """

    tp: int
    groups: tuple[tuple[Dim, Dim], ...] = ()
    ep: int = 1

    @property
    def part_ranks(self) -> int:
        """Ranks that cut the same experts."""
        return self.tp // self.ep

    def own_experts(self, count: int, rank: int) -> range:
        """Which of `count` experts a rank holds, or parts of."""
        return share(count, self.ep, rank // self.part_ranks)

    def holds_bias(self, rank: int) -> bool:
        """Whether a rank's summand of a product with experts has the biases of these."""
        return rank % self.part_ranks == 0

    def part(self, dim: Dim, rank: int) -> Part:
        """What a rank holds of a dimension: all of those that are never cut."""
        if dim.name not in SHARDED:
            return Part(range(dim.size))
        if dim.name == "expert_ffn":
            return Part(share(dim.size, self.part_ranks, rank % self.part_ranks))
        heads = dict(self.groups).get(dim)
        if heads is not None and heads != dim:
            mine, group = share(heads.size, self.tp, rank), heads.size // dim.size
            if not mine:  # the head of zeros looks at the last one
                return Part(range(dim.size - 1, dim.size))
            return Part(range(mine.start // group, (mine.stop - 1) // group + 1))
        mine = share(dim.size, self.tp, rank)
        padded = dim in dict(self.groups).values()
        return Part(mine, len(share(dim.size, self.tp, 0)) - len(mine) if padded else 0)

    def counted(self, dim: Dim, rank: int) -> slice:
        """Which of the rank's items no rank before it holds: a sum over ranks counts these."""
        mine = self.part(dim, rank).items
        before = self.part(dim, rank - 1).items.stop if rank else 0
        return slice(max(0, before - mine.start), len(mine))

    def kv_of(self, heads: Dim, kv_heads: Dim, rank: int) -> tuple[int, ...]:
        """The local KV head of each local query head, also of one of zeros."""
        mine, first = self.part(heads, rank), self.part(kv_heads, rank).items.start
        group = heads.size // kv_heads.size
        local = [head // group - first for head in mine.items]
        return tuple(local + (local[-1:] or [0]) * mine.zeros)

    def layout(self, dims: tuple[Dim, ...], rank: int) -> Layout:
        """The lanes of a rank's share of a value of these dimensions, in graphs with int8 weights.

        Each query head has a row to itself, in the lanes of its KV head.
        """
        for kv_heads, heads in self.groups:
            if len(dims) == 2 and dims[0] in (heads, kv_heads):
                width = dims[1].size
                count = max(len(self.part(kv_heads, other)) for other in range(self.tp))
                per_row = min(count, LANES // width)
                if dims[0] == kv_heads:
                    return grouped(count, width, per_row)
                kv_of = self.kv_of(heads, kv_heads, rank)
                return one_by_one([kv % per_row * width for kv in kv_of], width)
        return even(prod(len(self.part(dim, rank)) for dim in dims), "i8")

    def cut(self, array: F32, weight: Weight, rank: int) -> F32:
        """A rank's share of a weight [out, in] or vector; a view unless zeros are added."""
        if self.ep > 1 and len(weight.out) > 1 and weight.out[0].name == "experts":
            own, size = self.own_experts(weight.out[0].size, rank), array.shape[0]
            each = size // weight.out[0].size
            array = array[own.start * each : own.stop * each]
            count = Dim("experts", len(own))
            weight = replace(weight, out=(count, *weight.out[1:]))
        dims = (weight.out, weight.inner) if weight.inner else (weight.out,)
        for axis, mine in enumerate(dims):
            number = next((n for n, dim in enumerate(mine) if dim.name in SHARDED), None)
            if number is None or self.tp == 1:
                continue
            before = prod(dim.size for dim in mine[:number])
            shape, part = array.shape, self.part(mine[number], rank)
            array = array.reshape(*shape[:axis], before, mine[number].size, -1, *shape[axis + 1 :])
            bounds = slice(part.items.start, part.items.stop)
            array = array[(slice(None),) * (axis + 1) + (bounds,)]
            if part.zeros:
                widths = [(0, 0)] * array.ndim
                widths[axis + 1] = (0, part.zeros)
                array = np.pad(array, widths)
            array = array.reshape(*shape[:axis], -1, *shape[axis + 1 :])
        return array
