"""What clocks cost a run, and how they ran."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.compiler.lower import Lowered
from cluster.machines.clocked import Clocked
from cluster.machines.launch_log import LaunchEntry


def clock_cycles(
    lowered: Lowered,
    programs: Mapping[str, Mapping[int, str]],
    prefill: Sequence[LaunchEntry],
    decode: Sequence[LaunchEntry],
) -> dict[str, Any]:
    """Of the cycles of the launches, those that start the chips and those of Runtime deskews.

    `programs` says of each launch by name which launch's program a chip ran.
    """

    def of(entry: LaunchEntry) -> tuple[int, int]:
        launches = [lowered.launches[name] for name in set(programs[entry.name].values())]
        stalls = max(launch.deskew_cycles for launch in launches)
        return max(launch.startup_cycles for launch in launches), stalls

    def parts(entries: Sequence[LaunchEntry]) -> list[tuple[int, int]]:
        return [of(entry) for entry in entries]

    return {
        "prefill_startup_cycles": sum(start for start, _ in parts(prefill)),
        "prefill_deskew_cycles": sum(stalled for _, stalled in parts(prefill)),
        "decode_startup_cycles": [start for start, _ in parts(decode)],
        "decode_deskew_cycles": [stalled for _, stalled in parts(decode)],
    }


def clock_report(lowered: Lowered, clocked: Clocked) -> dict[str, Any] | None:
    """What the clocks demand of the schedule, and how they ran; None for one chip."""
    clocks, ran = lowered.clocking, clocked.oscillators
    if clocks is None or ran is None:
        return None
    plan = clocks.plan
    return {
        "root": plan.root,
        "tree_height": plan.height,
        "startup_epochs": plan.startup_epochs,
        "startup_cycles": clocks.start_cycle,
        "runtime_deskew_interval_cycles": plan.runtime_deskew_interval_cycles,
        "runtime_deskew_cycles": plan.runtime_deskew_cycles,
        "design_drift_ppm": plan.spec.drift_ppm,
        "margin_cycles": plan.spec.margin_cycles,
        "seed": clocked.seed,
        "drift_ppm": ran.drift_ppm,
        "jitter_cycles": ran.jitter_std_cycles,
        "receives_checked": ran.checked,
        "worst_slip_cycles": ran.worst_slip_cycles if ran.checked else None,
        "worst_link": list(ran.worst_link) if ran.checked else None,
    }


def clock_line(clocks: Mapping[str, Any] | None, fast: Mapping[str, Any]) -> str:
    """Start-up, deskews and the worst arrival in one line."""
    if clocks is None:
        return "one chip, nobody to agree with"
    stalls = fast["prefill_deskew_cycles"] + sum(fast["decode_deskew_cycles"])
    worst = clocks["worst_slip_cycles"]
    arrivals = "no vector crosses a link"
    if worst is not None:
        link = "->".join(map(str, clocks["worst_link"]))
        arrivals = (
            f"of {clocks['receives_checked']:,} vectors over links the latest comes {worst:.1f} "
            f"cycles late, {clocks['margin_cycles']} are allowed (chips {link})"
        )
    start = f"{clocks['startup_cycles']:,} cycles to start all chips for each launch"
    return f"{start}, {stalls} to re-align them; {arrivals}"
