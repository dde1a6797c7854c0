"""V33 to V45: large models on the published cluster of 576 chips, as `lpu plan` times them.

Of what the vendor's service prints, neither load nor chips are published: its speeds are lower
bounds, and a model without room on 576 chips is planned on those that it takes at least.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from chip.rates import host_transfer_s, rates
from chip.spec import GROQCHIP1
from cluster.compiler.choose import PlanRequest
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.errors import DoesNotFit
from cluster.model.graph.experts import ExpertLinear
from cluster.model.known import known_model
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import Planned, make
from cluster.planning.speculation import Guessing, speculated
from cluster.validate.row import Row, at_least, missed, within

CHIPS, TOPOLOGY = 576, "dragonfly:576"
VENDOR = "vendor, via TechPowerUp, Feb 2024"
SHIP = "SHIP, MLSys 2026"
PRICES_2025, MODELS_2026 = "vendor's price page, {} 2025", "vendor's models page, Oct 2026"
SPECULATION = "Groq, Nov 2024, and Artificial Analysis"
ACCEPTANCE, GUESSES = 0.9, 16
MXFP4_BITS = 4.25  # OCP MX specification: 32 values of 4 bits share a scale of 8
MOST_70B = 1400  # tokens/s at which the weights of a layer only just enter its chips' arrays


def llama_rows() -> Iterator[Row]:
    """V33: Llama-2-70B, a short context and the full one; ours must not beat the arrays' ingest."""
    for context, tp, pp in ((320, 32, 17), (4096, 7, 81)):
        request = PlanRequest(None, tp, pp, TOPOLOGY, weights="int8", context=context)
        planned = make("llama-2-70b", request)
        row = _speed("V33", "Llama-2-70B", 300, planned)
        yield missed(row, _parts(planned))
        if context == 320:
            ok = row.emulated <= MOST_70B
            what = "Llama-2-70B, tokens/s per user at most"
            source = "derived: ingest of 10,240 B/cycle on 7.2 chips a layer"
            yield replace(
                row, what=what, published=MOST_70B, tolerance="upper bound", ok=ok, source=source
            )


def mixtral_rows() -> Iterator[Row]:
    """V34: Mixtral, two of whose eight experts run for a token."""
    planned = make("mixtral-8x7b", PlanRequest(tp=32, pp=16, topology=TOPOLOGY, weights="int8"))
    row = _speed("V34", "Mixtral 8x7B", 480, planned)
    yield missed(row, _parts(planned))


def service_rows() -> Iterator[Row]:
    """V41, V43, V44, V45: speeds that the vendor's service prints."""
    early, late = (PRICES_2025.format(when) for when in ("early", "late"))
    yield _of_service("V41", "llama-3.2-1b", 3100, early)
    yield _of_service("V43", "llama-3.3-70b", 275, early, CHIPS, 8192)
    yield _of_service("V44", "qwen3-32b", 662, late)
    yield _of_service("V45", "gpt-oss-120b", 500, MODELS_2026, CHIPS)


def _of_service(
    ident: str, name: str, published: float, source: str, chips: int | None = None,
    context: int = CONTEXT_BLOCK,
) -> Row:  # fmt: skip
    request, more = PlanRequest(chips, weights="int8", context=context), ""
    try:
        planned = make(name, request)
    except DoesNotFit:
        planned, more = make(name, replace(request, chips=None)), f"; {chips} chips have no room"
    row = _speed(ident, name, published, planned)
    row = replace(row, source=f"{source}; chips assumed", configuration=row.configuration + more)
    return missed(row, _parts(planned))


def speculation_rows() -> Iterator[Row]:
    """V36: Llama-2-70B; which share of guesses is right is not published, and assumed."""
    topology, guessing = "dragonfly:648", Guessing(ACCEPTANCE, GUESSES)  # groups of a node, whole
    request, store = PlanRequest(topology=topology, weights="int8"), CostStore()
    planned = make("llama-2-70b", request, store)
    sides = replace(request, tp=8, pp=81)
    gain = speculated("llama-2-70b", sides, guessing, planned, store)
    where = f"{gain.chips} chips of {topology}, tp {gain.tp} x pp {gain.pp}, int8; {GUESSES} "
    where += f"guesses, {ACCEPTANCE:.0%} of them right and none takes time: assumptions"
    reason = f"we plan {gain.tokens_per_s:,.0f} tokens/s against {gain.plain_tokens_per_s:,.0f}; "
    reason += "published are 1,665 of a plan that gives 250 to 276"
    row = within("V36", "gain of speculative decoding", 6.3, gain.speedup, 30, SPECULATION, where)
    yield missed(row, reason)


def capacity_rows() -> Iterator[Row]:
    """V37: what gpt-oss-120B leaves of the SRAM, and the stream bandwidth of all chips."""
    model, where = known_model("gpt-oss-120b"), f"{CHIPS} chips; experts MXFP4, all else fp8"
    matrices = (
        count * prod(op.weight.shape)
        for section, count in model.distinct
        for op in section.ops
        if isinstance(op, ExpertLinear)
    )
    experts = sum(matrices)
    weights = experts * MXFP4_BITS / 8 + model.parameters - experts
    left = CHIPS * GROQCHIP1.sram_bytes - weights
    yield within("V37", "gpt-oss-120B, SRAM left, B", 69.7e9, left, 3, SHIP, where)
    streams = next(rate for rate in rates(GROQCHIP1) if rate.name == "streams")
    total = int(CHIPS * streams.per_s(GROQCHIP1.clock_hz) / 1e12)
    yield within("V37", "stream bandwidth, whole TB/s", 10616, total, 0, SHIP, f"{CHIPS} chips")


def _speed(ident: str, name: str, published: float, planned: Planned) -> Row:
    timed = planned.timed
    plan, launch = timed.plan, timed.decode(timed.plan.context)
    spec = plan.spec
    into_and_out_s = spec.host_latency_s + host_transfer_s(spec, launch.host_bytes)
    speed = 1 / (launch.cycles / spec.clock_hz + into_and_out_s)
    where = f"{plan.chips} chips of {planned.topology}, tp {plan.tp} x pp {plan.pp}, {plan.weights}"
    where += f", ep {plan.ep} of it; " if plan.ep > 1 else "; "
    where += timed.bound(plan.context).beside(launch.cycles)
    what = f"{name}, tokens/s per user, context {planned.request.context:,}"
    return at_least(ident, what, published, speed, VENDOR, where)


def _parts(planned: Planned) -> str:
    """Cycles of a token by part, most first."""
    found = planned.timed.breakdown(planned.timed.plan.context)
    order = sorted(found.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name.replace('_', ' ')} {cycles:,}" for name, cycles in order)
    return f"of {sum(found.values()):,} cycles of a token: {parts}"
