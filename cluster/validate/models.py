"""Rows of matrix products and of encoders: schedules of the kernels that run."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from chip.kernels.gemm import Gemm
from chip.schedule import Schedule
from chip.spec import GROQCHIP1
from cluster.compiler.bound import Bound, launch_bound
from cluster.compiler.choose import default_topology
from cluster.compiler.limits import STATIC
from cluster.compiler.stages import Plan
from cluster.encoders.encoding import cut_layers, launch_kind, lower_encoder
from cluster.model.encoders import encoder
from cluster.model.graph.graph import Model
from cluster.model.weights.synthetic import SyntheticWeights
from cluster.planning.planner import make
from cluster.validate.row import Row, at_least, missed, phases, within
from topology import parse

ISCA22 = "Abts et al., ISCA 2022"
TOKENS = 128
FP16_PRODUCTS = 102_400  # per cycle: two pairs of planes, K = 160 each


def matmul_rows() -> Iterator[Row]:
    """V26: useful products of [2304 x 4096] . [4096 x N] over those of a chip that never waits."""
    for n in (1376, 1920, 2432, 2944, 3500):
        gemm = Gemm(GROQCHIP1, 2304, 4096, n)
        share = gemm.useful_products / (FP16_PRODUCTS * gemm.plan.end_cycle)
        what = f"utilisation of [2304 x 4096] . [4096 x {n}], fp16"
        yield at_least("V26", what, 0.8, share, f"{ISCA22}, figure 13", "1 chip, operands in SRAM")


def encoder_rows() -> Iterator[Row]:
    """V12, V31: latency of BERT; V32: throughput as encoders and chips grow together."""
    base, large = ("bert-base", 1, STATIC), ("bert-large", 6, "fp16")
    yield _bert("V12", *base, 130e-6, 25, "Answer Fast, arXiv 2206.11062")
    yield _bert("V31", *large, 1225e-6, 20, f"{ISCA22}, figure 17")
    yield from _scaling()


def _bert(
    ident: str, name: str, chips: int, weights: str, published: float, percent: float, source: str
) -> Row:
    model = encoder(name)
    plan = _plan(model, chips, weights)
    (cycles, bound), stage = _latency(plan), _schedule(plan, min(1, plan.pp - 1))
    clock, spec = plan.spec.clock_hz, plan.spec
    seconds = cycles / clock + 2 * spec.host_latency_s
    static = "int8 with static steps, as a compiler that calibrates has them, attention in fp16"
    how = static if weights == STATIC else weights
    where = f"{plan.chips} chips, {how}, {TOKENS} tokens, with two host transfers of 10 us; "
    where += bound.beside(cycles)
    row = within(ident, f"{name}, one sequence, s", published, seconds, percent, source, where)
    matrices = (w for layer in model.layers for w in layer.weights if w.inner)
    products = TOKENS * sum(prod(matrix.shape) for matrix in matrices)
    events = ((label.split()[0], start, end) for label, start, end in stage.events)
    reason = (
        f"of {cycles:,} cycles, arrays that never wait take {products // FP16_PRODUCTS:,} for the "
        f"weights in fp16, a quarter of that in int8; rows pass maxima and sums over lanes in "
        f"softmax and norms, and wait for slices in which others rest; one layer ends before the "
        f"next begins; of {stage.end_cycle:,} of a stage: "
        f"{phases(events, stage.end_cycle)}"
    )
    return missed(row, reason)


def _plan(model: Model, chips: int, weights: str = "fp16") -> Plan:
    return cut_layers(model, GROQCHIP1, chips, TOKENS, weights)


def _schedule(plan: Plan, number: int) -> Schedule:
    return plan.stage(number).schedule(TOKENS, 1, {})


def _latency(plan: Plan) -> tuple[int, Bound]:
    """Cycles of a sequence, and what no schedule goes below."""
    graph = parse(default_topology(plan.pp))
    nodes = sorted(graph.nodes)[: plan.pp]
    lowered = lower_encoder(plan, nodes, graph, SyntheticWeights(plan.model), (TOKENS,))
    (launch,) = lowered.launches.values()
    start = lowered.clocking.start_cycle if lowered.clocking else 0
    bound = launch_bound(plan, lowered.pipeline, launch_kind(TOKENS), start)
    return max(launch.end_cycles.values()), bound


def _scaling() -> Iterator[Row]:
    rates = {}
    for chips in (1, 4, 8, 16):
        layers = 6 * chips
        base = encoder("bert-base")
        model = replace(base, name=f"{layers} encoders", layers=base.layers[:1] * layers)
        plan = _plan(model, chips)
        busy = max(_schedule(plan, n).end_cycle for n in {0, chips // 2, chips - 1})
        rates[chips] = layers / busy
    for chips, rate in rates.items():
        what = f"encoders per second on {chips} chips, over {chips} x one chip"
        where = f"{6 * chips} encoders of BERT-base, 6 a chip, sequences in a pipeline"
        found = rate / (chips * rates[1])
        yield within("V32", what, 1.0, found, 5, f"{ISCA22}, figure 18", where)


def decoder_rows() -> Iterator[Row]:
    """V35: the fastest plan of a 7B model."""
    planned = make("llama-2-7b")
    timed = planned.timed
    launch, spec = timed.decode(timed.plan.context), timed.plan.spec
    seconds = launch.cycles / spec.clock_hz + 2 * spec.host_latency_s
    where = f"{timed.plan.chips} chips, {planned.topology}, fp16, context {timed.plan.context}; "
    where += timed.bound(timed.plan.context).beside(launch.cycles)
    source = "vendor, via TechPowerUp, Feb 2024; chip count unknown"
    yield at_least("V35", "Llama-2-7B, tokens/s per user", 750, 1 / seconds, source, where)
