"""One scheduler for all kernels: chains of fixed inner timing, and reservation tables."""

from chip.schedule.chain import Chain
from chip.schedule.deskew import Pace, Sequence
from chip.schedule.flows import Buffer, Flow, Loops, Rows, over, run, span
from chip.schedule.outline import Outline
from chip.schedule.reserve import Schedule
from chip.schedule.sketch import Extents, Sketch, sketch

__all__ = [
    "Buffer",
    "Chain",
    "Extents",
    "Flow",
    "Loops",
    "Outline",
    "Pace",
    "Rows",
    "Schedule",
    "Sequence",
    "Sketch",
    "over",
    "run",
    "sketch",
    "span",
]
