"""How many sequences share a decode launch: more of them share the loads of weights, but fewer
launches are under way.

Stages are all at work while there is a launch for each, and for each step that tokens of others
are on their way to the host and back. A sequence gets a token whenever its launch has come round.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from chip.errors import ProgramError
from cluster.compiler.choose import Choice, PlanRequest, choose
from cluster.compiler.limits import least_rows, rows_max
from cluster.errors import DoesNotFit
from cluster.model.graph.graph import Model
from cluster.planning.candidates import Candidate
from cluster.planning.cost_store import CostStore
from cluster.planning.search import Search

SHAPES = 3  # of plans, the best with a sequence to a launch, that are looked at with more
Searches = Callable[[int], Search]


def row_counts(batch: int, pp: int, most: int) -> list[int]:
    """Rows of a launch that are worth a look: one, and what keeps all stages at work."""
    full = (-(-batch // launches) for launches in (pp + 2, pp + 1, pp))
    return sorted({1, *(min(most, rows) for rows in full)})


def round_cycles(one: Candidate, batch: int, host_cycles: int) -> int:
    """Cycles from a token of a sequence to its next, of so many in flight.

    `host_cycles` are those from the logits to the next launch, which may wait for a step to end.
    """
    launches = -(-batch // one.rows)
    return max(launches * one.interval_cycles, one.pp * one.interval_cycles + host_cycles)


def shared(
    searches: Searches, found: Sequence[list[Candidate]], batch: int, chips: int, objective: str,
    given: int | None = None,
) -> list[Candidate]:  # fmt: skip
    """Plans with the rows that serve the objective best, in front of those they were found with.

    `found` are plans, best first, of one and of several rows. [] if there is room for the programs
    of none.

    Energy counts joules of a token. For latency as for throughput it is the time of a round: of so
    many users, each sees the tokens of all, divided by their number.
    """

    def cost(one: Candidate) -> tuple[float, int]:
        if objective == "energy":
            return one.joules, one.rows
        return round_cycles(one, batch, searches(one.rows).host_cycles(one)), one.rows

    every: dict[Candidate, list[Candidate]] = {}
    for plans in filter(None, found):
        model = searches(plans[0].rows).model
        most, least = rows_max(model), least_rows(model, batch)
        for shape in plans[:SHAPES]:
            for rows in [given] if given else {*least, *row_counts(batch, shape.pp, most)}:
                for one in _with_rows(searches(rows), shape, chips, objective):
                    every.setdefault(one, plans)
    for best in sorted(every, key=cost):
        if _holds_programs(searches(best.rows), best):
            others = [one for one in every[best] if (one.tp, one.pp) != (best.tp, best.pp)]
            return [best, *others]
    return []


def _with_rows(search: Search, shape: Candidate, chips: int, objective: str) -> Iterator[Candidate]:
    """The plan of a shape with the rows of a search, if there is room for it."""
    if search.sizes.fits_on(chips, shape.tp, shape.pp):
        try:
            one = search.estimate(search.width(shape.tp, shape.pp), shape.pp, objective)
            yield search.exact(one, objective)
        except ProgramError:
            return


def _holds_programs(search: Search, one: Candidate) -> bool:
    """Whether a plan has room for its programs: only cut matrices leave too little for them."""
    timed = search.timed(one.tp, one.pp)
    try:
        return not timed.plan.cut or bool(timed.program_bytes())
    except DoesNotFit:
        return False


def choose_rows(model: Model, request: PlanRequest, store: CostStore) -> Choice:
    """The plan that was asked for, with the rows that `lpu plan` would take; raises as `choose`."""
    if request.batch == 1 or request.rows:
        return choose(model, request)
    failed: DoesNotFit | None = None
    for rows in least_rows(model, request.batch):
        try:
            first = choose(model, replace(request, rows=rows))
            break
        except DoesNotFit as error:
            failed = failed or error
    else:
        assert failed is not None
        raise failed
    plan, graph = first.plan, first.graph

    @cache
    def search(rows: int) -> Search:
        size = request.context, request.batch, plan.weights
        return Search(plan.model, plan.spec, graph, *size, store, rows, plan.cut)

    shape = Candidate(plan.tp, plan.pp, plan.chunk, 0, 0, rows=plan.rows)
    found = shared(search, [[shape]], request.batch, len(graph), "latency")
    if not found or found[0].rows == plan.rows:  # without room for programs, they say so
        return first
    tp = request.tp or (None if request.ep else plan.tp)
    return choose(model, replace(request, tp=tp, pp=plan.pp, rows=found[0].rows))
