"""The LPU side of the comparison: a plan of the emulator, timed by the schedules that would run."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chip.energy import energy_table
from cluster.compiler.choose import PlanRequest
from cluster.energy import Joules
from cluster.planning.planner import make

# Clusters that served a model: 8 racks of 72 chips, int8 (TechPowerUp and The Next Platform for
# Llama, SemiAnalysis for Mixtral, all of early 2024).
PUBLISHED: Mapping[str, tuple[int, str]] = MappingProxyType(
    {"llama-2-70b": (576, "int8"), "mixtral-8x7b": (576, "int8")}
)


def published_cluster(name: str, chips: int | None, weights: str | None) -> tuple[int | None, str]:
    """(chips, weights) to compare a model on, under what is given; None is what it takes.

    >>> published_cluster("llama-2-70b", None, None), published_cluster("llama-2-7b", None, None)
    ((576, 'int8'), (None, 'fp16'))
    """
    if name not in PUBLISHED:
        return chips, weights or "fp16"
    published_chips, published_weights = PUBLISHED[name]
    weights = weights or published_weights
    same = weights == published_weights
    return chips or (published_chips if same else None), weights


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


def lpu_points(model: str, request: PlanRequest) -> list[LpuPoint]:
    """The fastest plan of a model, alone and full; raises what `lpu plan` raises."""
    planned = make(model, request)
    timed, spec = planned.timed, planned.timed.plan.spec
    launch = timed.decode(timed.plan.context)
    interval, cycles = planned.candidates[0].interval_cycles, launch.cycles
    table, activity = energy_table(spec), timed.activity(timed.plan.context)
    chips = len(launch.instructions)
    name = f"tp {timed.plan.tp} x pp {timed.plan.pp} on {planned.topology}, {timed.plan.weights}"
    name = "; ".join((name, *planned.notes))
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
