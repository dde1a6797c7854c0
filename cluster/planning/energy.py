"""Energy of planned launches: the instructions of their schedules, counted."""

from typing import Any

from chip.energy import energy_table
from cluster.energy import Joules
from cluster.planning.timing import Timed


def plan_energy(timed: Timed, seconds: float, interval_s: float) -> dict[str, Any]:
    """Joules of a token that takes `seconds` alone, and of one every `interval_s`; null if unknown.

    `joules_per_token` is of the chips of one user; the parts are those of `lpu run`.
    """
    table = energy_table(timed.plan.spec)
    if table is None:
        return {"joules_per_token": None, "energy": None}
    chips = len(timed.launch("decode", timed.plan.context).busy_cycles)
    dynamic = table.dynamic_j(timed.course.activity(timed.plan.context))
    one, full = (Joules(table, chips, dynamic, s) for s in (seconds, interval_s))
    return {
        "joules_per_token": one.chips_j,
        "energy": {
            "dynamic_j": dynamic,
            "idle_j": one.idle_j,
            "system_j": one.system_j,
            "full_pipeline": {
                "interval_s": interval_s,
                "joules_per_token": full.chips_j,
                "system_j": full.system_j,
            },
        },
    }
