"""Timelines of launches for Perfetto: what each unit of each chip does, cycle by cycle.

`launch` and `planned` put the steps of a launch on their time axis, as lowering and planning do;
`levels` makes tracks, slices, flows and counters of them; `chrome` and `perfetto` write those.
"""

from cluster.tracing.events import KERNELS, LEVELS, Timeline
from cluster.tracing.files import write_timeline

__all__ = ["KERNELS", "LEVELS", "Timeline", "write_timeline"]
