"""The best pipeline- and tensor-parallel plan for a model on a graph of chips.

Every width has a price per layer, per head and per stage boundary: cycles of the kernels' own
schedules, lowered once for a width on the first chips a plan of it would use. Candidates are
ranked by sums of these, and the best of them timed to the cycle. Widths are lowered in the order of
a closed-form lower bound, until no other can be better.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain

import networkx as nx

from chip.energy import energy_table
from chip.errors import ProgramError
from chip.isa import WIDTHS
from chip.kernels.allreduce import TEAM
from chip.kernels.memory import SramFull
from chip.spec import ChipSpec
from cluster.compiler.chunk import with_best_chunk
from cluster.compiler.launch import context_bucket, decode_kind
from cluster.compiler.limits import CONTEXT_BLOCK, widths_of
from cluster.compiler.place import Placed, Places
from cluster.compiler.sizes import CHUNKS, Sizes
from cluster.compiler.stage import Stage
from cluster.compiler.stages import Plan, layer_counts, partition
from cluster.compiler.sums import least_received
from cluster.compiler.wires import Wires
from cluster.energy import Joules
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.graph import Model
from cluster.model.mixture import expert_parts
from cluster.planning.ahead import launch_ahead, report_ahead
from cluster.planning.candidates import Candidate, Price
from cluster.planning.cost_store import CostStore
from cluster.planning.costs import Costs, StageKind, Width
from cluster.planning.timing import PlanTiming
from topology.fabric import compiled

Splits = list[tuple[float, int, int]]  # bounds of widths and stages
OBJECTIVES = ("latency", "throughput", "energy")
SHOWN = 5  # plans named beside the best
LIKELY = 1.4  # bounds of plans whose prices say which is best, over the least: a guess
TRIED = 2  # widths that are lowered for several users even if a bound says that they are no better


@dataclass
class Search:
    """Prices and candidates of one model on one graph; what is found is kept."""

    model: Model
    spec: ChipSpec
    graph: nx.Graph
    context: int = CONTEXT_BLOCK
    batch: int = 1
    weights: str = "fp16"
    store: CostStore = field(default_factory=CostStore)
    rows: int = 1  # sequences of a decode launch
    cut: bool = False  # whether stages may have matrices that are cut
    shared_chips: tuple[int, int] | None = None  # width and stages that use each other's chips
    ruled_out: list[list[int]] = field(default_factory=list)  # widths and stages that are slower
    outgrown: dict[tuple[int, int], DoesNotFit] = field(default_factory=dict)  # by their programs
    _widths: dict[int, Width] = field(default_factory=dict)
    _prices: dict[int, Price] = field(default_factory=dict)
    _layer_bounds: dict[int, int] = field(default_factory=dict)
    _plans: dict[tuple[int, int], PlanTiming] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = (self.model, self.spec, self.context, self.weights)
        self.sizes = Sizes(*size, self.batch, self.rows, self.cut, store=self.store)
        one = Sizes(*size, self.rows, self.rows, store=self.store)
        self.costs = Costs(self.sizes.whole if self.batch == 1 else one, self.store)
        self.places = Places(self.graph)
        self.decode = decode_kind(context_bucket(self.context), self.rows)

    @cached_property
    def wires(self) -> Wires:
        """Routes of the graph."""
        return Wires(self.graph, apart=self.batch > 1, store=self.store)

    # --- what there is to choose from -------------------------------------------------------
    def width(self, tp: int, pp: int) -> Width:
        """A width that has room, with the chunk of its plan of so many stages.

        That of the first such plan that is asked for: memory maps, and so costs, depend on it.
        """
        if tp not in self._widths:
            if self.batch == 1:
                self._widths[tp] = self.timed(tp, pp).width
            else:
                found = self.sizes.fewest_stages(tp)
                assert found
                self._widths[tp] = Width(tp, found[1])
        return self._widths[tp]

    def widths(self, chips: int) -> tuple[list[int], ...]:
        """Widths worth a look: up to a node every one, then whole teams; others; beyond a rack.

        A wider group that is no multiple of a team sends parts where teams send sums. Over several
        racks no two groups are cabled alike, and each would have schedules of its own.
        """
        racks = Counter(nx.get_node_attributes(self.graph, "rack").values())
        reach = max(racks.values(), default=chips)
        every = [tp for tp in widths_of(self.model) if tp <= chips]
        good = [tp for tp in every if tp <= reach and (tp < TEAM or tp % TEAM == 0)]
        others = [tp for tp in every if tp <= reach and tp not in good]
        return good, others, [tp for tp in every if tp > reach]

    def host_cycles(self, one: Candidate) -> int:
        """Cycles that a decode launch's results and the next one's inputs take over the links."""
        moved = self.costs.host_bytes(Width(one.tp, one.chunk), self.decode)
        seconds = 2 * self.spec.host_latency_s + moved / self.spec.host_bytes_per_s
        return math.ceil(seconds * self.spec.clock_hz)

    def splits(self, chips: int, tp: int, pp: int | None) -> range:
        """Stages of that width that the words of so many chips do not rule out."""
        least = self.sizes.least_stages(tp)
        most = min(len(self.model.layers) + 1, chips // tp)
        if least is None or (pp and not least <= pp <= most):
            return range(0)
        return range(pp, pp + 1) if pp else range(least, most + 1)

    def candidates(
        self, chips: int, tp: int | None = None, pp: int | None = None, objective: str = "latency"
    ) -> list[Candidate]:
        """The best plans, best first, timed to the cycle; [] if none fits.

        Raises BadValue for "energy" on a chip without an energy table, ProgramError if no plan
        that fits can be scheduled.
        """
        if objective == "energy" and energy_table(self.spec) is None:
            raise BadValue(
                "--objective", objective, f"nothing is known of {self.spec.name}'s power"
            )
        self.ruled_out = []
        if self.sizes.outweighs(chips):
            return []
        for widths in [[tp]] if tp else self.widths(chips):
            real, found, least = list[Candidate](), list[Candidate](), 0.0
            failed: ProgramError | None = None
            while (more := self._estimates(chips, widths, pp, objective, least)) != found:
                found, (real, failed) = more, self._timed(more, objective)
                least = real[0].cost(objective, self.batch) if real else math.inf
            if failed and not real:
                raise failed
            if found:
                break
        return real

    def _estimates(
        self, chips: int, widths: list[int], pp: int | None, objective: str, least: float = 0
    ) -> list[Candidate]:
        """Plans in the order of their bounds, until none can be better; the rest is not laid out.

        The best is known to cost `least` or more.

        For the latency of one user only the shortest pipeline of a width: each further boundary
        adds cycles; for the time of a round of several the shortest with stages of so many layers.
        For several users none whose stages cannot work side by side.
        """
        splits = [
            (self.bound(width, length, objective), width, length)
            for width in widths
            for length in self.splits(chips, width, pp)
        ]
        if least == 0:
            self.store.ahead(self._likely(sorted(splits), chips, objective))
        found: list[Candidate] = []
        shortest: set[tuple[int, int]] = set()
        for bound, width, length in sorted(splits):
            best = min((c.cost(objective, self.batch) for c in found), default=None)
            tried = {c.tp for c in found}
            enough = best is not None and bound > max(best, least)
            if enough and len(tried) >= (TRIED if self.batch > 1 else 1):
                self.ruled_out = [shape for at, *shape in splits if at >= bound]
                break
            if objective == "latency" and self.batch == 1 and width in tried:
                continue
            if objective != "energy" and (width, self._longest(length)) in shortest:
                continue
            if self._has_outgrown(width, length) or not self.sizes.fits_on(chips, width, length):
                continue
            if self.batch > 1 and not self.apart(width, length):
                self.shared_chips = self.shared_chips or (width, length)
                continue
            found.append(self.estimate(self.width(width, length), length, objective))
            shortest.add((width, self._longest(length)))
        return found

    def _likely(self, splits: Splits, chips: int, objective: str) -> list[partial[None]]:
        """Looks at further widths that the first may not rule out, each by its shortest plan."""

        def look(tp: int, pp: int) -> None:
            if self.sizes.fits_on(chips, tp, pp):
                self.estimate(self.width(tp, pp), pp, objective)

        shortest: dict[int, int] = {}
        for bound, tp, pp in splits:
            if bound <= splits[0][0] * LIKELY:
                shortest.setdefault(tp, pp)
        return [partial(look, *shape) for shape in shortest.items()][1:]

    def apart(self, tp: int, pp: int) -> bool:
        """Whether no stage needs another's chips, so that they can work side by side."""
        return self.wires.all_apart(self.placed(tp, pp).placement)

    def _timed(
        self, found: list[Candidate], objective: str
    ) -> tuple[list[Candidate], ProgramError | None]:
        """The same, best first, with the real cycles of all that the prices leave in question.

        Those that cannot be scheduled are left out, and why one of them cannot; and, for one user,
        those before the best whose programs have no room beside their weights.
        """
        best: Candidate | None = None
        failed: ProgramError | None = None
        real = []
        for one in sorted(found, key=lambda c: c.rank(objective, self.batch)):
            if best and one.rank(objective, self.batch) >= best.rank(objective, self.batch):
                real.append(one)
                continue
            if self.batch == 1:
                timed = self.timed(one.tp, one.pp)
                self.store.ahead(launch_ahead(timed, self.decode) if best else report_ahead(timed))
            try:
                real.append(self.exact(one, objective))
            except ProgramError as error:
                failed = error
                continue
            best = min((best or real[-1], real[-1]), key=lambda c: c.rank(objective, self.batch))
        real.sort(key=lambda c: c.rank(objective, self.batch))
        while self.batch == 1 and real and self._outgrows(real[0].tp, real[0].pp):
            del real[0]
        return real, failed

    def _outgrows(self, tp: int, pp: int) -> bool:
        """Whether the programs of a plan have no room; if so it is none any more."""
        try:
            self.timed(tp, pp).program_bytes()
        except DoesNotFit as error:
            self.outgrown[tp, pp] = error
            return True
        return False

    def _has_outgrown(self, tp: int, pp: int) -> bool:
        """Whether a plan, or one with a stage of as many layers, was seen to be so."""
        return any(
            pp == length or (self._longest(pp) == self._longest(length) and one.stage < length - 1)
            for (width, length), one in self.outgrown.items()
            if width == tp
        )

    def estimate(self, width: Width, pp: int, objective: str = "latency") -> Candidate:
        """A plan with its cycles as the prices say."""
        if self.batch == 1 and not self._prices:  # nor are others likely to be better
            self.store.ahead(report_ahead(self.timed(width.tp, pp)))
        price = self.price(width, pp)
        counts = layer_counts(self.sizes, width.tp, pp, width.chunk)
        cycles = price.latency(len(self.model.layers), pp)
        interval = price.interval(max(counts[:-1]), counts[-1]) if pp > 1 else cycles
        found = Candidate(width.tp, pp, width.chunk, cycles, interval, rows=self.rows)
        return self._with_energy(found, found.chips) if objective == "energy" else found

    def exact(self, one: Candidate, objective: str = "latency") -> Candidate:
        """The same plan with the cycles of its own chips and cables; raises ProgramError."""
        launch = self.timed(one.tp, one.pp).launch(self.decode)
        found = replace(one, cycles=launch.cycles)
        energy = objective == "energy"
        return self._with_energy(found, len(launch.instructions)) if energy else found

    def timed(self, tp: int, pp: int) -> PlanTiming:
        """A plan where it is placed, with the chunk for which prompts are taken in soonest."""
        if (tp, pp) not in self._plans:
            timed = self._timing(self.plan(tp, pp))
            plan = with_best_chunk(timed.plan, timed.pipeline, timed.clocks, self.sizes)
            self._plans[tp, pp] = timed if plan == timed.plan else self._timing(plan)
        return self._plans[tp, pp]

    def _timing(self, plan: Plan) -> PlanTiming:
        placement = self.placed(plan.tp, plan.pp).placement
        return PlanTiming(plan, placement, self.graph, self.costs, self.wires)

    def plan(self, tp: int, pp: int) -> Plan:
        """The layers of each stage; raises DoesNotFit."""
        return partition(self.model, self.spec, tp, pp, self.context, self.weights, self.sizes)

    def placed(self, tp: int, pp: int) -> Placed:
        """Where a plan is placed."""
        return self.places.place(tp, pp)

    # --- prices -----------------------------------------------------------------------------
    def price(self, width: Width, pp: int) -> Price:
        """Cycles of a width for a decode launch at the last context bucket.

        Those of the first stage of the first plan of that width that is asked for. With one
        sequence, other stages wait, and pass vectors on.
        """
        if width.tp not in self._prices:
            placement = self.placed(width.tp, pp).placement
            wires = self.wires.side_by_side(placement)
            if pp == 1 and 2 * width.tp <= len(self.graph):
                placement = self.placed(width.tp, 2).placement
            pipeline = wires.pipeline(placement if self.batch == 1 else placement[:2])
            groups = pipeline.alone if self.batch == 1 else pipeline.groups
            what, counts = (self.decode, groups[0].routes), Counter(self.model.kinds)
            alone = self.cut and self.batch == 1  # then plans are timed in any case
            own = self.timed(width.tp, pp).own_layers(self.decode) if alone else []
            layers = own or [(self.costs.layer(width, n, *what), counts[n]) for n in counts]
            head, stage = self.costs.head(width, self.rows), self.costs.stage(width)
            boundary = self.costs.links.boundary(stage, self.decode.rows, pipeline.links)
            every = chain(*(steps for steps, _ in layers), head)
            tail = max(step.timing.end_cycle - step.timing.quiet_cycle for step in every)
            total = sum(step.cycles * times for steps, times in layers for step in steps)
            cycles = total // len(self.model.layers), sum(step.cycles for step in head)
            self._prices[width.tp] = Price(*cycles, boundary, tail)
        return self._prices[width.tp]

    def _with_energy(self, one: Candidate, chips: int) -> Candidate:
        """With the joules of a token, of all chips that take part."""
        table = energy_table(self.spec)
        assert table is not None
        seconds = one.round_cycles(self.batch) / self.batch / self.spec.clock_hz
        group = self.wires.group(self.placed(one.tp, 1).placement[0])
        whole = StageKind(Width(one.tp, one.chunk), self.model.kinds, True, group.routes)
        dynamic = table.dynamic_j(self.costs.activity(whole, self.decode, None)) / self.rows
        return replace(one, joules=Joules(table, chips, dynamic, seconds).chips_j)

    # --- bounds -----------------------------------------------------------------------------
    def bound(self, tp: int, pp: int, objective: str = "latency") -> float:
        """What no plan of these sizes goes below: cycles, or joules per token."""
        layer = self.layer_bound(tp)
        share = 1 / min(tp, TEAM)  # of x, that a rank sends at least
        cycles = len(self.model.layers) * layer + (pp - 1) * self._crossing(share)
        launches = max(-(-self.batch // self.rows), pp if self.batch > 1 else 1)
        round_cycles = max(cycles, launches * self._longest(pp) * layer)
        if objective == "latency" and self.batch == 1:
            return cycles
        if objective != "energy":
            return round_cycles
        table = energy_table(self.spec)
        assert table is not None
        seconds = round_cycles / self.batch / self.spec.clock_hz
        return Joules(table, tp * pp, 0.0, seconds).chips_j

    def _longest(self, pp: int) -> int:
        """Layers that some stage of so many has at least."""
        return -(-len(self.model.layers) // pp)

    def layer_bound(self, tp: int) -> int:
        """Cycles that no layer goes below, on the average of all kinds.

        A chip with one head and the fewest FFN columns takes `least`, nearly all of it latency; a
        wider share adds the columns that enter its arrays, but for those that `hidden_cycles` may
        be enough for. Results cross the links twice.
        """
        if tp not in self._layer_bounds:
            total, counts, fewest = 0, Counter(self.model.kinds), widths_of(self.model)[-1]
            for kind, count in counts.items():
                mine, least = (self._layer(n, kind) for n in (tp, fewest))
                more = mine.column_cycles - least.column_cycles - mine.hidden_cycles
                total += count * (self._least[kind] + max(0, more))
            self._layer_bounds[tp] = total // counts.total() + 2 * self._reduce_bound(tp)
        return self._layer_bounds[tp]

    def _layer(self, tp: int, kind: int) -> Stage:
        """A stage of a layer of a kind, to be asked what needs no memory map."""
        return self.sizes.stage(tp, CHUNKS[-1], 1, False, kind=kind)

    @cached_property
    def _least(self) -> dict[int, int]:
        narrow, kinds = Width(widths_of(self.model)[-1], self.sizes.looks[0]), set(self.model.kinds)
        self.store.ahead([partial(self.costs.alone, narrow, kind, self.decode) for kind in kinds])
        found = {}
        for kind in kinds:
            try:
                found[kind] = self.costs.alone(narrow, kind, self.decode)
            except SramFull:  # it cannot be laid out so narrow, however large a chip is
                found[kind] = 0
        return found

    def _reduce_bound(self, tp: int) -> int:
        """Each chip needs something of every block, and some chips are no neighbours."""
        if tp == 1:
            return 0
        degree = max(degree for _, degree in self.graph.degree)
        hop = int(compiled(self.graph).wire_cycles.min()) if tp > degree + 1 else 0
        return self._crossing(float(least_received(tp, self.model.sums)) / degree) + hop

    def _crossing(self, share: float) -> int:
        """Cycles in which that share of x crosses the fastest cable."""
        fabric = compiled(self.graph)
        if not len(fabric.tail):
            return 0
        hidden = self._layer(expert_parts(self.model), self.model.kinds[0]).hidden_blocks
        vectors = int(hidden * WIDTHS["f32"] * share)
        latency = int(fabric.wire_cycles.min())
        return latency + int(max(0, vectors - 1) * fabric.paces[0])
