"""From what the command line asks for to a plan and a graph: the rest is chosen, or is an error."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx

from chip.kernels.needs import check_served
from chip.own_spec import find
from chip.spec import ChipSpec
from cluster.compiler.chunk import with_best_chunk
from cluster.compiler.clocking import pacing
from cluster.compiler.limits import (
    CONTEXT_BLOCK,
    NODE_CHIPS,
    check_rows,
    least_rows,
    said_widest,
    widest_of,
    widths_of,
)
from cluster.compiler.place import Placement, place
from cluster.compiler.sizes import CHUNKS
from cluster.compiler.stages import Plan, partition, smallest
from cluster.compiler.sums import check_sums
from cluster.compiler.wires import Wires
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.graph import Model
from cluster.model.mixture import spread_experts
from topology import parse, ports
from topology.collectives.sums import FP32
from topology.fabric import compiled
from topology.faults import apply

LINK_PROFILES = {"lp30": "lp30"}  # of chips whose links are not those the topology assumes


@dataclass(frozen=True)
class PlanRequest:
    """The options of a plan as given; None is "choose"."""

    chips: int | None = None
    tp: int | None = None
    pp: int | None = None
    topology: str | None = None
    profile: str | None = None
    links: tuple[str, ...] = ()
    faults: str | None = None
    spec: str = "groqchip1"
    weights: str | None = None  # fp16; plans take int8 if published so, or on chips too few
    context: int = CONTEXT_BLOCK
    batch: int = 1  # sequences in flight, each with caches of its own
    prompt_tokens: int | None = None
    objective: str = "latency"
    ep: int | None = None  # parts of a stage's chips, tp each, that experts are spread over
    rows: int | None = None  # sequences that share a launch
    sums_between_nodes: str = FP32  # the format in which partial sums travel there

    @property
    def weight_type(self) -> str:
        """The type of the weights where nobody chose another."""
        return self.weights or "fp16"


@dataclass(frozen=True)
class Choice:
    """A plan, the graph it runs on, and that graph's SPEC."""

    plan: Plan
    graph: nx.Graph
    topology: str


def spread(model: Model, request: PlanRequest) -> tuple[Model, PlanRequest]:
    """The model with experts over as many parts as asked for, and tp chips of all of them.

    Its sums travel as asked for. Raises BadValue.
    """
    ep = request.ep or 1
    check_sums(request.sums_between_nodes)
    model = model.with_sums(request.sums_between_nodes)
    if ep > widest_of(model):
        raise BadValue("--ep", ep, f"must be 1 to {widest_of(model)}, {said_widest(model)}")
    tp = request.tp * ep if request.tp else None
    return spread_experts(model, ep), replace(request, tp=tp, ep=None)


def choose(model: Model, request: PlanRequest) -> Choice:
    """Fill in what the request leaves open.

    Dead parts are left out: what remains is placed and routed on what is left, in one piece.
    Raises BadValue, UnknownName or TopologyError for what cannot be, DoesNotFit with what would.
    """
    spec = find(request.spec)
    check_served(spec, max(CHUNKS))
    model, request = spread(model, request)
    plan = make_plan(model, spec, request)
    check_sums(request.sums_between_nodes, plan.tp)
    topology = request.topology or default_topology(plan.chips, plan.tp)
    graph = open_graph(topology, request.profile, request.links, spec, request.faults)
    if graph.number_of_nodes() < plan.chips:
        has, stages = graph.number_of_nodes(), "stage" if plan.pp == 1 else "stages"
        shape, chips = f"{plan.pp} {stages} x tp {plan.tp}", "chip" if has == 1 else "chips"
        left = f"{topology} with faults {request.faults}" if request.faults else topology
        raise BadValue("--topology", left, f"has {has} {chips}, {shape} needs {plan.chips}")
    return Choice(plan, graph, topology)


def place_choice(choice: Choice) -> tuple[Plan, Placement]:
    """The plan of a choice where it is placed, with the chunk that suits its links."""
    plan, graph = choice.plan, choice.graph
    placement = place(plan, graph, choice.topology)
    wires = Wires(graph, apart=plan.slots > 1).side_by_side(placement)
    pipeline = wires.pipeline(placement)
    clocks = pacing(compiled(graph), pipeline.used, plan.spec)
    return with_best_chunk(plan, pipeline, clocks), placement


def open_graph(
    topology: str,
    profile: str | None,
    links: Sequence[str],
    spec: ChipSpec,
    faults: str | None = None,
) -> nx.Graph:
    """The graph of a SPEC without its dead parts; raises BadValue where the chip lacks ports."""
    profile = profile or LINK_PROFILES.get(spec.name)
    graph = parse(topology, profile, link_overrides(links), spec.clock_hz)
    if faults:
        graph = apply(graph, faults, whole=False).graph
    used = [p for chip in ports(graph).values() for group in chip.values() for p in group]
    needed = max(used, default=-1) + 1
    if needed > spec.c2c_ports:
        raise BadValue(
            "--topology",
            topology,
            f"uses {needed} ports of a chip, {spec.name} has {spec.c2c_ports}",
        )
    return graph


def link_overrides(texts: Sequence[str]) -> dict[str, object]:
    """Read `field=value` pairs."""
    pairs: dict[str, object] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals:
            raise BadValue("--link", text, "write it as field=value, e.g. latency_cycles=300")
        pairs[field.strip()] = value.strip()
    return pairs


