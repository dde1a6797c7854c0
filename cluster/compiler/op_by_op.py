"""The ops of a layer one by one, where together they leave no place for a stall of the clocks."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from chip.kernels.step import Step
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.op import Op

Alone = Callable[[tuple[Op, ...], range | None], Step]


def op_by_op(alone: Alone, ops: Iterable[Op], rows: int, most_cycles: int) -> Iterator[Step]:
    """A step for each op, or for experts with one x, as `alone` makes it for all or some tokens.

    Experts, which tokens meet one by one, are met by as many at a time as take `most_cycles`.
    """
    for experts, some in groupby(ops, lambda op: op.x if isinstance(op, ExpertLinear) else None):
        for mine in [tuple(some)] if experts else ((op,) for op in some):
            each = most_cycles // alone(mine, range(1)).cycles if experts and rows > 1 else rows
            firsts = range(0, rows, max(1, each))
            parts = [range(n, min(n + firsts.step, rows)) for n in firsts]
            steps = (alone(mine, part if len(parts) > 1 else None) for part in parts)
            yield from (step for step in steps if step.cycles > 0)
