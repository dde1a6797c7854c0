"""What is left of a stretch once it is linked: the steps that chips run, by segment."""

from dataclasses import dataclass, field
from functools import cached_property

from chip.linker.node_ops import NodeOp


@dataclass(frozen=True, eq=False)
class Step:
    """A node as chips run it: what it does, whose values it needs, and what must run before it.

    Its first issue drives `rows` of `element`; "" if it drives nothing.
    """

    op: NodeOp
    needs: tuple[int, ...]
    before: tuple[int, ...]
    rows: int
    element: str


@dataclass(frozen=True, eq=False)
class Fragment:
    """The steps of a stretch, and which of them each segment runs, in this order.

    `made` is what `chip.tape` makes of it.
    """

    steps: tuple[Step, ...]
    groups: tuple[tuple[int, ...], ...]
    made: list[object] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def ops(self) -> tuple[tuple[tuple[int, NodeOp], ...], ...]:
        """By segment, the number of each step, and what it does."""
        return tuple(tuple((n, self.steps[n].op) for n in group) for group in self.groups)
