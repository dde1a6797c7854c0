"""What a timeline is made of: tracks of chips, slices on them, flows between slices, counters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SEGMENTS, KERNELS, INSTRUCTIONS = LEVELS = ("segments", "kernels", "instructions")
# Families of queues in the order of their tracks, and what people call them.
UNITS = {
    "icu": "ICU",
    "mem.r": "MEM read",
    "mem.w": "MEM write",
    "vxm": "VXM",
    "sxm": "SXM",
    "mxm.lw": "MXM load weights",
    "mxm.iw": "MXM install weights",
    "mxm.abc": "MXM activations",
    "mxm.acc": "MXM accumulate",
    "c2c.s": "C2C send",
    "c2c.r": "C2C receive",
}
ORDER = {family: number for number, family in enumerate(UNITS)}
SEGMENT_TRACK = "segments"


class Track(NamedTuple):
    """A row of a chip. `unit` is a family of queues or a queue; lanes hold what overlaps."""

    chip: int
    unit: str
    lane: int = 0

    @property
    def rank(self) -> int:
        """Where it stands among the rows of its chip: segments, then units from MEM to C2C."""
        family, _, index = self.unit.partition(":")
        return ((ORDER.get(family, -1) + 1) * 1000 + int(index or 0)) * 64 + min(self.lane, 63)

    @property
    def title(self) -> str:
        """What people read: `MXM load weights 3`, or `MEM read (2)` for a second lane."""
        family, _, index = self.unit.partition(":")
        more = f" ({self.lane + 1})" if self.lane else ""
        return f"{UNITS.get(family, self.unit)} {index}".strip() + more


@dataclass(frozen=True, slots=True)
class Slice:
    """Something that a track does from a cycle up to another (exclusive)."""

    track: Track
    name: str
    start: int
    end: int
    args: Mapping[str, Any] = field(default_factory=dict)


class Flow(NamedTuple):
    """An arrow between two slices: numbers in the timeline's list, and a cycle inside each."""

    source: int
    source_cycle: int
    target: int
    target_cycle: int


@dataclass(frozen=True)
class Counter:
    """A number of a chip over time: it has each value from its cycle on."""

    chip: int
    name: str
    unit: str
    samples: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Timeline:
    """One launch. Slices of a track lie apart or in each other; `titles` are those of chips."""

    name: str
    level: str
    end_cycle: int
    clock_hz: float
    titles: Mapping[int, str]
    slices: Sequence[Slice]
    flows: Sequence[Flow] = ()
    counters: Sequence[Counter] = ()
