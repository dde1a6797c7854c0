"""Energy of planned launches: the instructions of their schedules, counted."""

from typing import Any

from chip.energy import energy_table
from cluster.energy import token_energy
from cluster.planning.timing import PlanTiming


def plan_energy(timed: PlanTiming, seconds: float, interval_s: float) -> dict[str, Any]:
    """Joules of a token that takes `seconds` alone, and one every `interval_s`; null if unknown."""
    table = energy_table(timed.plan.spec)
    if table is None:
        return {"joules_per_token": None, "energy": None}
    chips = len(timed.decode(timed.plan.context).instructions)
    dynamic = table.dynamic_j(timed.activity(timed.plan.context))
    return token_energy(table, chips, dynamic, seconds, interval_s)
