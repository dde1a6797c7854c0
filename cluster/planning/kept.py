"""What plans of a sweep have in common: graphs, placements, routes and prices, found once."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import networkx as nx

from chip.spec import ChipSpec
from cluster.compiler.choose import PlanRequest, open_graph
from cluster.compiler.place import Places
from cluster.compiler.wires import Wires
from cluster.model.graph.graph import Model
from cluster.planning.cost_store import CostStore
from cluster.planning.costs import Costs
from cluster.planning.search import Search

T = TypeVar("T")
MOST_GRAPHS, MOST_SEARCHES, MOST_PLANS = (
    8,
    32,
    128,
)  # in memory at a time; neighbours in a sweep share them


@dataclass
class Kept:
    """Searches by what they follow from; the least recently used ones are given up."""

    store: CostStore = field(default_factory=CostStore)
    _graphs: dict[tuple[object, ...], tuple[nx.Graph, Places, dict[bool, Wires]]] = field(
        default_factory=dict
    )
    _searches: dict[tuple[object, ...], Search] = field(default_factory=dict)
    _plans: dict[tuple[object, ...], Any] = field(default_factory=dict)
    _costs: dict[tuple[object, ...], Costs] = field(default_factory=dict)

    def graph(self, topology: str, request: PlanRequest, spec: ChipSpec) -> nx.Graph:
        """The graph of a topology with the links and faults of a request."""
        return self._placed(topology, request, spec)[0]

    def search(
        self,
        known_as: tuple[object, ...],
        model: Model,
        topology: str,
        request: PlanRequest,
        spec: ChipSpec,
        rows: int = 1,
        cut: bool = False,
    ) -> Search:
        """The search for plans of such a request for a model, `known_as` it, on that topology.

        So many `rows` share a decode launch; matrices may be `cut`.
        """
        size = (request.context, request.weight_type)
        whole = (*_graph_key(topology, request, spec), known_as, *size, request.batch, rows, cut)
        found = _used(self._searches, whole)
        if found is None:
            graph, places, wires = self._placed(topology, request, spec)
            where = (request.context, request.batch, size[1], self.store, rows, cut)
            found = Search(model, spec, graph, *where)
            found.places = places
            apart = request.batch > 1
            found.wires = wires[apart] = wires.get(apart) or found.wires
            found.costs = self._costs.setdefault((known_as, spec, *size, rows), found.costs)
            _keep(self._searches, whole, found, MOST_SEARCHES)
        return found

    def plan(self, name: str, request: PlanRequest, make: Callable[[], T]) -> T:
        """The plan of a request, which is the same for any prompt."""
        key = name, replace(request, prompt_tokens=None)
        found: T | None = _used(self._plans, key)
        if found is None:
            found = make()
            _keep(self._plans, key, found, MOST_PLANS)
        return found

    def _placed(self, topology: str, request: PlanRequest, spec: ChipSpec) -> Any:
        key = _graph_key(topology, request, spec)
        found = _used(self._graphs, key)
        if found is None:
            graph = open_graph(topology, request.profile, request.links, spec, request.faults)
            found = graph, Places(graph), dict[bool, Wires]()
            _keep(self._graphs, key, found, MOST_GRAPHS)
        return found


def _graph_key(topology: str, request: PlanRequest, spec: ChipSpec) -> tuple[object, ...]:
    return topology, request.profile, request.links, request.faults, spec


def _used(kept: dict[tuple[object, ...], T], key: tuple[object, ...]) -> T | None:
    """What is kept under a key, from now on the one used last."""
    found = kept.pop(key, None)
    if found is not None:
        kept[key] = found
    return found


def _keep(kept: dict[tuple[object, ...], T], key: tuple[object, ...], found: T, most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = found
