"""The LPU side of the comparison: a plan of the emulator, timed by the schedules that would run."""

from dataclasses import dataclass

from chip.energy import Activity, count, energy_table
from chip.program import issue_cycles
from cluster.energy import Joules
from cluster.lower import compose
from cluster.planner import Wish, make
from cluster.timing import Timed


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
        joules = table and Joules(table, chips, table.dynamic_j(activity), seconds)
        found.append(
            LpuPoint(
                chips,
                name,
                full,
                users,
                timed.plan.context,
                1 / (users * seconds),
                1 / seconds,
                joules and joules.chips_j,
                joules and joules.system_j,
            )
        )
    return found


def decode_activity(timed: Timed) -> Activity:
    """What the programs of a decode launch do, on all chips; equal chips are counted once."""
    plan = timed.plan
    parts = compose(timed.placement, timed.stages, timed.wires, 1, plan.context)
    known: dict[tuple[tuple[int, int], ...], Activity] = {}
    total = Activity()
    for part in parts.values():
        key = tuple((id(schedule), member) for schedule, member, _ in part.items)
        if key not in known:
            issues = (
                (queue, cycle, instruction)
                for queue, instructions in part.queues().items()
                for cycle, instruction in issue_cycles(instructions)
            )
            known[key] = count(issues, plan.spec)
        total += known[key]
    return total
