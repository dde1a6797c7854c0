"""What a plan will ask costs for, as calls that can be made in any order: see `Beside`.

Nothing depends on these lists but who makes what: a cost that is missing here is made when it is
asked for.
"""

from collections.abc import Callable, Iterable
from functools import partial

from cluster.compiler.launch import LaunchKind, decode_kind, prefill_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.planning.costs import StageKind
from cluster.planning.timing import PlanTiming

Calls = list[Callable[[], object]]


def report_ahead(timed: PlanTiming) -> Calls:
    """Costs of the report of a plan for one sequence; what others begin with comes last."""
    plan, last, limit = timed.plan, decode_kind(timed.plan.context), timed.limit_cycles
    calls, stage = launch_ahead(timed, last), timed.costs.stage(timed.width)
    for link in timed.pipeline.links:
        calls.append(partial(timed.costs.links.activity, stage, 1, link.paths, link.onward))
    if plan.pp > 1:  # for the interval in which stages side by side give tokens
        calls.append(partial(timed.interval_cycles, plan.context))
    for context in timed.contexts()[:-1]:
        calls += _stages(timed, timed.work.kinds(last), decode_kind(context), limit)
    for context in dict.fromkeys((CONTEXT_BLOCK, plan.context)):
        chunk = prefill_kind(plan.chunk, context)  # the longest, and the first of them is asked
        calls += launch_ahead(timed, chunk, timed.in_steps(chunk))[::-1]
    return calls


def launch_ahead(timed: PlanTiming, kind: LaunchKind, in_steps: bool = False) -> Calls:
    """Costs of a launch, or of a pipeline step."""
    width, limit = timed.width, timed.limit_cycles
    calls: Calls = []
    if limit is not None and not kind.logits_rows and not timed.plan.cut:
        layers = dict.fromkeys(timed.plan.model.kinds)
        calls += [partial(timed.costs.computed, width, layer, kind, limit) for layer in layers]
    calls += _stages(timed, timed.work.kinds(kind), kind, limit)
    if in_steps:
        return [*calls, lambda: timed.steps.sending_cycles(kind)]
    links = range(len(timed.pipeline.links))
    return [*calls, *(partial(timed.work.crossing, n, kind, limit) for n in links)]


def _stages(
    timed: PlanTiming, stages: Iterable[StageKind], kind: LaunchKind, limit: int | None
) -> Calls:
    """Steps of each kind of layer on each kind of group."""
    calls = dict[tuple[object, ...], Callable[[], object]]()
    priced = timed.pipeline.alone[0].routes  # without a limit, which need not bear on it
    for one in dict.fromkeys(stages):
        if one.shape is not None:
            calls[one,] = partial(timed.costs.steps, one, kind, limit)
            continue
        limits = (None, limit) if kind.logits_rows and one.routes == priced else (limit,)
        for layer in dict.fromkeys(one.layers):
            known = partial(timed.costs.layer, one.width, layer, kind, one.routes)
            calls[layer, one.routes] = partial(_each, known, limits)
    return list(calls.values())


def _each(known: Callable[[int | None], object], limits: tuple[int | None, ...]) -> None:
    for limit in limits:
        known(limit)
