"""Which chip of the graph holds which stage and rank: neighbours that talk are placed close."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from cluster.compiler.chip_orders import chip_orders
from cluster.compiler.stages import Plan
from cluster.errors import BadValue
from topology.fabric import Ints, compiled
from topology.routes import hops_within

SCORED_CHIPS = 1024  # in larger graphs the first order with room is taken
EXACT_CHIPS = 7  # up to here every placement is looked at, where the orders are not known as best
REDUCE_WEIGHT = 4  # two all-reduces a layer cross each pair of a group twice; a boundary once
Placement = tuple[tuple[int, ...], ...]  # chips of each stage, by rank


@dataclass(frozen=True)
class Placed:
    """A placement with its weighted hops, and a number of them that none can go below."""

    placement: Placement
    hops: int
    lower_bound_hops: int
    exact: bool  # no placement has fewer

    @property
    def gap(self) -> float:
        """By which part of the bound it may be more than the best."""
        return self.hops / self.lower_bound_hops - 1 if self.lower_bound_hops else 0.0


def place(plan: Plan, graph: nx.Graph, spec: str) -> Placement:
    """Assign chips to (stage, rank), the best known by hops; see Places.

    Raises BadValue when the graph has too few chips.
    """
    chips = graph.number_of_nodes()
    if chips < plan.chips:
        need = f"has {chips} chips, the plan needs {plan.chips} ({plan.pp} stages x tp {plan.tp})"
        raise BadValue("--topology", spec, need)
    return Places(graph).place(plan.tp, plan.pp).placement


class Places:
    """Placements on one graph; orders and distances are found once."""

    def __init__(self, graph: nx.Graph) -> None:
        self.graph = graph
        self._orders: dict[int, tuple[list[list[int]], Iterator[list[int]]]] = {}  # and the rest
        self._scored: dict[tuple[int, int], tuple[Ints, Ints]] = {}
        self._found: dict[tuple[int, int], Placed] = {}

    def place(self, tp: int, pp: int) -> Placed:
        """The best of several orders over the graph; in small graphs the best there is."""
        if (tp, pp) not in self._found:
            self._found[tp, pp] = self._place(tp, pp)
        return self._found[tp, pp]

    def _place(self, tp: int, pp: int) -> Placed:
        most = 1 if len(self.graph) > SCORED_CHIPS else None
        orders = itertools.islice(self._with_room(tp, pp), most)
        scored = [self._along(tp, number, pp) for number in orders]
        groups, hops = min(scored, key=lambda one: one[1])
        bound = self.lower_bound_hops(tp, pp)
        exact = hops == bound
        if not exact and len(self.graph) <= EXACT_CHIPS:
            hops, groups = self._best_of_all(hops, groups)
            exact = True
        placement = tuple(tuple(map(int, group)) for group in groups)
        return Placed(placement, hops, bound, exact)

    def _with_room(self, tp: int, pp: int) -> Iterator[int]:
        """Numbers of the orders that have chips enough."""
        known, rest = self._orders.setdefault(tp, ([], chip_orders(self.graph, tp)))
        for number in itertools.count():
            if number == len(known):
                known += itertools.islice(rest, 1)
            if number == len(known):
                return
            if len(known[number]) >= tp * pp:
                yield number

    def _along(self, tp: int, number: int, pp: int) -> tuple[Ints, int]:
        """The first `pp` groups of an order, and their weighted hops."""
        key = (tp, number)
        if key not in self._scored or len(self._scored[key][1]) < pp:
            order = self._orders[tp][0][number]
            stages = min(len(order) // tp, 1 << (pp - 1).bit_length())
            groups = np.array(order[: stages * tp]).reshape(stages, tp)
            self._scored[key] = groups, self._scores(groups[None])[0]
        groups, scores = self._scored[key]
        return groups[:pp], int(scores[pp - 1])

    def _best_of_all(self, hops: int, groups: Ints) -> tuple[int, Ints]:
        """The first of the best of all placements; that of the orders where it is as good."""
        pp, tp = groups.shape
        every = np.array(list(itertools.permutations(sorted(self.graph), tp * pp))).reshape(
            -1, pp, tp
        )
        scores = self._scores(every)[:, -1]
        at = int(scores.argmin())
        return (int(scores[at]), every[at]) if scores[at] < hops else (hops, groups)

    def hops(self, groups: Ints) -> int:
        """Weighted hops of a placement [pp, tp]: of all-reduces, and of stage boundaries."""
        return int(self._scores(groups[None])[0, -1])

    def _scores(self, groups: Ints) -> Ints:
        """Weighted hops of the first 1, 2, .. stages [n, pp] of placements [n, pp, tp]."""
        _, pp, tp = groups.shape
        following = np.roll(groups, -1, axis=1)  # the last one's is not counted
        ends = np.concatenate((groups, following), axis=2).reshape(-1, 2 * tp)
        hops = hops_within(compiled(self.graph), groups.reshape(-1, tp), ends)
        pairs = hops[:, :tp].sum(axis=(1, 2), dtype=np.int64).reshape(-1, pp)  # each both ways
        onward = hops[:, tp:].trace(axis1=1, axis2=2, dtype=np.int64).reshape(-1, pp)
        total: Ints = REDUCE_WEIGHT * (pairs // 2)
        total[:, 1:] += onward[:, :-1]
        return np.cumsum(total, axis=1)

    @cached_property
    def _degree(self) -> int:
        """Neighbours of the chip that has the most."""
        return max((degree for _, degree in self.graph.degree), default=0)

    def lower_bound_hops(self, tp: int, pp: int) -> int:
        """Weighted hops that no placement goes below: around a chip there is so much room."""
        left, hops, near, reach = tp - 1, 0, self._degree, 1
        while left > 0 and near:
            here = min(left, near)
            hops, left = hops + here * reach, left - here
            near, reach = near * max(1, self._degree - 1), reach + 1
        return REDUCE_WEIGHT * pp * (tp * hops // 2) + (pp - 1) * tp
