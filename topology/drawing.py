"""Draw a graph so that a person can read it at 8, 72 and 264 chips (matplotlib, SVG or PNG)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from topology.errors import BadFile

Place = tuple[float, float]

# Kinds of cable, short to long; a kind not listed is drawn like "cable".
_COLOURS = {"node": "#9aa5b1", "tray": "#9aa5b1", "rack": "#2a6f97", "backplane": "#2a6f97"}
_FOLLOWED = 128  # chips of a picture whose wires can be told apart
_END = 1e-6  # of a link: its own chips lie there
_LONG, _PLAIN, _DEAD = "#c1666b", "#52606d", "#d64545"
Heat = Mapping[tuple[int, int], float]  # of links (u, v), in either order


def draw(graph: nx.Graph, path: str, title: str | None = None, dead: tuple[int, ...] = ()) -> None:
    """Write a picture of the graph to `path`, `.svg` or `.png`. Raises BadFile.

    Chips of a node lie on a small circle, nodes on a circle or, lattices, on a grid; colours tell
    short, rack and long cables apart and widths how many cables run in parallel.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise BadFile(path, f"cannot draw '{suffix}'", "name a .svg or .png file")
    try:
        import matplotlib
    except ImportError:
        raise BadFile(path, "matplotlib is not installed", "pip install matplotlib") from None
    with matplotlib.rc_context({"svg.hashsalt": "topology", "svg.fonttype": "none"}):
        figure = picture(graph, title, dead)
        try:
            # A picture is the same bytes every time: no date in it.
            figure.savefig(path, dpi=130, metadata={"Date": None} if suffix == ".svg" else None)
        except OSError as error:
            raise BadFile(path, str(error.strerror or error), "check the folder") from None


def picture(
    graph: nx.Graph,
    title: str | None = None,
    dead: tuple[int, ...] = (),
    heat: Heat | None = None,
    heats: Sequence[str] = (),
    size_in: float | None = None,
) -> Any:
    """Return the matplotlib figure of a graph, in the settings that are in force.

    With `heat`, links are in the colours `heats` instead of those of their kinds: the first is for
    links without heat, which are faint, the others go from the coolest to the hottest.
    """
    from matplotlib.figure import Figure

    places = layout(graph)
    size = 5.0 + min(11.0, math.sqrt(len(graph)) * 0.6)
    figure = Figure(figsize=(size_in or size, size_in or size))
    axes = figure.add_axes((0.02, 0.08, 0.96, 0.86))
    axes.set_axis_off()
    axes.set_aspect("equal")
    if heat is None:
        _draw_links(axes, graph, places)
    else:
        _draw_heat(axes, graph, places, heat, heats)
    _draw_chips(axes, graph, places, size_in or size, dead)
    if title != "":
        axes.set_title(title or f"{graph.graph['name']}: {len(graph)} chips, {graph.size()} links")
    return figure


def layout(graph: nx.Graph) -> dict[int, Place]:
    """Return where each chip goes: grouped by node, or on a grid, or on a circle."""
    groups: dict[int, list[int]] = {}
    for chip in sorted(graph):
        groups.setdefault(graph.nodes[chip].get("node", chip), []).append(chip)
    if len(groups) == len(graph):
        return _tree(graph) or _lattice(graph) or _circle(sorted(graph), (0.0, 0.0), 1.0)
    if len(groups) == 1:
        return _circle(sorted(graph), (0.0, 0.0), 1.0)
    centres = _circle(list(groups), (0.0, 0.0), 1.0)
    # Small enough that the circles of neighbouring nodes do not touch.
    radius = min(0.45, math.sin(math.pi / len(groups)) * 0.66)
    places: dict[int, Place] = {}
    for node, chips in groups.items():
        places |= _circle(chips, centres[node], radius, math.atan2(*centres[node][::-1]))
    return places


def _circle(
    items: list[int], centre: Place, radius: float, turn: float = math.pi / 2
) -> dict[int, Place]:
    step = 2 * math.pi / len(items)
    return {
        item: (
            centre[0] + radius * math.cos(turn - i * step),
            centre[1] + radius * math.sin(turn - i * step),
        )
        for i, item in enumerate(items)
    }


def _tree(graph: nx.Graph) -> dict[int, Place] | None:
    """Return the levels of a tree from its first chip down, leaves side by side; or None."""
    if not nx.is_tree(graph) or max(degree for _, degree in graph.degree) < 3:
        return None
    root = min(graph)
    depth: dict[int, int] = nx.single_source_shortest_path_length(graph, root)
    below = nx.dfs_successors(graph, root, sort_neighbors=sorted)
    across: dict[int, float] = {}
    leaves = [chip for chip in nx.dfs_preorder_nodes(graph, root, sort_neighbors=sorted)
              if chip not in below]  # fmt: skip
    across.update({chip: float(n) for n, chip in enumerate(leaves)})
    for chip in sorted(below, key=lambda chip: -depth[chip]):
        across[chip] = sum(across[child] for child in below[chip]) / len(below[chip])
    down = 0.6 * len(leaves) / max(depth.values())
    return {chip: (across[chip], -down * depth[chip]) for chip in graph}


def _lattice(graph: nx.Graph) -> dict[int, Place] | None:
    """Return a slanted grid of the coordinates; None if they have one axis only."""
    where = {chip: graph.nodes[chip].get("coordinates", ()) for chip in graph}
    axes = {len(place) for place in where.values()}
    if len(axes) != 1 or axes.pop() < 2:
        return None
    # Axis 0 down, axis 1 right, further axes slanted and shorter, so that no two chips coincide.
    steps = [(0.0, -1.0), (1.0, 0.0), (0.31, 0.23), (0.07, 0.13), (0.017, 0.029)]
    places = {
        chip: (
            sum(c * steps[min(a, 4)][0] for a, c in enumerate(place)),
            sum(c * steps[min(a, 4)][1] for a, c in enumerate(place)),
        )
        for chip, place in where.items()
    }
    return places if len(set(places.values())) == len(places) else None


