"""Many plans of one model at once: chips x tensor-parallel width x stages x sequences in flight.

A point's numbers are those that `lpu plan` gives for it, to the last digit. What is common is found
once: the costs of a width by all points, a graph and its placements by all of so many chips.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from chip.collection import uncollected
from chip.own_spec import find
from chip.spec import ChipSpec
from cluster.compiler.choose import open_graph
from cluster.compiler.limits import check_weights
from cluster.compiler.place import Places
from cluster.compiler.sizes import Paces, Sizes
from cluster.compiler.stages import Plan, partition
from cluster.compiler.wires import Wires
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.graph import Model
from cluster.model.load import find_decoder
from cluster.planning.cost_store import CostStore
from cluster.planning.costs import Costs
from cluster.planning.pipeline_timing import pipelined
from cluster.planning.timing import PlanTiming


@dataclass(frozen=True)
class Point:
    """A plan to be timed on a topology: `tp` x `pp` of its chips, `batch` sequences in flight."""

    topology: str
    tp: int
    pp: int
    batch: int = 1


@dataclass(frozen=True)
class Row:
    """What a point gives: numbers of one sequence, as `lpu plan` counts them.

    With `pipelines`, those of all `batch` sequences in flight beside them; None otherwise.
    """

    point: Point
    sram_bytes_max: int
    cycles_per_token: int
    tokens_per_s_per_user: float
    prefill_cycles: int
    time_to_first_token_s: float
    pipeline: dict[str, Any] | None = None


@dataclass
class Sweep:
    """Points of one model on one chip, with prompts of some tokens and as many new ones."""

    model: str
    prompt_tokens: int = 1024
    new_tokens: int = 128
    spec: str = "groqchip1"
    weights: str = "fp16"
    store: CostStore = field(default_factory=CostStore)
    pipelines: bool = False
    _sizes: dict[int, Sizes] = field(default_factory=dict)
    _paces: Paces = field(default_factory=dict)  # further caches take no time
    _graphs: dict[str, tuple[Places, Wires]] = field(default_factory=dict)
    _plans: dict[tuple[int, int, int], Plan] = field(default_factory=dict)
    _found: dict[tuple[object, ...], tuple[int, float, int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chip: ChipSpec = find(self.spec)
        self._shape = find_decoder(self.model)
        self.notes = self._shape.stand_in.notes if self._shape.stand_in else ()
        check_weights(self._shape, self._chip, self.weights)
        self.context = self.prompt_tokens + self.new_tokens
        self._costs = Costs(self.sizes(1), self.store)

    def sizes(self, batch: int) -> Sizes:
        """What stages need in SRAM with so many sequences."""
        if batch not in self._sizes:
            shape: Model = self._shape
            size = (shape, self._chip, self.context, self.weights, batch)
            self._sizes[batch] = Sizes(*size, paces=self._paces, store=self.store)
        return self._sizes[batch]

    def rows(self, points: Iterable[Point]) -> Iterator[Row | DoesNotFit]:
        """Each point's numbers, or the reason why there are none, in order.

        Raises BadValue for a point that cannot be, whatever fits.
        """
        for point in points:
            try:
                yield self.row(point)
            except DoesNotFit as error:
                yield error

    @uncollected(stays=True)
    def row(self, point: Point) -> Row:
        """The numbers of one point; raises DoesNotFit, BadValue or ProgramError."""
        plan = self._plan(point)
        several = self.pipelines and point.batch > 1
        pipeline = self._pipeline(point, plan) if several else None
        return Row(point, plan.sram_bytes_max, *self._alone(plan, point.topology), pipeline)

    def _alone(self, plan: Plan, topology: str) -> tuple[int, float, int, float]:
        """The numbers of a sequence in a plan where it is placed: room for more takes no time."""
        key = (topology, plan.tp, plan.chunk, *(stage.layers for stage in plan.stages))
        if key not in self._found:
            timed = self._timed(plan, topology)
            prefill = timed.prefill(self.prompt_tokens)
            decode = timed.decode(plan.context)
            self._found[key] = (
                decode.cycles,
                1 / decode.seconds(self._chip),
                sum(launch.cycles for launch in prefill),
                sum(launch.seconds for launch in prefill),
            )
        return self._found[key]

    def _pipeline(self, point: Point, plan: Plan) -> dict[str, Any]:
        """What so many users see; its schedules are made for this plan alone."""
        alone = self._timed(plan, point.topology)
        several = PlanTiming(plan, alone.placement, alone.graph, self._costs, alone.wires)
        chunked = not alone.no_prefill
        return pipelined(several.steps, point.batch, self.prompt_tokens, chunked)

    def points(
        self, topologies: Iterable[str], widths: Iterable[int], batches: Iterable[int]
    ) -> Iterator[Point]:
        """All points that have room: of each width every pipeline, the shortest first."""
        tried, most = list(batches), len(self._shape.layers) + 1
        for topology in topologies:
            chips = len(self._graph(topology)[0].graph)
            for tp in widths:
                for batch in tried:
                    shortest = self.sizes(batch).fewest_stages(tp)
                    lengths = range(shortest[0], min(chips // tp, most) + 1) if shortest else ()
                    yield from (Point(topology, tp, pp, batch) for pp in lengths)

    def _plan(self, point: Point) -> Plan:
        chips = len(self._graph(point.topology)[0].graph)
        if point.tp * point.pp > chips:
            need = f"has {chips} chips, {point.pp} stages x tp {point.tp} need more"
            raise BadValue("topology", point.topology, need)
        key = (point.tp, point.pp, point.batch)
        if key not in self._plans:
            size = (self._shape, self._chip, point.tp, point.pp, self.context, self.weights)
            self._plans[key] = partition(*size, self.sizes(point.batch))
        return self._plans[key]

    def _timed(self, plan: Plan, topology: str) -> PlanTiming:
        """A plan where it is placed, of one sequence."""
        places, wires = self._graph(topology)
        placement = places.place(plan.tp, plan.pp).placement
        return PlanTiming(replace(plan, slots=1), placement, places.graph, self._costs, wires)

    def _graph(self, topology: str) -> tuple[Places, Wires]:
        if topology not in self._graphs:
            graph = open_graph(topology, None, (), self._chip)
            self._graphs[topology] = Places(graph), Wires(graph, store=self.store)
        return self._graphs[topology]
