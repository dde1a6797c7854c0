"""The LPU side of the comparison: a plan of the emulator, timed by the schedules that would run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from chip.energy import energy_table
from cluster.compiler.choose import PlanRequest
from cluster.compiler.sizes import Sizes
from cluster.compiler.stages import Plan
from cluster.energy import Joules
from cluster.errors import BadValue
from cluster.model.mixture import is_mixture
from cluster.planning.cost_store import CostStore
from cluster.planning.pipeline_timing import steady_rate
from cluster.planning.planner import Planned, make
from cluster.planning.refusals import fits_on, most_sequences

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
    """What `lpu plan` says, with transfers to the host and back; energies are modelled.

    `bound` is what keeps users from being more: "one user", "pipeline full", "SRAM full", or
    "shared chips" that all-reduces of several stages cross.
    """

    chips: int
    plan: str
    bound: str
    users: int
    context: int
    tokens_per_s_per_user: float
    tokens_per_s: float
    joules_per_token: float | None
    system_joules_per_token: float | None


def lpu_points(
    model: str, request: PlanRequest, store: CostStore | None = None
) -> tuple[LpuPoint, LpuPoint]:
    """The fastest plan of a model for one user, and the same shape with all it has room for.

    Raises what `lpu plan` raises.
    """
    planned = make(model, request, store)
    timed, plan = planned.timed, planned.timed.plan
    decode = timed.decode(plan.context)
    one = _point(planned, "one user", 1, 1 / decode.seconds(plan.spec))
    most = max(1, decode.cycles // planned.candidates[0].interval_cycles)
    shape = replace(
        request,
        tp=plan.tp // plan.ep,
        ep=plan.ep,
        pp=plan.pp,
        weights=plan.weights,
        topology=planned.topology,
    )
    held = replace(shape, tp=plan.tp, ep=None)  # as the plan's model is spread already
    users = max(_users(plan, held, most, cut) for cut in {plan.cut, not is_mixture(plan.model)})
    if users == 1:
        return one, replace(one, bound="pipeline full" if most == 1 else "SRAM full")
    try:
        full = make(model, replace(shape, batch=users), store)
        rate = steady_rate(full.timed.steps, users)
    except BadValue:  # tensor groups that need each other's chips cannot work side by side
        return one, replace(one, bound="shared chips")
    bound = "pipeline full" if users == most else "SRAM full"
    return one, _point(full, bound, users, rate)


def _users(plan: Plan, shape: PlanRequest, most: int, cut: bool) -> int:
    """Sequences that a plan of a shape has room for, at most so many."""
    sizes = Sizes(plan.model, plan.spec, plan.context, plan.weights, most, cut=cut)
    if fits_on(sizes, shape, plan.chips):
        return most
    return most_sequences(sizes, shape, plan.chips)


def _point(planned: Planned, bound: str, users: int, tokens_per_s: float) -> LpuPoint:
    timed, plan = planned.timed, planned.timed.plan
    table = energy_table(plan.spec)
    chips = len(timed.decode(plan.context).instructions)
    name = f"tp {plan.tp} x pp {plan.pp} on {planned.topology}, {plan.weights}"
    joules = None
    if table:
        dynamic_j = timed.dynamic_j(table, plan.rows)
        joules = Joules(table, chips, dynamic_j, 1 / tokens_per_s)
    return LpuPoint(
        chips,
        "; ".join((name, *planned.notes)),
        bound,
        users,
        plan.context,
        tokens_per_s / users,
        tokens_per_s,
        joules.chips_j if joules else None,
        joules.system_j if joules else None,
    )
