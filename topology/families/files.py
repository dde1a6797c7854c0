"""Users' own graphs: GraphML, or JSON in node-link form or as a plain list of links.

An edge may carry any field of a Link (`latency_cycles`, `cycles_per_vector` as number or `p/q`,
`count`, `kind`, ...); what it leaves out comes from the profile. Nodes may carry `node`, `rack`,
`system` and `coordinates` ("1,2"). What editors of graphs add (`label`, `x`, `color`, ...) says
nothing here; any other attribute is refused. Node names may be anything; chips are numbered in file
order unless all names are integers 0..n-1.

JSON, shortest form: {"links": [[0, 1], [1, 2, {"latency_cycles": 300}]]}
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx

from topology.building import validate
from topology.errors import BadFile, BadLink
from topology.links import NO_OVERRIDES, Link, Overrides, Profile
from topology.links import profile as resolve
from topology.registry import MOST_CHIPS, family

_LINK_FIELDS = {field.name for field in dataclasses.fields(Link)}
_PACKAGING = ("node", "rack", "system")
_PLACE_FIELDS = {"coordinates", *_PACKAGING}
# Of networkx, Gephi and yEd: names, places on the page, looks.
HARMLESS = {
    "id", "key", "label", "name", "title", "description", "url", "weight", "type", "x", "y", "z",
    "pos", "size", "width", "height", "shape", "style", "color", "colour", "r", "g", "b", "fill",
    "group", "modularity_class", "degree",
}  # fmt: skip


def _path(spec: str, arguments: Sequence[str]) -> tuple[Any, ...]:
    if not arguments:
        raise ValueError("has no path")
    return (":".join(arguments),)


@family("file:PATH", "file:cluster.graphml", _path)
def file(
    path: str, profile: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES
) -> nx.Graph:
    """Return the graph in a GraphML or JSON file, validated. Raises BadFile, BadLink, ...

    A chip may use every link of the silicon, as in other free shapes.
    """
    resolved = resolve(profile, overrides)
    raw = _read(Path(path))
    if raw.is_directed() or raw.is_multigraph():
        raw = _simplified(path, raw)
    if len(raw) < 2:
        raise BadFile(path, f"{len(raw)} chips", "give at least 2")
    if len(raw) > MOST_CHIPS:
        raise BadFile(path, f"{len(raw):,} chips", f"give at most {MOST_CHIPS:,}")
    numbers = _numbers(raw)
    graph = nx.Graph(name=f"file:{path}", profile=resolved, port_limit=resolved.links_per_chip)
    for name, chip in sorted(numbers.items(), key=lambda item: item[1]):
        graph.add_node(chip, label=str(name), **_place(path, chip, raw.nodes[name]))
    for u, v, data in raw.edges(data=True):
        if u == v:
            raise BadFile(path, f"link from chip {u} to itself", "remove it")
        graph.add_edge(numbers[u], numbers[v], link=_link(path, u, v, data, resolved.link))
    nx.freeze(graph)
    validate(graph)
    return graph


def _read(path: Path) -> nx.Graph:
    try:
        if path.suffix.lower() == ".json":
            return _from_json(path, json.loads(path.read_text(encoding="utf-8")))
        return nx.read_graphml(path)
    except OSError as error:
        raise BadFile(str(path), str(error.strerror or error), "check the path") from None
    except (ParseError, nx.NetworkXError, ValueError, LookupError, TypeError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "GraphML"
        problem = f"not readable as {kind} ({error})".replace("\n", " ")
        raise BadFile(str(path), problem, "docs/tour.md shows the formats") from None


def _from_json(path: Path, data: Any) -> nx.Graph:
    if "nodes" in data:
        return nx.node_link_graph(data, edges="links" if "links" in data else "edges")
    graph = nx.MultiGraph()
    for link in data["links"]:
        u, v, *more = link
        graph.add_edge(u, v, **(more[0] if more else {}))
    return graph


def _simplified(path: str, raw: nx.Graph) -> nx.Graph:
    """Return an undirected simple graph; equal parallel links become the `count` of one."""
    graph = nx.Graph()
    graph.add_nodes_from(raw.nodes(data=True))
    # A directed file may list a cable once or once each way: both mean one full-duplex cable.
    seen: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    back: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for u, v, data in raw.edges(data=True):
        data = {key: value for key, value in data.items() if key != "id"}
        if raw.is_directed() and (v, u) in seen and (u, v) not in seen:
            back.setdefault((v, u), []).append(data)
            continue
        seen.setdefault((u, v), []).append(data)
        if graph.has_edge(u, v):
            before = dict(graph.edges[u, v])
            count = int(before.pop("count", 1)) + int(data.pop("count", 1))
            if before != data:
                raise BadFile(path, f"unequal parallel links {u}-{v}", "make them equal")
            data = {**data, "count": count}
        graph.add_edge(u, v, **data)
    for (u, v), data in back.items():
        if data != seen[u, v]:
            raise BadFile(path, f"links {u}->{v} and {v}->{u} differ", "make them equal")
    return graph


def _check_names(path: str, what: str, data: Mapping[str, Any], known: set[str]) -> None:
    """Raise BadFile for an attribute that would be ignored although it may be meant."""
    for name in data.keys() - known - HARMLESS:
        near = get_close_matches(str(name), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
        raise BadFile(path, f"{what} has the unknown attribute '{name}'", hint)


def _numbers(raw: nx.Graph) -> dict[Any, int]:
    names = list(raw)
    if {str(name) for name in names} == {str(i) for i in range(len(names))}:
        return {name: int(name) for name in names}
    return {name: i for i, name in enumerate(names)}


def _place(path: str, chip: int, data: Mapping[str, Any]) -> dict[str, Any]:
    _check_names(path, f"chip {chip}", data, _PLACE_FIELDS)
    text = data.get("coordinates", (chip,))
    try:
        parts = text.strip("()[] ").split(",") if isinstance(text, str) else text
        where = tuple(int(part) for part in parts if str(part).strip())
        packaging = {key: int(data.get(key, {"node": chip}.get(key, 0))) for key in _PACKAGING}
    except (ValueError, TypeError):
        raise BadFile(
            path, f"chip {chip} has bad attributes {dict(data)}", "use integers"
        ) from None
    return {"coordinates": where, **packaging}


def _link(path: str, u: object, v: object, data: Mapping[str, Any], default: Link) -> Link:
    _check_names(path, f"link {u}-{v}", data, _LINK_FIELDS)
    fields = {key: value for key, value in data.items() if key in _LINK_FIELDS}
    try:
        for name in fields.keys() - {"kind", "source", "cycles_per_vector"}:
            if float(fields[name]) != int(fields[name]):
                raise BadLink(name, fields[name], "must be an integer of at least 1")
            fields[name] = int(fields[name])
        return dataclasses.replace(default, **fields)
    except (BadLink, ValueError) as error:
        raise BadFile(path, f"link {u}-{v}: {error}", "correct the file") from None
