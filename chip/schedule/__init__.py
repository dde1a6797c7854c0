"""One scheduler for all kernels: chains of fixed inner timing, and reservation tables."""

from chip.schedule.chain import Buffer, Chain, Flow, Loops, Rows, run, span
from chip.schedule.deskew import Pace, Sequence
from chip.schedule.outline import Outline
from chip.schedule.reserve import Schedule

__all__ = [
    "Buffer",
    "Chain",
    "Flow",
    "Loops",
    "Outline",
    "Pace",
    "Rows",
    "Schedule",
    "Sequence",
    "run",
    "span",
]
