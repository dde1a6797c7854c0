"""Joules of launches: what their programs do, and the constant power while they last."""

from dataclasses import dataclass

from chip.energy import Activity, EnergyTable, count
from chip.spec import ChipSpec
from chip.wire import body_of, header_of, unpack
from cluster.lower import Launch


@dataclass(frozen=True)
class Use:
    """What a launch does on all its chips; `interval_cycles` is how long the busiest is needed.

    With the pipeline full, a launch ends every `interval_cycles`.
    """

    activity: Activity
    interval_cycles: int


@dataclass(frozen=True)
class Joules:
    """Energy of `chips` chips that spend `dynamic_j` in `seconds`."""

    table: EnergyTable
    chips: int
    dynamic_j: float
    seconds: float

    @property
    def idle_j(self) -> float:
        """Joules that the chips take anyway."""
        return self.table.idle_w * self.chips * self.seconds

    @property
    def chips_j(self) -> float:
        """Joules of the chips."""
        return self.dynamic_j + self.idle_j

    @property
    def system_j(self) -> float:
        """Joules of the chips and of the system around them."""
        return self.chips_j + self.table.system_w * self.chips * self.seconds


def launch_use(launch: Launch, spec: ChipSpec) -> Use:
    """Count the instructions of every program of a launch; equal programs once."""
    known: dict[bytes, Activity] = {}
    total, interval = Activity(), 0
    for chip, data in launch.programs.items():
        body = body_of(data)
        if body not in known:
            known[body] = count(unpack(data).instructions(), spec)
        total += known[body]
        interval = max(interval, launch.end_cycles[chip] - header_of(data)[1])
    return Use(total, interval)
