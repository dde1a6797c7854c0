"""Do GPUs help LPUs with a model? Points of all systems, the front of them, and a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from chip.energy import energy_table
from chip.own_spec import find
from cluster.compare.lpu import lpu_points
from cluster.compiler.choose import PlanRequest
from cluster.compiler.limits import CONTEXT_BLOCK, NODE_CHIPS, heads_of
from cluster.compiler.sizes import Sizes
from cluster.errors import BadValue
from cluster.hybrid.between import Between
from cluster.hybrid.ffn import ffn_model
from cluster.hybrid.gpus import Gpus
from cluster.hybrid.systems import (
    AFD,
    GPU_ALONE,
    LPU_ALONE,
    PREFILL,
    Point,
    Turn,
    afd_systems,
    gpu_systems,
    lpu_systems,
    prefill_systems,
)
from cluster.model.graph.counts import MATRIX_BYTES
from cluster.model.graph.graph import Model
from cluster.model.load import find_decoder
from cluster.planning.cost_store import CostStore
from cluster.planning.kept import Kept
from cluster.planning.planner import make, make_for

USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MIXED = (PREFILL, AFD)
HEAD = ("system", "users", "tok/s", "in all", "first ms", "J/token", "M/MW")
WORDS = (
    "tok/s: of each user after the first token, which comes after so many ms. M/MW: million tokens "
    "a second of all users for a megawatt. J/token: of the devices alone."
)
FRONT_SHOWN = 3  # of a kind, besides the fastest and the one with most for a megawatt


@dataclass(frozen=True)
class WithGpus:
    """Points, those of them that no other beats in speed for each user and tokens/s per MW."""

    turn: Turn
    link: Between
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    answer: str
    notes: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """As JSON."""
        points = [
            asdict(one)
            | {
                "joules_per_token": one.joules_per_token,
                "tokens_per_s_per_rack": one.tokens_per_s_per_rack,
                "tokens_per_s_per_mw": one.tokens_per_s_per_mw,
                "on_front": one in self.front,
            }
            for one in self.points
        ]
        return {
            "answer": self.answer,
            "turn": asdict(self.turn),
            "between": asdict(self.link),
            "points": points,
            "notes": list(self.notes),
        }


def with_gpus(
    name: str,
    request: PlanRequest,
    link: Between,
    prefill_on: Gpus | None = None,
    afd: Gpus | None = None,
    store: CostStore | None = None,
) -> WithGpus:
    """Points of a model with one or both kinds of help; raises what `lpu plan` raises.

    A turn fills the context: three quarters of it is the prompt.
    """
    if energy_table(find(request.spec)) is None:
        raise BadValue("--spec", request.spec, "has no known power to compare with GPUs")
    model = find_decoder(name)
    request = replace(request, weights=request.weights or "int8", batch=1, objective="latency")
    weight_bytes = MATRIX_BYTES[request.weight_type]
    turn = Turn(request.context * 3 // 4, request.context - request.context * 3 // 4)
    planned, lpus = make(name, request, store), lpu_points(name, request, store)
    found = list(lpu_systems(planned, lpus, turn))
    for gpus in dict.fromkeys(one for one in (prefill_on, afd) if one):
        found += gpu_systems(model, gpus, turn, weight_bytes, USERS)
    if prefill_on:
        found += prefill_systems(planned, lpus, turn, prefill_on, link, weight_bytes)
    if afd:
        ffn = ffn_model(model)
        width = min(request.tp, heads_of(ffn)) if request.tp else _narrowest(ffn, request, store)
        size = replace(request, tp=width, pp=None, context=CONTEXT_BLOCK, objective="throughput")
        parts = make_for(ffn, f"{name} FFN", size, Kept(store or CostStore()))
        found += afd_systems(model, parts, turn, afd, link, weight_bytes)
    front = pareto(found)
    notes = (
        WORDS,
        f"A turn is {turn.prompt:,} tokens of prompt and {turn.new:,} of answer; all users are "
        "in such turns.",
        "LPUs by compiled schedules; GPUs at the share of bandwidth and with the collectives that "
        "decoders are measured to get, prompts at half their operations (assumption).",
        f"Between them {link.name}: {link.source}.",
        "A prompt keeps the busiest LPU stage for as large a part of its launches as decode does.",
        *model.notes,
    )
    return WithGpus(turn, link, tuple(found), tuple(front), _answer(found, front), notes)


def _narrowest(ffn: Model, request: PlanRequest, store: CostStore | None) -> int | None:
    """The narrowest group of whole nodes that holds the FFNs: its all-reduces are the shortest."""
    spec, most = find(request.spec), heads_of(ffn)
    sizes = Sizes(ffn, spec, CONTEXT_BLOCK, request.weight_type, store=store)
    widths = (most,) if most < NODE_CHIPS else range(NODE_CHIPS, most + 1, NODE_CHIPS)
    return next((width for width in widths if sizes.fewest_stages(width)), None)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in tokens/s of each user and of a megawatt, the slowest first."""
    found: list[Point] = []
    order = sorted(points, key=lambda p: (-p.tokens_per_s_per_user, -p.tokens_per_s_per_mw))
    for point in order:
        if not found or point.tokens_per_s_per_mw > found[-1].tokens_per_s_per_mw:
            found.append(point)
    return found[::-1]


