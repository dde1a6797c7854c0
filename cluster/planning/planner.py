"""`lpu plan`: the plan that was asked for or the best one, its timing, and why it is the best."""

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import Any

from chip.collection import uncollected
from chip.kernels.needs import check_served
from chip.own_spec import find
from cluster.compiler.choose import PlanRequest, spread
from cluster.compiler.limits import (
    check_context,
    check_rows,
    check_weights,
    least_rows,
    said_widest,
    widest_of,
)
from cluster.compiler.place import Placed
from cluster.compiler.sizes import CHUNKS, Sizes
from cluster.compiler.sums import sums_notes
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.graph import Model
from cluster.model.load import find_decoder
from cluster.model.mixture import is_mixture, residents, spread_experts
from cluster.planning.bottleneck import bottleneck
from cluster.planning.candidates import Candidate
from cluster.planning.cost_store import CostStore
from cluster.planning.kept import Kept
from cluster.planning.pipeline_timing import pipelined
from cluster.planning.refusals import (
    PUBLISHED,
    accuracy_notes,
    check_shape,
    does_not_fit,
    spreads,
    takes_int8,
    why_int8,
)
from cluster.planning.rows import Searches, round_cycles, shared
from cluster.planning.search import SHOWN, Search
from cluster.planning.timing import PlanTiming
from cluster.planning.topologies import chosen_topology
from cluster.planning.unused import unused_sram

BUCKETS_SHOWN = 8


def check_request(request: PlanRequest, model: Model) -> None:
    """Raise BadValue for what can be seen to be wrong before any work."""
    tp, pp, chips, context = request.tp, request.pp, request.chips, request.context
    check_context(model, context)
    if tp and pp and chips and tp * pp > chips:
        raise BadValue("--chips", chips, f"--tp {tp} x --pp {pp} needs {tp * pp} chips")
    check_rows(model, request.rows, request.batch, "--batch")
    for option, value, most, what in (
        ("--tp", tp, widest_of(model), said_widest(model)),
        ("--pp", pp, len(model.layers) + 1, f"the layers and LM head of {model.name}"),
        ("--prompt-tokens", request.prompt_tokens, context, f"the context of {model.name}"),
    ):
        if value is not None and value > most:
            raise BadValue(option, value, f"must be 1 to {most}, {what}")


@dataclass(frozen=True)
class Planned:
    """The chosen plan with its timing, and the candidates it was chosen from, best first.

    `stated` is what its report says of any prompt, once somebody has asked.
    """

    model: str
    request: PlanRequest
    topology: str
    timed: PlanTiming
    placed: Placed
    candidates: list[Candidate]
    notes: tuple[str, ...]
    lower_bound_cycles: int
    sizes: Sizes
    ruled_out: list[list[int]]  # widths and stages that a bound says are slower
    stated: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@uncollected()
def make(
    name: str,
    request: PlanRequest | None = None,
    store: CostStore | None = None,
    kept: Kept | None = None,
) -> Planned:
    """Search and time; raises DoesNotFit with what would fit, BadValue, UnknownName, ...

    Plans made with one `kept` share what they have in common, and its store.
    """
    kept = kept or Kept(store or CostStore())
    return make_for(find_decoder(name), name, request or PlanRequest(), kept)


@uncollected()
def make_for(whole: Model, name: str, asked: PlanRequest, kept: Kept) -> Planned:
    """As `make`, for a graph; `name` is what reports and `kept` know it by."""
    model, size = spread(whole, asked)
    check_request(size, model)
    found = kept.plan(name, asked, lambda: _made(whole, name, asked, kept))
    return replace(found, request=replace(found.request, prompt_tokens=asked.prompt_tokens))


def _made(whole: Model, name: str, asked: PlanRequest, kept: Kept) -> Planned:
    """The plan that was asked for."""
    if asked.weights is None and whole.in_8_bits and takes_int8(whole, find(asked.spec)):
        narrow = make_for(whole, name, replace(asked, weights="int8"), kept)
        return replace(narrow, notes=(*narrow.notes, PUBLISHED))
    model, request = spread(whole, asked)
    notes = model.stand_in.notes if model.stand_in else ()
    spec, free, weights = find(request.spec), request.weights is None, request.weight_type
    check_weights(model, spec, weights)
    check_served(spec, max(CHUNKS))
    topology, more = chosen_topology(request, model, spec, kept.store)
    notes = (*notes, *more)
    graph = kept.graph(topology, request, spec)
    chips = min(request.chips or len(graph), len(graph))
    if request.chips and request.chips > len(graph):
        left = f"{topology} with faults {request.faults}" if request.faults else topology
        raise BadValue("--topology", left, f"has {len(graph)} chips, not {request.chips}")
    check_shape(replace(request, topology=topology), chips)

    @cache
    def searches(cut: bool, rows: int) -> Search:
        return kept.search((name, asked.ep, model.sums), model, topology, request, spec, rows, cut)

    search, candidates = _found(model, request, chips, partial(searches, False))
    free = free and not search.shared_chips  # then there is room in fp16
    if not candidates and free and (planned := _in_int8(whole, name, asked, kept)):
        why = why_int8(model, spec, request, chips)
        return replace(planned, notes=(*planned.notes, why))
    if not _filled(candidates, request.batch) and not (candidates and is_mixture(model)):
        further = _found(model, request, chips, partial(searches, True))
        search, candidates = min((search, candidates), further, key=partial(_cost, request))
    if not candidates:
        if search.shared_chips:  # there is room for that, but it would not run, as its steps say
            _ = search.timed(*search.shared_chips).steps
        if asked.ep is None:
            limit = chips if request.chips or request.topology else None
            if spread_out := _spread_out(whole, name, asked, search.sizes, limit, kept):
                return spread_out
        if search.outgrown:
            raise min(search.outgrown.values(), key=lambda error: error.needs_bytes)
        raise does_not_fit(search.sizes, request, chips)
    best = candidates[0]
    placed, timed = search.placed(best.tp, best.pp), search.timed(best.tp, best.pp)
    bound = int(search.bound(best.tp, best.pp))
    what = timed, placed, candidates, notes, bound, search.sizes, search.ruled_out
    return Planned(name, asked, topology, *what)