def routed(graph: nx.Graph, places: dict[int, Place]) -> dict[tuple[int, int], list[Place]]:
    """Return the points of each link's line: straight, or around the chips that lie between.

    In graphs too large to follow a wire with the eye all are straight.
    """
    straight = {(u, v): [places[u], places[v]] for u, v in graph.edges}
    if len(graph) > _FOLLOWED:
        return straight
    chips = np.array(list(places.values()))
    apart = np.linalg.norm(chips[:, None] - chips, axis=2)
    room = float(apart[apart > 0].min())
    found = {}
    for (u, v), (start, end) in straight.items():
        along = np.subtract(end, start)
        length = float(np.linalg.norm(along))
        side = np.array([-along[1], along[0]]) / length
        ahead, off = (chips - start) @ along / length**2, np.abs((chips - start) @ side)
        between = (ahead > _END) & (ahead < 1 - _END) & (off < room / 4)
        found[u, v] = straight[u, v]
        if between.any():  # quickly aside, then parallel; neighbours take other sides and lanes
            height = room * (0.2 + 0.04 * (between.sum() % 6)) * (-1) ** (min(u, v) % 2)
            t = np.linspace(0.0, 1.0, 41)
            points = start + t[:, None] * along + (height * (1 - (2 * t - 1) ** 8))[:, None] * side
            found[u, v] = [(float(x), float(y)) for x, y in points]
    return found


def _draw_links(axes: Any, graph: nx.Graph, places: dict[int, Place]) -> None:
    from matplotlib.collections import LineCollection

    wires = routed(graph, places)
    by_kind: dict[str, list[Any]] = {}
    for u, v, data in graph.edges(data=True):
        by_kind.setdefault(data["link"].kind, []).append((u, v, data["link"].count))
    for kind, links in sorted(by_kind.items()):
        colour = _COLOURS.get(kind, _PLAIN if kind == "cable" else _LONG)
        # The more lines of a kind cross each other, the fainter; local ones hardly cross.
        crowd = len(links) / (6 if kind in ("node", "tray") else 1)
        faint = max(0.1, min(0.9, 110 / max(crowd, 1)))
        widths = [0.5 + 0.4 * min(count, 8) * (len(graph) < 100) for *_, count in links]
        lines = [wires[u, v] for u, v, _ in links]
        drawn = LineCollection(lines, colors=colour, linewidths=widths, alpha=faint, zorder=1)
        axes.add_collection(drawn)
        axes.plot([], [], color=colour, label=f"{kind} ({len(links):,})")
    where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}  # below: it covers no chip
    axes.legend(frameon=False, title="cables", ncols=4, **where)
    axes.margins(0.08)


def _draw_heat(
    axes: Any, graph: nx.Graph, places: dict[int, Place], heat: Heat, heats: Sequence[str]
) -> None:
    """Links by what they carry, the hottest on top."""
    from matplotlib.collections import LineCollection

    wires, most = routed(graph, places), max(heat.values(), default=0.0) or 1.0
    (cold, *hot), lines = heats, []
    for u, v in graph.edges:
        found = max(heat.get((u, v), 0.0), heat.get((v, u), 0.0))
        level = min(len(hot) - 1, int(found / most * len(hot)))
        lines.append((found, hot[level] if found else cold, wires[u, v]))
    lines.sort(key=lambda one: one[0])
    thick = 1.0 if len(graph) <= _FOLLOWED else 0.4  # or chips of a node would drown in theirs
    widths = [thick * (0.9 + 2.2 * found / most) if found else 0.35 for found, *_ in lines]
    alphas = [0.95 if found else 0.25 for found, *_ in lines]
    colours = [colour for _, colour, _ in lines]
    drawn = LineCollection([line for *_, line in lines], colors=colours, linewidths=widths,
                           alpha=alphas, zorder=1)  # fmt: skip
    axes.add_collection(drawn)
    axes.margins(0.08)


def _draw_chips(
    axes: Any, graph: nx.Graph, places: dict[int, Place], size: float, dead: tuple[int, ...]
) -> None:
    chips = sorted(graph)
    x, y = zip(*(places[chip] for chip in chips), strict=True)
    area = max(8.0, 9000.0 / max(len(chips), 16))
    colour = [_DEAD if chip in dead else "#f5b841" for chip in chips]
    axes.scatter(x, y, s=area, c=colour, edgecolors="#323f4b", linewidths=0.6, zorder=2)
    if len(chips) <= 128:
        for chip in chips:
            font = max(5.0, 10 - len(chips) / 24)
            axes.annotate(
                str(chip), places[chip], ha="center", va="center", fontsize=font, color="#1f2933"
            )
        return
    # Too many chips to number: number the nodes, outside their circles.
    nodes: dict[int, list[Place]] = {}
    for chip in chips:
        nodes.setdefault(graph.nodes[chip].get("node", chip), []).append(places[chip])
    if len(nodes) < len(chips):
        for node, group in nodes.items():
            centre = sum(p[0] for p in group) / len(group), sum(p[1] for p in group) / len(group)
            away = 1 + math.sin(math.pi / len(nodes))
            spot = centre[0] * away, centre[1] * away
            side = "center" if abs(spot[0]) < 0.2 else "left" if spot[0] > 0 else "right"
            height = "center" if abs(spot[0]) >= 0.2 else "bottom" if spot[1] > 0 else "top"
            font = 8 if len(nodes) <= 48 else 6
            axes.annotate(f"n{node}", spot, ha=side, va=height, fontsize=font)
