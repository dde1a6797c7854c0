"""The LPU side of the comparison: a plan of the emulator, timed by the schedules that would run."""

from dataclasses import dataclass

from chip.energy import energy_table
from cluster.energy import Joules
from cluster.plan_energy import decode_activity
from cluster.planner import Wish, make


@dataclass(frozen=True)
class LpuPoint:
    """One user alone (`full` False), or as many as fill the pipeline; energies are modelled."""

    chips: int
    plan: str
    full: bool
    users: int
    context: int
    tokens_per_s_per_user: float
    tokens_per_s: float
    joules_per_token: float | None
    system_joules_per_token: float | None


def lpu_points(wish: Wish) -> list[LpuPoint]:
    """The fastest plan of a model, alone and full; raises what `lpu plan` raises."""
    planned = make(wish)
    timed, spec = planned.timed, planned.timed.plan.spec
    launch = timed.launch("decode", timed.plan.context)
    interval, cycles = planned.candidates[0].interval_cycles, launch.cycles
    table, activity = energy_table(spec), decode_activity(timed)
    chips = len(launch.busy_cycles)
    name = f"tp {timed.plan.tp} x pp {timed.plan.pp} on {planned.topology}"
    found = []
    for full in (False, True):
        users = max(1, cycles // interval) if full else 1
        seconds = max(interval, cycles // users) / spec.clock_hz if full else cycles / spec.clock_hz
        joules = Joules(table, chips, table.dynamic_j(activity), seconds) if table else None
        found.append(
            LpuPoint(
                chips,
                name,
                full,
                users,
                timed.plan.context,
                1 / (users * seconds),
                1 / seconds,
                joules.chips_j if joules else None,
                joules.system_j if joules else None,
            )
        )
    return found