def _answer(points: Sequence[Point], front: Sequence[Point]) -> str:
    """In one sentence, whether a system of both is worth it."""
    mixed = [one for one in front if one.kind in MIXED]
    alone = _most_for_one(points, (LPU_ALONE, GPU_ALONE))
    if mixed:
        best = max(mixed, key=lambda one: one.tokens_per_s_per_mw)
        return (
            f"Do GPUs help LPUs here? Yes: {best.system} ({best.kind}) give each of "
            f"{best.users:,} users {best.tokens_per_s_per_user:,.0f} tokens/s, and for a megawatt "
            f"{best.tokens_per_s_per_mw:,.0f} in all, more than anything else as fast (for one "
            f"user {alone})."
        )
    return (
        "Do GPUs help LPUs here? No: at every speed for each user LPUs or GPUs alone give more "
        f"tokens/s for a megawatt (for one user {alone}, {_most_for_one(points, MIXED)})."
    )


def _most_for_one(points: Sequence[Point], kinds: Sequence[str]) -> str:
    said = []
    for kind in kinds:
        mine = [one.tokens_per_s_per_user for one in points if one.kind == kind]
        said += [f"{kind} give {max(mine):,.0f}"] if mine else []
    return ", ".join(said)


def cells(one: Point) -> tuple[str, ...]:
    """The cells of a point below HEAD."""
    return (
        one.system,
        f"{one.users:,}",
        f"{one.tokens_per_s_per_user:,.0f}",
        f"{one.tokens_per_s:,.0f}",
        f"{one.time_to_first_token_s * 1e3:,.1f}",
        f"{one.joules_per_token:.3g}",
        f"{one.tokens_per_s_per_mw / 1e6:,.3g}",
    )


def shown(found: WithGpus) -> Mapping[str, list[Point]]:
    """By kind of system the points to print: the fastest, the thriftiest and some of the front."""
    by_kind: dict[str, list[Point]] = {}
    for one in found.points:
        by_kind.setdefault(one.kind, []).append(one)
    chosen = {}
    for kind, some in by_kind.items():
        fastest = max(some, key=lambda p: p.tokens_per_s_per_user)
        thriftiest = max(some, key=lambda p: p.tokens_per_s_per_mw)
        best = [one for one in some if one in found.front][:FRONT_SHOWN]
        keep = dict.fromkeys([fastest, thriftiest, *best])
        chosen[kind] = sorted(keep, key=lambda p: -p.tokens_per_s_per_user)
    return chosen
