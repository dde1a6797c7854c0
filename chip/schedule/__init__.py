"""One scheduler for all kernels: chains of fixed inner timing, and reservation tables."""

from chip.schedule.chain import Chain
from chip.schedule.deskew import Pace, Sequence
from chip.schedule.flows import ONCE, Buffer, Flow, Loops, Rows, Stretch, over, run, span
from chip.schedule.reserve import Beside, Schedule
from chip.schedule.timing import ScheduleTiming, TimingSequence, TooLong, merged

__all__ = [
    "ONCE",
    "Beside",
    "Buffer",
    "Chain",
    "Flow",
    "Loops",
    "Pace",
    "Rows",
    "Schedule",
    "ScheduleTiming",
    "Sequence",
    "Stretch",
    "TimingSequence",
    "TooLong",
    "merged",
    "over",
    "run",
    "span",
]
