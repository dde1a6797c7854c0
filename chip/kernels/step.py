"""A step of a launch: what all members of a tensor-parallel group do between two barriers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chip.schedule import Schedule

Moved = Callable[[int, int], int]  # (slice, address) -> address


@dataclass(frozen=True)
class Step:
    """One thing all members do, one step after another: parts, and which members do each.

    `moved` says where its memory is, as the parts were scheduled for layer 0. `layer` is the one of
    its stage that it belongs to, None for the head and what comes before the layers. A step may
    begin with the one before, `early_cycles` before that is over on all members; that one knows its
    `tail_cycles`, those of what is still to come when it is over.
    """

    what: str
    parts: tuple[tuple[Schedule, tuple[Mapping[int, int] | None, ...]], ...]
    moved: Moved
    layer: int | None = None
    early_cycles: int = 0
    tail_cycles: int = 0

    @property
    def cycles(self) -> int:
        """Cycles after the step before, after which nothing is under way on any member."""
        return max(part.quiet_cycle for part, _ in self.parts) - self.early_cycles

    @property
    def end_cycle(self) -> int:
        """Cycles after which its last result is in memory everywhere."""
        return max(part.end_cycle for part, _ in self.parts)