def make_plan(model: Model, spec: ChipSpec, request: PlanRequest) -> Plan:
    """Return the plan that was asked for, or the one with the fewest chips."""
    check_rows(model, request.rows, request.batch, "--concurrency")
    try:
        shapes = _shapes(model, request)
        if shapes is None:
            size = request.context, request.tp, request.weight_type, request.batch
            return smallest(model, spec, *size, request.rows or 1)
        return _first_that_fits(model, spec, shapes, request)
    except DoesNotFit as error:
        advice = _what_would_fit(model, spec, request)
        raise DoesNotFit(error.stage, error.needs_bytes, error.has_bytes, advice) from None


def _shapes(model: Model, request: PlanRequest) -> list[tuple[int, int]] | None:
    """(tp, pp) to try in order; None when neither the chips nor the stages are given."""
    chips, tp, pp = request.chips, request.tp, request.pp
    if tp and pp:
        if chips not in (None, tp * pp):
            raise BadValue("--chips", chips, f"--tp {tp} x --pp {pp} is {tp * pp} chips")
        return [(tp, pp)]
    if chips and (tp or pp):
        option, given = ("--tp", tp) if tp else ("--pp", pp)
        assert given
        if chips % given:
            raise BadValue("--chips", chips, f"must be a multiple of {option} {given}")
        return [(tp, chips // tp)] if tp else [(chips // given, given)]
    if chips:
        return _factors(model, chips)
    return [(width, pp) for width in widths_of(model)] if pp else None


def _factors(model: Model, chips: int) -> list[tuple[int, int]]:
    """All tp x pp of exactly that many chips, the narrowest tensor groups first.

    In models of the size that runs here, an all-reduce over links of hundreds of cycles costs more
    than it saves: SmolLM2 decodes in 116 k cycles at tp 1 x pp 6, in 129 k at tp 3 x pp 2.
    """

    def shapes(count: int) -> list[tuple[int, int]]:
        pairs = [(tp, count // tp) for tp in widths_of(model) if count % tp == 0]
        return [(tp, pp) for tp, pp in pairs if pp <= len(model.layers)]

    found = shapes(chips)
    if found:
        return found
    most = len(model.layers) * widest_of(model)
    near = [n for n in range(min(chips, most), 0, -1) if shapes(n)]
    rule = f"must be tp x pp, tp one of {[*widths_of(model)]}, pp at most {len(model.layers)}"
    raise BadValue("--chips", chips, f"{rule}; try {near[0]}")


def _first_that_fits(
    model: Model, spec: ChipSpec, shapes: list[tuple[int, int]], request: PlanRequest
) -> Plan:
    """The first shape that fits with whole matrices, or else with cut ones."""
    error: DoesNotFit | None = None
    slots, rows = request.batch, request.rows or 1
    for cut in (False, True):
        for tp, pp in shapes:
            try:
                size = (tp, pp, request.context, request.weight_type)
                return partition(model, spec, *size, slots=slots, rows=rows, cut=cut)
            except DoesNotFit as failed:
                error = error or failed
    assert error is not None
    raise error


def _what_would_fit(model: Model, spec: ChipSpec, request: PlanRequest) -> str:
    slots = request.batch
    fewer = most_concurrent(model, spec, request)
    here = f"--concurrency {fewer}, or " if fewer else ""
    try:
        plan = smallest(model, spec, request.context, weights=request.weight_type, slots=slots)
    except DoesNotFit:
        if here:
            return f"what fits: --concurrency {fewer}"
        none = f"no plan of {model.name} fits chip {spec.name}"
        more = request.context > CONTEXT_BLOCK
        return f"{none}; lower --context {request.context}" if more else none
    shape = f"--tp {plan.tp // plan.ep}" + f" --ep {plan.ep}" * (plan.ep > 1)
    return f"what fits: {here}{shape} --pp {plan.pp} ({plan.chips} chips) or more"


def most_concurrent(model: Model, spec: ChipSpec, request: PlanRequest) -> int:
    """The most sequences, fewer than asked for, that the stages of a request hold; 0 if none."""
    shapes = _shapes(model, request)
    if shapes is None:
        return 0
    low, high = 0, request.batch
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _any_that_fits(model, spec, shapes, replace(request, batch=middle))
            low = middle
        except DoesNotFit:
            high = middle
    return low


def _any_that_fits(
    model: Model, spec: ChipSpec, shapes: list[tuple[int, int]], request: PlanRequest
) -> None:
    """Raise DoesNotFit unless it fits with one number of rows or another."""
    *tried, last = least_rows(model, request.batch, request.rows)
    for rows in tried:
        try:
            _first_that_fits(model, spec, shapes, replace(request, rows=rows))
            return
        except DoesNotFit:
            pass
    _first_that_fits(model, spec, shapes, replace(request, rows=last))


def default_topology(chips: int, tp: int = 1) -> str:
    """The topology of a plan that names none: a node, else the squarest torus, else a ring.

    A torus whose one side is a multiple of tp keeps tensor groups on neighbouring chips.

    >>> default_topology(6), default_topology(90, 3), default_topology(22)
    ('node', 'torus:9x10', 'ring:22')
    """
    if chips <= NODE_CHIPS:
        return "node"
    sides = [(n, chips // n) for n in range(3, int(chips**0.5) + 1) if chips % n == 0]
    if not sides:
        return f"ring:{chips}"
    along = [pair for pair in sides if pair[0] % tp == 0 or pair[1] % tp == 0]
    small, large = (along or sides)[-1]
    return f"torus:{small}x{large}"
