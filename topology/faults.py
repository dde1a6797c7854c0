"""Faults: kill links, chips and nodes; route around them, remap to a spare node, say what is lost.

A fault list is text: `link:3-7`, `link:3-7:2` (two cables of it), `chip:12`, `node:4`, and by seed
`links:5:SEED`, `chips:2:SEED`, `nodes:1:SEED`; several are separated by commas.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from topology.building import ports
from topology.errors import BadFault

_FORMS = "link:A-B[:CABLES], chip:A, node:A, links:N:SEED, chips:N:SEED or nodes:N:SEED"


@dataclass(frozen=True)
class Damage:
    """A graph with faults, frozen, ids unchanged; and what is lost against the whole one."""

    graph: nx.Graph
    dead_chips: tuple[int, ...]
    dead_cables: int
    lost_bytes_per_s: float  # payload, one direction, all cables together
    lost_bisection_bytes_per_s: float
    islands: tuple[tuple[int, ...], ...]  # connected parts, largest first; one if all is well

    @property
    def unreachable(self) -> tuple[int, ...]:
        """Chips alive but cut off from the largest part: nothing can run on them with the rest."""
        return tuple(chip for island in self.islands[1:] for chip in island)


def apply(graph: nx.Graph, faults: str | Sequence[str], whole: bool = True) -> Damage:
    """Return the damage of `faults`. Raises BadFault for one that names nothing in the graph.

    If the graph falls apart, the returned graph is its largest part.
    """
    texts = faults.split(",") if isinstance(faults, str) else list(faults)
    # Port numbers stay those of the whole graph: a dead cable does not renumber the others.
    numbers = ports(graph)
    broken = nx.Graph(graph)
    broken.graph.update(graph.graph)
    for text in texts:
        if text.strip():
            _apply_one(broken, text.strip())
    if len(broken) == 0:
        raise BadFault(",".join(texts), "no chip is left", "kill fewer")
    for u, v, data in broken.edges(data=True):
        first = numbers[u][v][0], numbers[v][u][0]
        data["ports"] = first if u < v else first[::-1]
    islands = sorted(nx.connected_components(broken), key=lambda part: (-len(part), min(part)))
    largest = broken.subgraph(islands[0]).copy()
    largest.graph["name"] = f"{graph.graph['name']} with faults {','.join(texts)}"
    nx.freeze(largest)
    lost = _bytes_per_s(graph) - _bytes_per_s(largest)
    halves = _bisection(graph) - _bisection(largest) if whole else 0.0
    return Damage(
        graph=largest,
        dead_chips=tuple(sorted(set(graph) - set(broken))),
        dead_cables=_cables(graph) - _cables(largest),
        lost_bytes_per_s=lost,
        lost_bisection_bytes_per_s=halves,
        islands=tuple(tuple(sorted(part)) for part in islands),
    )


def _apply_one(graph: nx.Graph, text: str) -> None:
    what, _, rest = text.partition(":")
    fields = rest.split(":")
    try:
        if what == "link":
            u, v = map(int, fields[0].split("-"))
            _cut(graph, text, u, v, int(fields[1]) if len(fields) > 1 else None)
        elif what in ("chip", "node") and len(fields) == 1:
            _kill(graph, text, what, [int(fields[0])])
        elif what in ("links", "chips", "nodes") and len(fields) <= 2:
            seed = int(fields[1]) if len(fields) > 1 else 0
            _draw(graph, text, what, int(fields[0]), seed)
        else:
            raise BadFault(text, "not understood", f"use {_FORMS}")
    except ValueError:
        raise BadFault(text, "not understood", f"use {_FORMS}") from None


def _draw(graph: nx.Graph, text: str, what: str, number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if what == "links":
        pool = sorted(tuple(sorted(edge)) for edge in graph.edges)
    elif what == "chips":
        pool = sorted((chip,) for chip in graph)
    else:
        pool = sorted({(graph.nodes[chip]["node"],) for chip in graph})
    if not 0 <= number <= len(pool):
        raise BadFault(text, f"there are {len(pool)} {what}", "kill fewer")
    for i in sorted(rng.choice(len(pool), number, replace=False).tolist()):
        if what == "links":
            _cut(graph, text, pool[i][0], pool[i][1], None)
        else:
            _kill(graph, text, what[:-1], list(pool[i]))


def _cut(graph: nx.Graph, text: str, u: int, v: int, cables: int | None) -> None:
    if not graph.has_edge(u, v):
        raise BadFault(text, f"chips {u} and {v} are not linked", "name two neighbours")
    data = graph.edges[u, v]
    left = data["link"].count - (data["link"].count if cables is None else cables)
    if left < 0 or (cables is not None and cables < 1):
        raise BadFault(text, f"the link has {data['link'].count} cables", "cut fewer")
    if left:
        data["link"] = dataclasses.replace(data["link"], count=left)
    else:
        graph.remove_edge(u, v)


def _kill(graph: nx.Graph, text: str, what: str, numbers: list[int]) -> None:
    key = {chip: chip if what == "chip" else graph.nodes[chip]["node"] for chip in graph}
    dead = [chip for chip, number in key.items() if number in numbers]
    if not dead:
        raise BadFault(text, f"there is no {what} {numbers[0]}", "name one of the graph")
    graph.remove_nodes_from(dead)


def remap(graph: nx.Graph, dead_node: int, spare_node: int) -> dict[int, int]:
    """Return logical chip -> physical chip with the spare node in the dead one's place.

    The spare keeps no logical chips of its own: N nodes of work need N + 1 nodes (ISCA'22).
    Raises BadFault if either is missing or they differ in size.
    """
    members = {
        node: sorted(chip for chip in graph if graph.nodes[chip]["node"] == node)
        for node in (dead_node, spare_node)
    }
    if dead_node == spare_node or not all(members.values()):
        raise BadFault(f"node:{dead_node}", f"no spare node {spare_node}", "name two nodes")
    if len(members[dead_node]) != len(members[spare_node]):
        raise BadFault(f"node:{dead_node}", "the spare has another size", "name another spare")
    moved = dict(zip(members[dead_node], members[spare_node], strict=True))
    spare = set(members[spare_node])
    return {chip: moved.get(chip, chip) for chip in sorted(graph) if chip not in spare}


def _cables(graph: nx.Graph) -> int:
    return int(sum(data["link"].count for _, _, data in graph.edges(data=True)))


def _bytes_per_s(graph: nx.Graph) -> float:
    clock_hz = graph.graph["profile"].clock_hz
    return math.fsum(d["link"].bytes_per_s(clock_hz) for _, _, d in graph.edges(data=True))


def _bisection(graph: nx.Graph) -> float:
    from topology.bisection import bisection  # with SciPy, which takes long to load

    return bisection(graph).bytes_per_s if len(graph) > 1 else 0.0
