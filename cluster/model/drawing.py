"""Draw a model's graph: one column of ops for each section that differs (matplotlib)."""

from pathlib import Path
from typing import Any

from cluster.errors import BadValue, ClusterError
from cluster.model.describe import titled
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.op import Op

_COLOURS = {"linear": "#cfe3f5", "norm": "#e5e0f2", "attention": "#f7dcc4", "add": "#dff0dc"}
_PLAIN, _LINE = "#eef1f4", "#52606d"
_WIDE, _HIGH = 2.6, 0.9  # inches between neighbours in a row, and between rows
_BOX = 2.3, 0.56
_ARROW = {"arrowstyle": "-|>", "color": _LINE, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
Point = tuple[float, float]


def draw(model: Model, path: Path) -> None:
    """Write a picture to `path`, .svg or .png. Raises BadValue or ClusterError."""
    suffix = path.suffix.lower()
    if suffix not in (".svg", ".png"):
        raise BadValue("--draw", path, "must end in .svg or .png")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ClusterError("matplotlib is not installed; pip install matplotlib") from None
    sections = list(titled(model))
    columns = [_rows(section) for _, section in sections]
    widths = [max((len(row) for row in rows), default=1) for rows in columns]
    high = max(len(rows) for rows in columns) + 1.5
    with matplotlib.rc_context({"svg.hashsalt": "model", "svg.fonttype": "none"}):
        figure = Figure(figsize=(_WIDE * sum(widths) + 0.5, _HIGH * high))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-0.25, _WIDE * sum(widths) + 0.25)
        axes.set_ylim(-_HIGH * (high - 1), _HIGH)
        for number, ((title, section), rows) in enumerate(zip(sections, columns, strict=True)):
            middle = _WIDE * (sum(widths[:number]) + widths[number] / 2)
            axes.text(middle, 0.62, title, ha="center", weight="bold", fontsize=10)
            _draw_section(axes, section, rows, middle)
        try:
            # A picture is the same bytes every time: no date in it.
            figure.savefig(path, dpi=110, metadata={"Date": None} if suffix == ".svg" else None)
        except OSError as error:
            raise BadValue("--draw", path, str(error.strerror or error)) from None


def _rows(section: Section) -> list[list[Op]]:
    """Ops by the longest way from the section's input, which is row 0 and no op."""
    depth = {section.x.name: 0}
    rows: list[list[Op]] = [[]]
    for op in section.ops:
        depth[op.out.name] = 1 + max(depth[value.name] for value in op.inputs)
        rows += [[] for _ in range(depth[op.out.name] + 1 - len(rows))]
        rows[depth[op.out.name]].append(op)
    return rows


def _draw_section(axes: Any, section: Section, rows: list[list[Op]], middle: float) -> None:
    places = {section.x.name: (middle, 0.0)}
    for number, row in enumerate(rows):
        for column, op in enumerate(row):
            x = middle + _WIDE * (column - (len(row) - 1) / 2)
            places[op.out.name] = (x, -_HIGH * number)
    lane = min(x for x, _ in places.values()) - _BOX[0] / 2 - 0.12
    for op in section.ops:
        for value in op.inputs:
            way = _way(places[value.name], places[op.out.name], list(places.values()), lane)
            axes.plot(*zip(*way, strict=True), color=_LINE, lw=0.9)
            axes.annotate("", way[-1], way[-2], arrowprops=_ARROW)
    _box(axes, places[section.x.name], section.x.name, _PLAIN)
    for op in section.ops:
        sizes = " x ".join(f"{dim.name} {dim.size:,}" for dim in op.out.dims)
        colour = _COLOURS.get(op.kind, _PLAIN)
        _box(axes, places[op.out.name], f"{op.kind}: {op.out.name}\n{sizes}", colour)


def _way(start: Point, to: Point, boxes: list[Point], lane: float) -> list[Point]:
    """A line that crosses no box: straight to the next row, straight down, or along the lane."""
    half, low = _BOX[1] / 2, to[1] + _HIGH
    first, last = (start[0], start[1] - half), (to[0], to[1] + half)
    if start[1] - to[1] < 1.5 * _HIGH:
        return [first, last]
    between = (x for x, y in boxes if to[1] < y < start[1])
    if all(abs(x - start[0]) > _BOX[0] / 2 for x in between):
        return [first, (start[0], low - half), last]
    left = _BOX[0] / 2
    return [(start[0] - left, start[1]), (lane, start[1]), (lane, to[1]), (to[0] - left, to[1])]


def _box(axes: Any, place: tuple[float, float], text: str, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = place[0] - _BOX[0] / 2, place[1] - _BOX[1] / 2
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, *_BOX, boxstyle=style, fc=colour, ec=_LINE, lw=0.8))
    axes.text(*place, text, ha="center", va="center", fontsize=7)
