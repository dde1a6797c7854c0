"""How long a context and how many slots a replay gets where nobody says."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from chip.own_spec import find
from cluster.compiler.choose import PlanRequest
from cluster.compiler.launch import context_bucket
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.sizes import Sizes
from cluster.errors import DoesNotFit
from cluster.model.load import find_decoder
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import Planned, make
from cluster.planning.refusals import fits_on

SLOTS = 16  # tried at most where nobody says how many


@dataclass(frozen=True)
class Sized:
    """A plan for a traffic, and what was chosen for it."""

    planned: Planned
    notes: tuple[str, ...]


def sized(
    name: str, request: PlanRequest, longest: int, store: CostStore,
    context: int | None = None, slots: int | None = None,
) -> Sized:  # fmt: skip
    """The plan for requests that need at most `longest` tokens of a cache.

    A context that is not given is the shortest that holds all of them, or the longest that fits; so
    many slots as there is room for, up to SLOTS. Raises DoesNotFit, BadValue, UnknownName, ...
    """
    notes: list[str] = []
    if context is None:
        model = find_decoder(name)
        context = context_bucket(min(longest, model.context_max))
        context, note = _longest(name, replace(request, context=context, batch=slots or 1), store)
        notes += [note] if note else []
    request = replace(request, context=context)
    if slots is not None:
        return Sized(make(name, replace(request, batch=slots), store), tuple(notes))
    one = make(name, request, store)
    plan = one.timed.plan
    chips = request.chips or len(one.timed.graph)
    sure = replace(request, tp=plan.tp, pp=plan.pp, weights=plan.weights, topology=one.topology)

    def fits(count: int) -> bool:
        size = plan.model, plan.spec, context, plan.weights, count
        sizes = Sizes(*size, cut=plan.cut, store=store)
        return sizes.fits_on(chips, plan.tp, plan.pp)

    most = _largest(1, SLOTS, fits)
    if most == 1:
        return Sized(one, (*notes, "there is room for the caches of one sequence at a time"))
    limit = "" if most < SLOTS else "; --slots N for more"
    notes.append(f"{most} sequences at a time, as many as there is room for{limit}")
    return Sized(make(name, replace(sure, batch=most), store), tuple(notes))


def _longest(name: str, request: PlanRequest, store: CostStore) -> tuple[int, str]:
    """The context of the request, or the longest that fits on its chips, with a note."""
    if request.chips is None:
        return request.context, ""
    model, spec = find_decoder(name), find(request.spec)
    narrow = request.weights or "int8"

    def fits(cut: bool, blocks: int) -> bool:
        size = model, spec, blocks * CONTEXT_BLOCK, narrow, request.batch
        sizes = Sizes(*size, cut=cut, store=store)
        return fits_on(sizes, request, request.chips or 0)

    wanted = request.context // CONTEXT_BLOCK
    if fits(False, wanted):
        return request.context, ""
    if not fits(True, 1):
        raise make_error(name, request, store)
    found = _largest(1, wanted, partial(fits, True)) * CONTEXT_BLOCK
    if found == request.context:
        return found, ""
    said = f"caches of {found:,} tokens are the longest that fit on {request.chips} chips of "
    return found, f"{said}{spec.name}; requests that need more, up to {request.context:,}, do not"


def make_error(name: str, request: PlanRequest, store: CostStore) -> DoesNotFit:
    """What `lpu plan` says of a request that does not fit."""
    try:
        make(name, replace(request, context=CONTEXT_BLOCK), store)
    except DoesNotFit as error:
        return error
    raise AssertionError("a plan that does not fit was made")


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `high` that fits, where `low` does."""
    if fits(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
