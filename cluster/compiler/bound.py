"""What no schedule of a launch goes below: the distance of ours from the hardware.

Sections follow each other, as each reads what the one before has made. A section takes at least as
long as each of five things, from the same ops and the same ChipSpec as its programs: weights
entering the arrays, streams, SRAM, links, and the longest path of instructions that wait for each
other. On that path a product waits for its weights too: an array holds one tile and has another at
hand, the rest must enter while its activations are there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

from chip.isa import WIDTHS
from chip.kernels.allreduce import Reach
from chip.spec import EAST, HEMISPHERES, WEST, ChipSpec
from cluster.compiler.launch import LaunchKind
from cluster.compiler.op_work import Product, Share, product_cycles, work_of
from cluster.compiler.shard import Sharded
from cluster.compiler.stage_shape import compiled, ranks
from cluster.compiler.stages import Plan
from cluster.compiler.sums import least_received
from cluster.compiler.wires import NO_NETWORK
from cluster.compiler.wiring import Pipeline, StageLink
from cluster.model.graph.collective import AllReduce
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.linear import Linear


@dataclass(frozen=True)
class Bound:
    """Cycles that a launch takes at least: five parts, and what follows of them section by section.

    `latency` is that of the longest path; it has the waits for weights and links on it.
    """

    array_ingest: int = 0
    streams: int = 0
    sram: int = 0
    links: int = 0
    latency: int = 0
    cycles: int = 0

    def __add__(self, other: "Bound") -> "Bound":
        return Bound(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, count: int) -> "Bound":
        """So many of them one after another."""
        return Bound(*(count * n for n in astuple(self)))

    def beside(self, cycles: int) -> str:
        """How far a launch of so many cycles is from the bound, in words."""
        return f"{cycles:,} cycles, {cycles / self.cycles:.2f} x their bound"

    def report(self, cycles: int) -> dict[str, Any]:
        """For reports: the bound, its parts, and a launch of so many cycles as times the bound."""
        parts = asdict(self)
        whole = parts.pop("cycles")
        return {
            "bound_cycles": whole,
            "bound_parts": parts,
            "cycles_over_bound": cycles / whole,
        }


NOTHING = Bound()


# --- a launch -------------------------------------------------------------------------------------
def launch_bound(plan: Plan, pipeline: Pipeline, kind: LaunchKind, start_cycle: int) -> Bound:
    """Of a launch through all stages, one after another, whose programs begin at `start_cycle`."""
    total = _start(start_cycle)
    for link in pipeline.links:
        total += crossing_bound(plan, link, kind.rows)
    for number in range(plan.pp):
        total += stage_bound(plan, pipeline.alone[number].routes.reach, number, kind)
    return total


def step_bound(plan: Plan, pipeline: Pipeline, kind: LaunchKind, start_cycle: int) -> Bound:
    """Of a pipeline step, in which all stages have sent and are at work side by side."""
    reaches = (group.routes.reach for group in pipeline.groups)
    stages = [stage_bound(plan, reach, number, kind) for number, reach in enumerate(reaches)]
    sent = [crossing_bound(plan, link, kind.rows) for link in pipeline.links]
    longest = [max(found, key=lambda one: one.cycles) for found in (stages, sent) if found]
    return sum(longest, _start(start_cycle))


def _start(cycles: int) -> Bound:
    return Bound(latency=cycles, cycles=cycles)


def layer_bound(plan: Plan, reach: Reach, layer: int, kind: LaunchKind) -> Bound:
    """Of a layer of the model, on a group with such links."""
    rank = ranks(plan.model, plan.tp, plan.weights, plan.spec.lanes)[0]
    share = Share(plan.spec, rank, kind.rows, kind.context)
    section = compiled(plan.model.layers[layer], plan.tp, plan.weights)
    return section_bound(section, share, reach)


def stage_bound(plan: Plan, reach: Reach, number: int, kind: LaunchKind) -> Bound:
    """Of the layers of a stage, and of the head in launches that want logits."""
    model, part, total = plan.model, plan.stages[number], NOTHING
    rank = ranks(model, plan.tp, plan.weights, plan.spec.lanes)[0]
    share = Share(plan.spec, rank, kind.rows, kind.context)
    for section, times in Counter(plan.kinds(number)).items():
        first = model.kinds.index(section)
        total += layer_bound(plan, reach, first, kind).times(times)
    if part.first == 0 and model.opening is not None:
        total += section_bound(compiled(model.opening, plan.tp, plan.weights), share, reach)
    if part.head and kind.logits_rows:
        last = Share(plan.spec, rank, kind.logits_rows, kind.context)
        total += section_bound(compiled(model.head, plan.tp, plan.weights), last, reach)
    return total


@lru_cache(maxsize=256)
def crossing_bound(plan: Plan, link: StageLink, rows: int) -> Bound:
    """Of x on its way to the next stage: each element once, over all ports of the ranks."""
    vectors = rows * _vectors(plan.model.hidden.size, plan.spec)
    ports = plan.tp * plan.spec.c2c_ports
    interval = min(hop.interval_cycles for path in link.paths for hop in path)
    nearest = min(sum(hop.latency_cycles for hop in path) for path in link.paths)
    sent = (ceil(vectors / ports) - 1) * interval
    cycles = _between_vxms(plan.spec) + nearest + sent
    return Bound(links=sent, latency=cycles, cycles=cycles)


# --- a section ------------------------------------------------------------------------------------
@lru_cache(maxsize=1024)
def section_bound(sharded: Sharded, share: Share, reach: Reach = NO_NETWORK.reach) -> Bound:
    """Of a layer or the head, on the rank that has most of it."""
    spec, ops, vectors = share.spec, sharded.section.ops, _Vectors()
    exchanges = [_exchange(share, op, sharded, reach) for op in ops if isinstance(op, AllReduce)]
    for op in ops:
        if not isinstance(op, AllReduce):
            found = work_of(share, op)
            vectors.written += found.written_vectors
            for product in found.products:
                vectors.add(product)
    streams = len(HEMISPHERES) * spec.streams
    ingest = _Ingest(spec).cycles(vectors.weights, vectors.plane_cycles)
    busiest = max(vectors.weights + vectors.activations, vectors.sums)
    read_or_written = max(vectors.weights, vectors.written)
    parts = (
        ingest,
        busiest // streams,
        read_or_written // spec.slices,
        sum(links for links, _ in exchanges),
        _Path(sharded, share, reach).cycles(),
    )
    # what may have entered the arrays while the section before was at work
    ahead = _Ingest(spec).ahead
    return Bound(*parts, max(*(part - ahead for part in parts[:3]), *parts[3:]))


@dataclass
class _Vectors:
    """[lanes] bytes of the products of a section."""

    weights: int = 0
    activations: int = 0
    sums: int = 0
    plane_cycles: int = 0
    written: int = 0

    def add(self, product: Product) -> None:
        self.weights += product.weight_vectors
        self.activations += product.activation_vectors
        self.sums += product.sum_vectors
        self.plane_cycles += product.plane_cycles


@dataclass(frozen=True)
class _Ingest:
    """How quickly weights and activations enter the arrays of a chip."""

    spec: ChipSpec

    @property
    def per_cycle(self) -> int:
        """[lanes] bytes of weights."""
        return len(HEMISPHERES) * self.spec.lw_streams

    @property
    def ahead(self) -> int:
        """Cycles of weights that the arrays hold at a time: a tile at work and one at hand."""
        held = 2 * self.spec.mxm_planes * self.spec.lanes
        return held // self.per_cycle

    def cycles(self, weight_vectors: int, plane_cycles: int, ahead: int = 0) -> int:
        """Cycles of so many weights, of which some have entered before, and of activations."""
        loading = weight_vectors // self.per_cycle - ahead
        return max(loading, plane_cycles // self.spec.mxm_planes, 0)


# --- the longest path -----------------------------------------------------------------------------
@dataclass(frozen=True)
class _Reached:
    """A value at the VXM: from which cycle on, from which on the factor that it lacks.

    `since` has the least cycles since the result of each product that it was made of.
    """

    cycle: int = 0
    factor_cycle: int = 0
    since: Mapping[int, int] = field(default_factory=dict)

    def later(self, cycles: int) -> "_Reached":
        """What is made of it so many cycles later."""
        since = {number: passed + cycles for number, passed in self.since.items()}
        return _Reached(self.cycle + cycles, self.factor_cycle, since)


class _Path:
    """The longest path through a section, on which products wait for their weights.

    Of all products behind a cycle together, the arrays can have held only what fits them before.
    """

    def __init__(self, sharded: Sharded, share: Share, reach: Reach) -> None:
        self.sharded, self.share, self.reach = sharded, share, reach
        self.spec, self.ingest = share.spec, _Ingest(share.spec)
        self.products: list[tuple[int, Product]] = []  # with the cycle of its activations

    def cycles(self) -> int:
        """From x to the result of the section."""
        section = self.sharded.section
        reached = {section.x.name: _Reached()}
        for op in section.ops:
            product = isinstance(op, Linear | ExpertLinear)
            if isinstance(op, AllReduce):
                _, latency = _exchange(self.share, op, self.sharded, self.reach)
                inputs = [reached[value.name] for value in op.inputs]
                reached[op.out.name] = self._met(inputs).later(latency)
                continue
            found = work_of(self.share, op)
            early = [reached[value.name] for value in op.inputs if value not in found.late]
            at = self._met(early, waits=not product)
            factor = at.cycle + found.factor_cycles if found.factor_cycles else 0
            for part in found.parts:
                at = at.later(part.latency_cycles)
                if part.product:
                    if found.late and part.product is found.products[-1]:
                        at = self._met([at, *(reached[value.name] for value in found.late)])
                    at = self._through(at, part.product)
            if product and at.factor_cycle:
                with_factor = max(at.cycle, at.factor_cycle) + self.share.alu
                at = _Reached(with_factor, 0, at.since)
            reached[op.out.name] = _Reached(at.cycle, max(factor, at.factor_cycle), at.since)
        end = reached[section.out.name]
        return max(end.cycle, end.factor_cycle)

    def _met(self, inputs: Sequence[_Reached], waits: bool = True) -> _Reached:
        """Values that are read together; who `waits` has their factors, others leave them.

        Together they wait for the weights of all products that they were made of: gate and up each
        might have the arrays to itself, both have not.
        """
        since: dict[int, int] = {}
        for one in inputs:
            for number, passed in one.since.items():
                since[number] = max(since.get(number, 0), passed)
        cycle, factor = max(one.cycle for one in inputs), max(one.factor_cycle for one in inputs)
        if len(inputs) > 1:
            cycle = max([cycle, *self._waits(since)])
        return _Reached(max(cycle, factor) if waits else cycle, 0 if waits else factor, since)

    def _through(self, at: _Reached, product: Product) -> _Reached:
        """The result of a product whose activations are there."""
        number = len(self.products)
        self.products.append((at.cycle, product))
        after = at.later(product_cycles(self.spec))
        since = {**after.since, number: 0}
        cycle = max(after.cycle, *self._waits(since))
        return _Reached(cycle, after.factor_cycle, since)

    def _waits(self, since: Mapping[int, int]) -> Iterator[int]:
        """The first cycle at which the products behind each of some starts can all be over."""
        for first in {self.products[number][0] for number in since}:
            behind = [n for n in since if self.products[n][0] >= first]
            each = [self.products[number][1] for number in behind]
            enter = self.ingest.cycles(
                sum(one.weight_vectors for one in each),
                sum(one.plane_cycles for one in each),
                self.ingest.ahead,
            )
            over = first + product_cycles(self.spec) + enter
            yield over + min(since[number] for number in behind)


# --- links ----------------------------------------------------------------------------------------
def _vectors(elements: int, spec: ChipSpec) -> int:
    """Vectors on a cable of a row of fp32 elements."""
    return -(-elements // spec.lanes) * WIDTHS["f32"]


def _between_vxms(spec: ChipSpec) -> int:
    """From the VXM of a chip to that of another, without the cable between them."""
    way = abs(spec.edge_position("c2c", EAST) - spec.vxm_position)
    return 2 * way + spec.d_func("c2c.receive")


def _through(spec: ChipSpec) -> int:
    """From a port of a chip to another, as vectors take that pass it.

    What a port receives runs inward, and is sent where it runs outward: at the other edge, or at
    its own once a unit has turned it. The MXM turns nothing; the SXM is the next one, and slices,
    which would have to be written and read, lie behind it.
    """
    east, west = (spec.edge_position("c2c", side) for side in (EAST, WEST))
    turned = 2 * abs(east - spec.edge_position("sxm", EAST)) + spec.quickest("sxm")
    return spec.d_func("c2c.receive") + min(abs(east - west), turned)


def _exchange(share: Share, op: AllReduce, sharded: Sharded, reach: Reach) -> tuple[int, int]:
    """Cycles that an all-reduce keeps the links of a rank busy, and its latency.

    All summands go to all ranks in one crossing; or sums are made on the way, by a rank between the
    two farthest maybe, and then each rank takes in nearly twice the vectors of one. Either way the
    two farthest hear of each other through the chips between them.
    """
    ranks_count = sharded.shares.tp
    vectors = share.rows * _vectors(op.out.width, share.spec)
    interval, slowest, ends = reach.interval_cycles, reach.cables, _between_vxms(share.spec)
    nearest = ends + reach.nearest_cycles
    passed = max(0, reach.farthest_hops - 1) * _through(share.spec)
    crossing = ends + reach.farthest_cycles + passed
    once = (ranks_count - 1) * vectors * interval // slowest
    each = least_received(ranks_count, op.sums)  # on the way to who adds, and to who needs it
    twice = 2 * each.numerator * vectors * interval // (each.denominator * slowest)
    least = min(once, twice)
    latency = min(crossing + once, max(crossing + twice, 2 * nearest)) + share.alu
    return least, latency
