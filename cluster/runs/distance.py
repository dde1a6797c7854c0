"""How far a run is from what its chips could do: its bound, and how busy their units are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chip.energy import Activity
from cluster.compiler.bound import launch_bound, step_bound
from cluster.utilisation import busy_shares, cable_vectors_per_cycle

if TYPE_CHECKING:  # a plan shows a line of it without a machine
    from cluster.compiler.lower import Lowered
    from cluster.energy import Use
    from cluster.machines.launch_log import LaunchEntry
    from cluster.serving.scheduler import StepRecord

UNITS = ("mxm", "vxm", "sxm", "mem", "c2c")  # as a line of text names them


def bound_report(
    lowered: "Lowered",
    record: "StepRecord",
    entries: "Sequence[LaunchEntry]",
    used: "Mapping[str, Use]",
) -> dict[str, Any]:
    """The bound of the last launch, and the busy shares of some launches, of which `used` knows."""
    (work,) = record.works
    assert work is not None
    start = lowered.clocking.start_cycle if lowered.clocking else 0
    bound = launch_bound(lowered.plan, lowered.pipeline, work.kind, start)
    total = Activity()
    for name, times in Counter(entry.name for entry in entries).items():
        total += used[name].activity.times(times)
    cycles = sum(entry.cycles for entry in entries)
    return bound.report(record.cycles) | {"utilisation": utilisation(lowered, total, cycles)}


def step_report(
    lowered: "Lowered", records: "Sequence[StepRecord]", total: Activity
) -> dict[str, Any]:
    """The bound of the last pipeline step of decode, and the busy shares of a whole run."""
    last = next(record for record in reversed(records) if record.kind.logits_rows)
    kind = max(work.kind for work in last.works if work)
    start = lowered.clocking.start_cycle if lowered.clocking else 0
    bound = step_bound(lowered.plan, lowered.pipeline, kind, start)
    cycles = sum(record.cycles for record in records)
    return bound.report(last.cycles) | {"utilisation": utilisation(lowered, total, cycles)}


def utilisation(lowered: "Lowered", total: Activity, cycles: int) -> dict[str, float]:
    """Busy shares of all chips of a plan over so many cycles."""
    chips = {*lowered.chips, *lowered.transit_chips}
    rate = cable_vectors_per_cycle(lowered.cables, chips)
    return busy_shares(total, lowered.plan.spec, len(chips), cycles, rate)


def distance_line(found: Mapping[str, Any]) -> str:
    """Cycles over their bound, what that is made of, and the busy shares, in one line."""
    parts, over = found["bound_parts"], found["cycles_over_bound"]
    most = max(parts, key=lambda name: parts[name]).replace("_", " ")
    busy = ", ".join(f"{name} {found['utilisation'][name]:.1%}" for name in UNITS)
    return f"{over:.2f} x the bound of {found['bound_cycles']:,} cycles ({most}); busy: {busy}"
