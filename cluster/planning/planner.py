"""`lpu plan`: the plan that was asked for or the best one, its timing, and why it is the best."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from operator import mul
from typing import Any

from chip.kernels.decoder import Stage
from chip.kernels.memory import INNER_SLICES
from chip.kernels.needs import check_served
from chip.own_spec import find
from chip.spec import ChipSpec
from cluster.errors import BadValue, DoesNotFit
from cluster.mapping.choice import NODE_CHIPS, default_topology, open_graph
from cluster.mapping.partition import CHUNKS, CONTEXT_BLOCK, Sizes, check_weights
from cluster.mapping.placement import Placed
from cluster.model.equivalent import planned_as, residents
from cluster.model.load import load_spec
from cluster.model.spec import Experts, ModelSpec
from cluster.planning.beat_timing import pipelined
from cluster.planning.cost_store import CostStore
from cluster.planning.costs import Width
from cluster.planning.energy import plan_energy
from cluster.planning.search import SHOWN, Candidate, Search
from cluster.planning.timing import Timed

BUCKETS_SHOWN = 8
LARGEST_DRAGONFLY = 10440
_NARROWER = "weights are int8: in fp16 they have no room; --weights fp16 says what would have"


@dataclass(frozen=True)
class Wish:
    """The options of `lpu plan`; None is "choose"."""

    model: str
    chips: int | None = None
    tp: int | None = None
    pp: int | None = None
    topology: str | None = None
    profile: str | None = None
    links: tuple[str, ...] = ()
    faults: str | None = None
    spec: str = "groqchip1"
    weights: str | None = None  # fp16; int8 where the chips are too few for that
    context: int = CONTEXT_BLOCK
    batch: int = 1
    prompt_tokens: int | None = None
    objective: str = "latency"

    def check(self, model: ModelSpec) -> "Wish":
        """Return self; raise BadValue for what can be seen to be wrong before any work."""
        if not 1 <= self.context <= model.context_max:
            raise BadValue("--context", self.context, f"must be 1 to {model.context_max} tokens")
        if self.tp and self.pp and self.chips and self.tp * self.pp > self.chips:
            need = f"--tp {self.tp} x --pp {self.pp} needs {self.tp * self.pp} chips"
            raise BadValue("--chips", self.chips, need)
        for option, value, most, what in (
            ("--tp", self.tp, model.heads, "heads"),
            ("--pp", self.pp, model.layers + 1, "layers and LM head"),
            ("--prompt-tokens", self.prompt_tokens, self.context, "context"),
        ):
            if value is not None and value > most:
                raise BadValue(option, value, f"must be 1 to {most}, the {what} of {model.name}")
        return self


@dataclass(frozen=True)
class Planned:
    """The chosen plan with its timing, and the candidates it was chosen from, best first."""

    wish: Wish
    topology: str
    timed: Timed
    placed: Placed
    candidates: list[Candidate]
    notes: tuple[str, ...]
    lower_bound_cycles: int
    experts: Experts | None = None  # of a mixture, which is planned with all of them at work


def make(wish: Wish, store: CostStore | None = None) -> Planned:
    """Search and time; raises DoesNotFit with what would fit, BadValue, UnknownName, ..."""
    given = load_spec(wish.model)
    model, notes = planned_as(given)
    wish.check(model)
    spec, free = find(wish.spec), wish.weights is None
    weights = wish.weights or "fp16"
    check_weights(model, spec, weights)
    check_served(spec, max(CHUNKS))
    topology = wish.topology or _topology(wish, model, spec, weights)
    graph = open_graph(topology, wish.profile, wish.links, spec, wish.faults)
    chips = min(wish.chips or len(graph), len(graph))
    if wish.chips and wish.chips > len(graph):
        left = f"{topology} with faults {wish.faults}" if wish.faults else topology
        raise BadValue("--topology", left, f"has {len(graph)} chips, not {wish.chips}")
    where = (wish.context, wish.batch, weights, store or CostStore())
    search = Search(model, spec, graph, *where)
    candidates = search.candidates(chips, wish.tp, wish.pp, wish.objective)
    if not candidates:
        if free and _int8_fits(search, wish, chips):
            planned = make(replace(wish, weights="int8"), store)
            return replace(planned, notes=(*planned.notes, _NARROWER))
        raise _what_would_fit(search, wish, chips)
    best = candidates[0]
    placed, timed = search.placed(best.tp, best.pp), search.timed(best.tp, best.pp)
    bound = int(search.bound(Width(best.tp, best.chunk), best.pp))
    return Planned(wish, topology, timed, placed, candidates, notes, bound, given.experts)


def _topology(wish: Wish, model: ModelSpec, spec: ChipSpec, weights: str) -> str:
    """Where none is named: what `lpu run` takes for so many chips, for many a dragonfly."""
    chips, tp = wish.chips, wish.tp or 1
    if not chips:
        if wish.tp and wish.pp:
            chips = wish.tp * wish.pp
        else:
            sizes = Sizes(model, spec, wish.context, weights, wish.batch)
            tp, stages = _fewest(sizes, wish.tp, wish.pp, _in_nodes) or (1, NODE_CHIPS)
            chips = _in_nodes(tp, stages) if tp * stages > NODE_CHIPS else tp * stages
    if chips <= 2 * NODE_CHIPS or chips > LARGEST_DRAGONFLY:
        return default_topology(chips, tp)
    return f"dragonfly:{-(-chips // NODE_CHIPS) * NODE_CHIPS}"


def _in_nodes(tp: int, pp: int) -> int:
    """Chips of nodes whose groups lie inside one, or have whole ones to themselves."""
    if tp <= NODE_CHIPS:
        return -(-pp // (NODE_CHIPS // tp)) * NODE_CHIPS
    return -(-tp // NODE_CHIPS) * NODE_CHIPS * pp


def _fewest(
    sizes: Sizes, tp: int | None, pp: int | None, chips: Callable[[int, int], int] = mul
) -> tuple[int, int] | None:
    """(tp, pp) with the fewest chips, under what is fixed of it; None if nothing fits."""
    found: list[tuple[int, int, int]] = []
    for width in [tp] if tp else range(1, sizes.model.heads + 1):
        if found and width >= min(found)[0]:
            break
        shortest = sizes.fewest_stages(width)
        if shortest and shortest[0] <= (pp or shortest[0]):
            stages = pp or shortest[0]
            found.append((chips(width, stages), width, stages))
    return min(found)[1:] if found else None


def _what_would_fit(search: Search, wish: Wish, chips: int) -> DoesNotFit:
    """The error for a model that has no room on `chips` chips."""
    sizes, has = search.sizes, search.spec.sram_bytes
    free = _fewest(sizes, None, None)
    if free is None:
        advice = f"no plan of {search.model.name} fits chip {search.spec.name}"
        free, advice = (search.model.heads, search.model.layers), f"{advice}; lower --context"
    else:
        tp, pp = free
        advice = f"what fits: --tp {tp} --pp {pp} ({tp * pp} chips) or more, on --chips {tp * pp}"
        advice += f"; or --weights int8 on these {chips}" if _int8_fits(search, wish, chips) else ""
    tp = wish.tp or min(chips, search.model.heads)
    pp = wish.pp or max(1, min(search.model.layers, chips // tp))
    layers = -(-search.model.layers // pp)
    needs = sizes.stage(tp, 8, layers, head=True, wide=True).memory.used_bytes
    area = (search.spec.slices - 2 * INNER_SLICES) * search.spec.slice_words * search.spec.lanes
    room = f"{area / 2**20:.1f} MiB of it for weights and caches"
    return DoesNotFit(pp - 1, needs, has, f"{room}, with --tp {tp} --pp {pp}; {advice}")


def _int8_fits(search: Search, wish: Wish, chips: int) -> bool:
    """Whether int8 would fit where fp16 does not."""
    try:
        check_weights(search.model, search.spec, "int8")
    except BadValue:
        return False
    sizes = Sizes(search.model, search.spec, wish.context, "int8", wish.batch)
    widths = [wish.tp] if wish.tp else range(1, search.model.heads + 1)
    return wish.weights != "int8" and any(sizes.fits_on(chips, tp, wish.pp) for tp in widths)


# --- the JSON object ------------------------------------------------------------------------------
def report(planned: Planned) -> dict[str, Any]:
    """The object that `lpu plan --json` prints."""
    wish, timed = planned.wish, planned.timed
    plan, spec = timed.plan, timed.plan.spec
    decode = timed.launch("decode", plan.context)
    latency_s = decode.seconds(spec)
    prompt = wish.prompt_tokens or min(128, plan.context)
    prefill = timed.prefill(prompt)
    breakdown = timed.breakdown(plan.context)
    found = {
        "model": wish.model,
        "objective": wish.objective,
        "notes": list(planned.notes) + _prefill_note(timed),
        "plan": _shape(planned),
        "clock_hz": spec.clock_hz,
        "cycles_per_token": decode.cycles,
        "interval_cycles": decode.cycles,
        "tokens_per_s_per_user": 1 / latency_s,
        "tokens_per_s_total": 1 / latency_s,
        "prompt_tokens": prompt,
        "prefill_cycles": sum(launch.cycles for launch in prefill),
        "time_to_first_token_s": sum(launch.seconds(spec) for launch in prefill),
        "host_transfer_s": latency_s - decode.cycles / spec.clock_hz,
        "breakdown": breakdown,
        "bottleneck": _bottleneck(breakdown, decode.cycles),
        "lower_bound_cycles": planned.lower_bound_cycles,
        "placement": {
            "hops": planned.placed.hops,
            "lower_bound_hops": planned.placed.lower_bound_hops,
            "gap": planned.placed.gap,
            "best_possible": planned.placed.exact,
        },
        **plan_energy(timed, latency_s, planned.candidates[0].interval_cycles / spec.clock_hz),
        "decode_cycles_by_context": {
            str(context): timed.launch("decode", context).cycles for context in _shown(timed)
        },
        "alternatives": [_alternative(planned, c) for c in planned.candidates[1 : SHOWN + 1]],
    }
    if wish.batch > 1:
        found |= pipelined(timed.beats, wish.batch, prompt, not timed.no_prefill)
    return found


def _prefill_note(timed: Timed) -> list[str]:
    if not timed.no_prefill:
        return []
    return [f"prompts go token by token: a chunk would take {timed.no_prefill}"]


def _shown(timed: Timed) -> list[int]:
    """Some context buckets, the first and the last among them."""
    every = list(timed.contexts())
    step = max(1, -(-(len(every) - 1) // (BUCKETS_SHOWN - 1)))
    return sorted({*every[::step], every[-1]})


def _shape(planned: Planned) -> dict[str, Any]:
    timed, plan = planned.timed, planned.timed.plan
    programs = timed.program_bytes()
    stages: list[dict[str, Any]] = []
    for part, stage, group in zip(plan.stages, timed.stages, timed.placement, strict=True):
        kinds = sram_by_kind(stage) | {"programs": max(programs[chip] for chip in group)}
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
        "tp": plan.tp,
        "topology": planned.topology,
        "spec": plan.spec.name,
        "weights": plan.weights,
        "context": plan.context,
        "batch": planned.wish.batch,
        "prefill_chunk": plan.chunk,
        "sram_bytes_max": max(stage["sram_bytes"] for stage in stages),
        "sram_bytes_of_a_chip": plan.spec.sram_bytes,
        "transit_chips": sorted(used - holders),
        "spare_chips": len(timed.graph) - len(used | holders),
        "stages": stages,
        **({"experts": asdict(residents(planned.experts, plan.tp))} if planned.experts else {}),
    }


def sram_by_kind(stage: Stage) -> dict[str, int]:
    """SRAM bytes of a chip by what they hold."""
    weights = {placed.buffer.name for placed in stage.matrices.values()}
    found = {"weights": 0, "kv_cache": 0, "activations": 0, "network": 0}
    for name, buffer in stage.memory.buffers.items():
        region = buffer.region
        size = region.words * region.slices * stage.spec.lanes
        kind = "activations"
        if name in weights or name in ("gamma", "bias", "ones", "identity"):
            kind = "weights"
        elif "." in name and name.partition(".")[2].startswith(("K", "V")):
            kind = "kv_cache"
        elif name.startswith(("part", "between")):
            kind = "network"
        found[kind] += size
    return found


_WORDS = {
    "attention": "attention: projections, norms and softmax; wider tensor groups share them out",
    "ffn": "the FFN: its weights enter the MXM eight columns a cycle; wider groups share them out",
    "all_reduce": "all-reduces over the links; narrower tensor groups or shorter links need less",
    "clocks": "the start of the chips and the Runtime deskews that their clocks demand",
    "lm_head": "the LM head; wider tensor groups share it out",
    "stage_transfers": "transfers between stages; fewer, fuller stages need less",
}


def _bottleneck(breakdown: dict[str, int], cycles: int) -> str:
    what = max(breakdown, key=lambda name: breakdown[name])
    return f"{breakdown[what] / cycles:.0%} of a token's cycles are {_WORDS[what]}"


def _alternative(planned: Planned, other: Candidate) -> dict[str, Any]:
    best = planned.candidates[0]
    batch = planned.wish.batch
    objective = planned.wish.objective
    slower = other.cost(objective, batch) / best.cost(objective, batch)
    limit = "its links" if other.tp > best.tp else "weights on too few chips"
    if other.tp == best.tp:
        limit = "its stages"
    return {
        "tp": other.tp,
        "pp": other.pp,
        "chips": other.chips,
        "cycles_per_token": other.cycles,
        "interval_cycles": other.interval_cycles,
        "slower": slower,
        "limited_by": limit,
    }
