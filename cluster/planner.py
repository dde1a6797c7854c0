"""`lpu plan`: the plan that was asked for or the best one, its timing, and why it is the best."""

from dataclasses import dataclass
from typing import Any

from chip.kernels.decoder import Stage
from chip.kernels.memory import INNER_SLICES
from chip.kernels.needs import check_served
from chip.own_spec import find
from chip.spec import ChipSpec
from cluster.beat_timing import pipelined
from cluster.errors import BadValue, DoesNotFit
from cluster.model.equivalent import planned_as
from cluster.model.load import load_spec
from cluster.model.spec import ModelSpec
from cluster.partition import CHUNKS, CONTEXT_BLOCK, Sizes, check_weights, partition
from cluster.placement import place
from cluster.plan_energy import plan_energy
from cluster.planning import NODE_CHIPS, default_topology, open_graph
from cluster.search import SHOWN, Candidate, Search
from cluster.timing import Timed, Timing

BUCKETS_SHOWN = 8
LARGEST_DRAGONFLY = 10440


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
    spec: str = "groqchip1"
    weights: str = "fp16"
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
    candidates: list[Candidate]
    notes: tuple[str, ...]
    lower_bound_cycles: int


def make(wish: Wish) -> Planned:
    """Search and time; raises DoesNotFit with what would fit, BadValue, UnknownName, ..."""
    model, notes = planned_as(load_spec(wish.model))
    wish.check(model)
    spec = find(wish.spec)
    check_weights(model, spec, wish.weights)
    check_served(spec, max(CHUNKS))
    topology = wish.topology or _topology(wish, model, spec)
    graph = open_graph(topology, wish.profile, wish.links, spec)
    chips = min(wish.chips or len(graph), len(graph))
    if wish.chips and wish.chips > len(graph):
        raise BadValue("--topology", topology, f"has {len(graph)} chips, not {wish.chips}")
    search = Search(model, spec, graph, wish.context, wish.batch, wish.weights)
    candidates = search.candidates(chips, wish.tp, wish.pp, wish.objective)
    if not candidates:
        raise _what_would_fit(search, wish, chips)
    best = candidates[0]
    plan = partition(model, spec, best.tp, best.pp, wish.context, wish.weights, search.sizes)
    timed = Timed(plan, place(plan, graph, topology), graph)
    return Planned(wish, topology, timed, candidates, notes, search.bound(best.tp))


def _topology(wish: Wish, model: ModelSpec, spec: ChipSpec) -> str:
    """Where none is named: what `lpu run` takes for so many chips, for many a dragonfly."""
    chips, tp = wish.chips, wish.tp or 1
    if not chips:
        if wish.tp and wish.pp:
            chips = wish.tp * wish.pp
        else:
            found = _fewest(
                Sizes(model, spec, wish.context, wish.weights, wish.batch), wish.tp, wish.pp
            )
            chips, tp = (found[0] * found[1], found[0]) if found else (NODE_CHIPS, 1)
    if chips <= 2 * NODE_CHIPS or chips > LARGEST_DRAGONFLY:
        return default_topology(chips, tp)
    return f"dragonfly:{-(-chips // NODE_CHIPS) * NODE_CHIPS}"


def _fewest(sizes: Sizes, tp: int | None, pp: int | None) -> tuple[int, int] | None:
    """(tp, pp) with the fewest chips, under what is fixed of it."""
    found: list[tuple[int, int, int]] = []
    for width in [tp] if tp else range(1, sizes.model.heads + 1):
        if found and width >= min(found)[0]:
            break
        shortest = sizes.fewest_stages(width)
        if shortest and shortest[0] <= (pp or shortest[0]):
            stages = pp or shortest[0]
            found.append((stages * width, width, stages))
    if not found:
        return None
    _, width, stages = min(found)
    return width, stages


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
    tp = wish.tp or min(chips, search.model.heads)
    pp = wish.pp or max(1, min(search.model.layers, chips // tp))
    layers = -(-search.model.layers // pp)
    needs = sizes.stage(tp, 8, layers, head=True, wide=True).memory.used_bytes
    area = (search.spec.slices - 2 * INNER_SLICES) * search.spec.slice_words * search.spec.lanes
    room = f"{area / 2**20:.1f} MiB of it for weights and caches"
    return DoesNotFit(pp - 1, needs, has, f"{room}, with --tp {tp} --pp {pp}; {advice}")


# --- the JSON object ------------------------------------------------------------------------------
def report(planned: Planned) -> dict[str, Any]:
    """The object that `lpu plan --json` prints."""
    wish, timed = planned.wish, planned.timed
    plan, spec = timed.plan, timed.plan.spec
    decode = timed.launch("decode", plan.context)
    latency_s = _launch_s(spec, decode)
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
        "time_to_first_token_s": sum(_launch_s(spec, launch) for launch in prefill),
        "host_transfer_s": latency_s - decode.cycles / spec.clock_hz,
        "breakdown": breakdown,
        "bottleneck": _bottleneck(breakdown, decode.cycles),
        "lower_bound_cycles": planned.lower_bound_cycles,
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


def _launch_s(spec: ChipSpec, launch: Timing) -> float:
    transfer_s = 2 * spec.host_latency_s + launch.host_bytes / spec.host_bytes_per_s
    return launch.cycles / spec.clock_hz + transfer_s


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
        elif name.startswith(("part", "sum0", "sum1")):
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
    slower = other.cycles / best.cycles
    if planned.wish.objective == "throughput":
        slower = other.round_cycles(batch) / best.round_cycles(batch)
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
