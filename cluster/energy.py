"""Joules of launches: what their programs do, and the constant power while they last."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from chip.energy import Activity, EnergyTable, count
from chip.spec import ChipSpec
from chip.wire import body_of, header_of, unpack
from cluster.compiler.launch import Launch


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


def token_energy(
    table: EnergyTable, chips: int, dynamic_j: tuple[float, float], seconds: float,
    interval_s: float,
) -> dict[str, Any]:  # fmt: skip
    """For reports: a token that takes `seconds` alone, and one every `interval_s`.

    `dynamic_j` are those of the one and of the other. `joules_per_token` is
    that of the chips; `energy` has its parts, and what the hosts, fans and
    power supplies of the system add.
    """
    one, full = (
        Joules(table, chips, each, s)
        for each, s in zip(dynamic_j, (seconds, interval_s), strict=True)
    )
    return {
        "joules_per_token": one.chips_j,
        "energy": {
            "dynamic_j": one.dynamic_j,
            "idle_j": one.idle_j,
            "system_j": one.system_j,
            "full_pipeline": {
                "interval_s": interval_s,
                "joules_per_token": full.chips_j,
                "system_j": full.system_j,
            },
        },
    }


def launch_use(launch: Launch, spec: ChipSpec) -> Use:
    """Count the instructions of every program of a launch; equal programs once."""
    total = activity(Counter(launch.programs.values()), spec)
    ends = launch.end_cycles
    interval = max(ends[chip] - header_of(data)[1] for chip, data in launch.programs.items())
    return Use(total, interval)


def activity(programs: Counter[bytes], spec: ChipSpec) -> Activity:
    """What programs do, each as often as it is counted; equal ones are looked into once."""
    often: Counter[bytes] = Counter()
    sample: dict[bytes, bytes] = {}
    for data, times in programs.items():
        often[body_of(data)] += times
        sample[body_of(data)] = data
    total = Activity()
    for body, times in often.items():
        total += count(unpack(sample[body]).instructions(), spec).times(times)
    return total
