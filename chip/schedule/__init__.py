"""One scheduler for everything: chains with fixed inner timing, and the tables they are booked in."""

from chip.schedule.chain import Buffer, Chain, Flow, Loops, Rows, run, span
from chip.schedule.reserve import Schedule

__all__ = ["Buffer", "Chain", "Flow", "Loops", "Rows", "Schedule", "run", "span"]
