"""The best pipeline- and tensor-parallel plan for a model on a graph of chips.

Every width has a price per layer, per head and per stage boundary: cycles of the kernels' own
schedules, lowered once for a width on the first chips a plan of it would use. A plan's cycles are
sums of these, so that a candidate costs arithmetic. A lower bound from the weight columns that
must enter the MXM decides in which order widths are lowered, and when no other can be better.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import networkx as nx

from chip.kernels.decoder import Stage
from chip.kernels.shape import DecoderShape, layer_matrices
from chip.kernels.transfer import Hop, transfer
from chip.program import word_columns
from chip.schedule import Rows, Schedule
from chip.spec import EAST, WEST, ChipSpec
from cluster.errors import BadValue
from cluster.model.spec import ModelSpec
from cluster.partition import CONTEXT_BLOCK, Sizes, layer_counts
from cluster.placement import walks
from cluster.wires import Wires, group_of

OBJECTIVES = ("latency", "throughput", "energy")
SHOWN = 5  # plans told beside the best
NODE_CHIPS = 8


@dataclass(frozen=True)
class Price:
    """Cycles of one width at one context: of a layer, the LM head, a boundary between stages.

    `tail` is what a stage takes beyond its layers, until its last result is in memory.
    """

    layer: int
    head: int
    boundary: int
    tail: int
    launch_bytes: int = 0

    def latency(self, layers: int, pp: int) -> int:
        """Cycles of a decode launch through all stages."""
        return layers * self.layer + self.head + pp * self.tail + (pp - 1) * self.boundary

    def interval(self, most_layers: int, last_layers: int) -> int:
        """Cycles between two launches: of the busiest stage, with what it sends or receives."""
        last = last_layers * self.layer + self.head
        return max(most_layers * self.layer, last) + self.tail + self.boundary


@dataclass(frozen=True)
class Candidate:
    """A plan by its sizes, and its cycles as the prices say."""

    tp: int
    pp: int
    chunk: int
    cycles: int
    interval_cycles: int

    @property
    def chips(self) -> int:
        return self.tp * self.pp

    def round_cycles(self, batch: int) -> int:
        """Cycles in which each of `batch` sequences in flight gets a token."""
        return max(self.cycles, batch * self.interval_cycles)

    def rank(self, objective: str, batch: int) -> tuple[int, int, int]:
        """Smaller is better; ties go to fewer chips, then to narrower groups."""
        cycles = self.cycles if objective == "latency" else self.round_cycles(batch)
        return cycles, self.chips, self.tp


@dataclass
class Search:
    """Prices and candidates of one model on one graph; what is found is kept."""

    model: ModelSpec
    spec: ChipSpec
    graph: nx.Graph
    context: int = CONTEXT_BLOCK
    batch: int = 1
    weights: str = "fp16"
    _prices: dict[tuple[int, int, int], Price] = field(default_factory=dict)
    _shortest: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    _stages: dict[tuple[int, int], Stage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sizes = Sizes(self.model, self.spec, self.context, self.weights, self.batch)
        self.padded = -(-self.context // CONTEXT_BLOCK) * CONTEXT_BLOCK

    @cached_property
    def wires(self) -> Wires:
        """Routes of the graph."""
        return Wires(self.graph)

    # --- what there is to choose from -------------------------------------------------------
    def widths(self, chips: int) -> list[int]:
        """Widths tried unless one is asked for: up to a node every one, then 2 to 8 whole nodes."""
        most = min(chips, self.model.heads)
        small = list(range(1, min(NODE_CHIPS, most) + 1))
        whole = [n * NODE_CHIPS for n in (2, 3, 4, 6, 8)]
        return small + [n for n in whole if n <= most]

    def shortest(self, tp: int) -> tuple[int, int] | None:
        """(stages, chunk) of the shortest pipeline of that width; None if there is none."""
        if tp not in self._shortest:
            self._shortest[tp] = self.sizes.fewest_stages(tp)
        return self._shortest[tp]

    def splits(
        self, chips: int, tp: int | None, pp: int | None, objective: str
    ) -> Iterator[tuple[int, int, int]]:
        """(tp, pp, chunk) that fit into SRAM and into `chips`.

        For latency only the shortest pipeline of a width: each further boundary adds cycles.
        """
        for width in [tp] if tp else self.widths(chips):
            shortest = self.shortest(width)
            if shortest is None or shortest[0] * width > chips:
                continue
            least, chunk = shortest
            longest = min(self.model.layers + 1, chips // width)
            if pp:
                lengths = range(pp, pp + 1) if least <= pp <= longest else range(0)
            elif objective == "latency":
                lengths = range(least, least + 1)
            else:
                lengths = range(least, longest + 1)
            yield from ((width, length, chunk) for length in lengths)

    def candidates(
        self, chips: int, tp: int | None = None, pp: int | None = None, objective: str = "latency"
    ) -> list[Candidate]:
        """The best plans, best first; [] if none fits. Raises BadValue for "energy"."""
        if objective not in OBJECTIVES[:2]:
            raise BadValue("--objective", objective, "there is no energy table yet: use latency")
        splits = sorted(self.splits(chips, tp, pp, objective), key=lambda s: (self.bound(s[0]), s))
        found: list[Candidate] = []
        for width, length, chunk in splits:
            good = sorted(found, key=lambda c: c.rank(objective, self.batch))[: SHOWN + 1]
            limit = good[0].cycles if good and objective == "latency" else None
            if limit is not None and self.bound(width) > limit:
                break
            found.append(self.candidate(width, length, chunk))
        found.sort(key=lambda c: c.rank(objective, self.batch))
        return found

    def candidate(self, tp: int, pp: int, chunk: int) -> Candidate:
        """A plan with its cycles."""
        price = self.price(tp, chunk)
        counts = layer_counts(self.sizes, tp, pp, chunk)
        cycles = price.latency(self.model.layers, pp)
        interval = price.interval(max(counts[:-1]), counts[-1]) if pp > 1 else cycles
        return Candidate(tp, pp, chunk, cycles, interval)

    # --- prices -----------------------------------------------------------------------------
    def bound(self, tp: int) -> int:
        """Cycles that no plan of this width can go below: its weight columns into the arrays."""
        shape = self._stage(tp, 8).shape
        return self.model.layers * _column_cycles(shape, self.spec.accumulator_depth)

    def _stage(self, tp: int, chunk: int) -> Stage:
        key = (tp, chunk)
        if key not in self._stages:
            wide = not self.sizes.fits(tp, chunk, 1, True)
            self._stages[key] = self.sizes.stage(tp, chunk, 1, head=True, wide=wide)
        return self._stages[key]

    def price(self, tp: int, chunk: int, tokens: int = 1, context: int | None = None) -> Price:
        """Cycles of a width for launches of `tokens` at a context bucket (default: the last)."""
        bucket = context or self.padded
        key = (tp, tokens, bucket)
        if key not in self._prices:
            stage = self._stage(tp, chunk)
            order = next(walks(self.graph, tp))
            routes = group_of(self.wires, tuple(order[:tp])).routes
            steps = list(stage.steps(tokens, bucket // CONTEXT_BLOCK, routes))
            layer = sum(step.cycles for step in steps if step.what != "head")
            head = sum(step.cycles for step in steps if step.what == "head")
            tail = max(step.end_cycle - step.cycles for step in steps)
            boundary = self._boundary(stage, order, tp, tokens)
            self._prices[key] = Price(layer, head, boundary, tail)
        return self._prices[key]

    def _boundary(self, stage: Stage, order: list[int], tp: int, tokens: int) -> int:
        """Cycles from the end of one stage to the start of the next."""
        if len(order) < 2 * tp:
            return 0
        plan, count = Schedule(self.spec), stage.shape.hidden.count * tokens
        pairs = list(zip(order[:tp], order[tp : 2 * tp], strict=True))
        for path in self.wires.all_paths(pairs):
            hops = tuple(Hop(*hop) for hop in self.wires.hops(path))
            x = Rows(stage.memory["x0"])
            transfer(plan, hops, x, x, count)
        return plan.end_cycle


def _column_cycles(shape: DecoderShape, depth: int) -> int:
    """Cycles in which a layer's weights can enter the two arrays at best: eight columns a cycle."""
    steps = (("q", "k", "v"), ("o0", "o1"), ("gate", "up"), ("down0", "down1"))
    by_name = {matrix.name: matrix for matrix in layer_matrices(shape, depth)}

    def loads(names: tuple[str, ...], side: int) -> int:
        mine = (by_name[name] for name in names if name in by_name)
        return sum(
            matrix.vectors // word_columns(matrix.dtype) for matrix in mine if matrix.side == side
        )

    return sum(max(loads(names, side) for side in (EAST, WEST)) for names in steps)