def _filled(found: list[Candidate], batch: int) -> bool:
    """Whether there is a plan, all of whose stages are at work for so many users, or for each."""
    return bool(found) and -(-batch // found[0].rows) >= min(batch, found[0].pp)


def _cost(request: PlanRequest, made: tuple[Search, list[Candidate]]) -> float:
    """Joules of a token, or cycles from a token of a user to the next; no plan costs most."""
    search, found = made
    if not found:
        return math.inf
    best, host_cycles = found[0], search.host_cycles(found[0])
    energy = request.objective == "energy"
    return best.joules if energy else round_cycles(best, request.batch, host_cycles)


def _found(
    model: Model, request: PlanRequest, chips: int, searches: Searches
) -> tuple[Search, list[Candidate]]:
    """The plans of a request, best first, and the search that has found the best; [] if none.

    Those with more rows to a launch may leave room for caches that others have not.
    """
    shape = request.tp, request.pp, request.objective
    least = least_rows(model, request.batch, request.rows)
    found = [searches(rows).candidates(chips, *shape) for rows in least]
    plans = found[0]
    if request.batch > 1:
        plans = shared(searches, found, request.batch, chips, request.objective, request.rows)
    return searches(plans[0].rows if plans else least[0]), plans


def _in_int8(whole: Model, name: str, request: PlanRequest, kept: Kept) -> Planned | None:
    """The plan with int8 weights; None if there is no room for them either."""
    try:
        return make_for(whole, name, replace(request, weights="int8"), kept)
    except (BadValue, DoesNotFit):
        return None


def _spread_out(
    whole: Model, name: str, request: PlanRequest, sizes: Sizes, chips: int | None, kept: Kept
) -> Planned | None:
    """A plan with experts over several parts of groups; None if they cannot be spread.

    Raises DoesNotFit, with the fewest chips that such a plan takes, or why those do not do.
    """
    failed: BadValue | DoesNotFit | None = None
    found = sorted(spreads(sizes, request), key=lambda one: one[:4])
    for _, _, least, _, shape in found:
        if chips is None or least <= chips:
            try:
                planned = make_for(whole, name, shape, kept)
            except (BadValue, DoesNotFit) as error:
                failed = failed or error
                continue
            why = f"experts are over {shape.ep} parts of a group: cut over all they have no room"
            return replace(planned, notes=(*planned.notes, why))
    if failed:
        raise failed
    if not found:
        return None
    _, _, least, width, shape = min(found, key=lambda one: one[2])
    ep, here, layers = shape.ep or 1, chips or least, len(whole.layers)
    each = -(-layers // max(1, min(layers, here // width)))  # layers of a stage on these chips
    spread_out = Sizes(spread_experts(whole, ep), sizes.spec, sizes.context, shape.weight_type)
    needs, has = spread_out.wanted_bytes(width, each, head=False), sizes.spec.sram_bytes
    parts = f"--weights {shape.weights} --tp {width // ep} --ep {ep}"
    advice = f"on {here} chips with {parts}; what fits: {parts} --pp {least // width}"
    raise DoesNotFit(0, needs, has, f"{advice} ({least} chips) or more")


# --- the JSON object ------------------------------------------------------------------------------
@uncollected()
def report(planned: Planned) -> dict[str, Any]:
    """The object that `lpu plan --json` prints."""
    request, timed = planned.request, planned.timed
    plan, spec = timed.plan, timed.plan.spec
    prompt = request.prompt_tokens or min(128, plan.context)
    prefill = timed.prefill(prompt)
    found = _of_any_prompt(planned) | {
        "prompt_tokens": prompt,
        "prefill_cycles": sum(launch.cycles for launch in prefill),
        "time_to_first_token_s": sum(launch.seconds for launch in prefill),
    }
    if request.batch > 1:
        found |= pipelined(timed.steps, request.batch, prompt, not timed.no_prefill)
        latency_s = timed.decode(plan.context).seconds(spec)
        found |= timed.energy(latency_s, 1 / found["tokens_per_s_total"])
    return found


def reported(name: str, request: PlanRequest, store: CostStore) -> dict[str, Any]:
    """The report of the plan of a request."""
    return report(make(name, request, store))


def _of_any_prompt(planned: Planned) -> dict[str, Any]:
    """What the report of a plan says for one sequence, whatever its prompt is; made once."""
    if not planned.stated:
        planned.stated.update(_stated(planned))
    return dict(planned.stated)


def _stated(planned: Planned) -> dict[str, Any]:
    request, timed = planned.request, planned.timed
    plan, spec = timed.plan, timed.plan.spec
    decode = timed.decode(plan.context)
    latency_s = decode.seconds(spec)
    breakdown = timed.breakdown(plan.context)
    return {
        "model": planned.model,
        "objective": request.objective,
        "rows_per_launch": plan.rows,
        "notes": [
            *planned.notes,
            *_prefill_note(timed),
            *sums_notes(plan.model, plan.tp),
            *accuracy_notes(plan.weights),
        ],
        "plan": _shape(planned),
        "clock_hz": spec.clock_hz,
        "cycles_per_token": decode.cycles,
        "interval_cycles": decode.cycles,
        "tokens_per_s_per_user": 1 / latency_s,
        "tokens_per_s_total": 1 / latency_s,
        "host_transfer_s": latency_s - decode.cycles / spec.clock_hz,
        "breakdown": breakdown,
        "bottleneck": bottleneck(breakdown, planned.candidates, planned.ruled_out),
        "lower_bound_cycles": planned.lower_bound_cycles,
        **timed.distance(plan.context),
        "placement": {
            "hops": planned.placed.hops,
            "lower_bound_hops": planned.placed.lower_bound_hops,
            "gap": planned.placed.gap,
            "best_possible": planned.placed.exact,
        },
        **timed.energy(latency_s, timed.interval_cycles(plan.context) / spec.clock_hz),
        "decode_cycles_by_context": {
            str(context): timed.decode(context).cycles for context in _shown(timed)
        },
        "alternatives": [_alternative(planned, c) for c in planned.candidates[1 : SHOWN + 1]],
    }


def _prefill_note(timed: PlanTiming) -> list[str]:
    if not timed.no_prefill:
        return []
    return [f"prompts go token by token: a chunk would take {timed.no_prefill}"]


def _shown(timed: PlanTiming) -> list[int]:
    """Some context buckets, the first and the last among them."""
    every = list(timed.contexts())
    step = max(1, -(-(len(every) - 1) // (BUCKETS_SHOWN - 1)))
    return sorted({*every[::step], every[-1]})


def _shape(planned: Planned) -> dict[str, Any]:
    timed, plan = planned.timed, planned.timed.plan
    programs = timed.program_bytes()
    stages: list[dict[str, Any]] = []
    for part, group in zip(plan.stages, timed.placement, strict=True):
        held = planned.sizes.kinds(plan.tp, plan.chunk, part.layers, part.head)
        kinds = held | {"programs": max(programs[chip] for chip in group)}
        stages.append(
            {
                "first_layer": part.first,
                "layers": part.layers,
                "head": part.head,
                "chips": list(group),
                "sram_bytes": sum(kinds.values()),
                "sram": kinds,
            }
        )
    used = set(programs)
    holders = {chip for group in timed.placement for chip in group}
    return {
        "chips": plan.chips,
        "pp": plan.pp,
        "tp": plan.tp // plan.ep,
        "ep": plan.ep,
        "topology": planned.topology,
        "spec": plan.spec.name,
        "weights": plan.weights,
        "sums_between_nodes": plan.model.sums,
        "context": plan.context,
        "batch": planned.request.batch,
        "prefill_chunk": plan.chunk,
        "sram_bytes_max": max(stage["sram_bytes"] for stage in stages),
        "sram_bytes_of_a_chip": plan.spec.sram_bytes,
        "sram_unused": unused_sram(plan, planned.sizes, stages),
        "transit_chips": sorted(used - holders),
        "spare_chips": len(timed.graph) - len(used | holders),
        "stages": stages,
        **({"experts": asdict(mixed)} if (mixed := residents(plan.model, plan.tp)) else {}),
    }


def _alternative(planned: Planned, other: Candidate) -> dict[str, Any]:
    best = planned.candidates[0]
    batch = planned.request.batch
    objective = planned.request.objective
    slower = other.cost(objective, batch) / best.cost(objective, batch)
    limit = "its links" if other.tp > best.tp else "weights on too few chips"
    if other.tp == best.tp:
        limit = "its stages"
    return {
        "tp": other.tp // planned.timed.plan.ep,
        "pp": other.pp,
        "chips": other.chips,
        "cycles_per_token": other.cycles,
        "interval_cycles": other.interval_cycles,
        "slower": slower,
        "limited_by": limit,
    }
