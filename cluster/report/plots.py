"""Plots for pages: matplotlib draws them once, CSS variables of the page colour them.

They are as wide as a phone, with text that stays readable there. Every function returns a Drawing
whose alternative text has the numbers.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cluster.report.page import Drawing

MANY = 1e5  # from here on no digit behind the point is shown
WIDTH_IN = 5.6  # 403 px: a phone shows it at nine tenths of its size
LONG_LABEL = 18  # characters of a bar's name
LABEL = 32  # characters of a line of an upright label
FEW = 6  # values of an axis that all have a tick
SERIES, HEATS = 8, 6
WIDE_RANGE = 100  # of a logarithmic axis, from its least to its largest value
# Colours that stand for the page's variables until the SVG is written; no plot has them otherwise.
INK, FAINT, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES_COLOURS = tuple(f"#0501{n:02x}" for n in range(SERIES))
HEAT_COLOURS = tuple(f"#0601{n:02x}" for n in range(HEATS))
VARIABLES = {INK: "--ink", FAINT: "--faint", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--{letter}{n}"
    for letter, colours in (("c", SERIES_COLOURS), ("h", HEAT_COLOURS))
    for n, colour in enumerate(colours)
}
THEME: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "lpu", "font.family": "sans-serif", "font.size": 10.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "axes.titlecolor": INK,
    "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "grid.color": LINE, "axes.grid": True, "axes.axisbelow": True, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "legend.labelcolor": INK,
}  # fmt: skip
Values = Sequence[float]


@contextmanager
def themed(height_in: float = 3.2, width_in: float = WIDTH_IN) -> Iterator[Figure]:
    """A figure in the colours of the page, to draw on; pass it to `svg` inside the block."""
    with mpl.rc_context(THEME):
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def svg(figure: Figure, tight: bool = False) -> str:
    """The <svg> element of a figure, its colours turned into variables of the page.

    With `tight`, empty margins are cut off.
    """
    target = io.StringIO()
    box = "tight" if tight else None
    about = {"Date": None, "Creator": None}
    figure.savefig(target, format="svg", metadata=about, bbox_inches=box)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Text in black has no colour of its own in matplotlib's SVG: it takes that of the page.
    text = text.replace("<svg", '<svg style="fill: var(--ink)"', 1)
    return re.sub(
        "#[0-9a-f]{6}",
        lambda found: f"var({VARIABLES[found[0]]})" if found[0] in VARIABLES else found[0],
        text,
    )


def plain(value: float, _position: object = None) -> str:
    """A number as axes show it: 12,000 and 0.05, not 1.2e4."""
    return f"{value:,.0f}" if abs(value) >= MANY else f"{value:,.6g}"


def short(value: float) -> str:
    """A number beside what it is of: four digits, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def number_axes(axes: Axes, x: bool = True, y: bool = True) -> None:
    """Ticks as people write numbers, few enough for a phone, also where an axis is logarithmic."""
    for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)):
        if not wanted:
            continue
        axis.set_major_formatter(FuncFormatter(plain))
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            narrow = 0 < high < low * WIDE_RANGE  # wider ones have labels enough at powers of ten
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
            axis.set_minor_formatter("")
        else:
            low, high = axis.get_view_interval()
            axis.set_major_locator(MaxNLocator(5, integer=bool(high - low > 2)))


@dataclass(frozen=True)
class Line:
    """Points of one name; `style` and `marker` are matplotlib's, "" for none."""

    name: str
    x: Values
    y: Values
    style: str = "-"
    marker: str = "o"


def lines(
    found: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    log: str = "",
    notes: Sequence[tuple[float, float, str]] = (),
    caption: str = "",
) -> Drawing:
    """Lines and points; `log` names the logarithmic axes, `notes` are texts at (x, y)."""
    with themed(3.4 + 0.12 * len(found)) as figure:
        axes = figure.subplots()
        for number, line in enumerate(found):
            colour = SERIES_COLOURS[number % SERIES]
            axes.plot(line.x, line.y, linestyle=line.style or "none", marker=line.marker or "none",
                      ms=4.5, color=colour, label=line.name)  # fmt: skip
        axes.set_xlabel(x_label)
        axes.set_ylabel("\n".join(wrap(y_label, LABEL)))
        for name in log:
            (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        number_axes(axes)
        at = sorted({x for line in found for x in line.x})
        if "x" in log and len(at) <= FEW:  # powers of two, mostly
            axes.set_xticks(at, [plain(x) for x in at])
            axes.xaxis.set_minor_locator(NullLocator())
        for x, y, text in notes:
            axes.annotate(text, (x, y), (4, 4), textcoords="offset points", fontsize=9)
        if len(found) > 1:
            figure.legend(loc="outside lower left", ncols=2, fontsize=9)
        drawn = svg(figure)
    said = "; ".join(
        f"{line.name}: " + ", ".join(f"{plain(x)} {plain(y)}" for x, y in _some(line))
        for line in found
    )
    return Drawing(drawn, f"{y_label} over {x_label}. {said}.", caption)


def _some(line: Line) -> list[tuple[float, float]]:
    """Few enough points of a line to be read aloud."""
    points = list(zip(line.x, line.y, strict=True))
    step = max(1, -(-len(points) // 12))
    return points[::step]


def bars(
    parts: Mapping[str, Values],
    labels: Sequence[str],
    x_label: str,
    *,
    limit: tuple[float, str] | None = None,
    caption: str = "",
) -> Drawing:
    """Bars that lie, a row for each label, of the parts one after another; `limit` is a line."""
    with themed(0.9 + 0.3 * len(labels) + 0.24 * (len(parts) > 1) * -(-len(parts) // 2)) as figure:
        axes = figure.subplots()
        left = np.zeros(len(labels))
        for number, (name, values) in enumerate(parts.items()):
            colour = SERIES_COLOURS[number % SERIES]
            drawn_bars = axes.barh(
                range(len(labels)), values, left=left, color=colour, label=name, height=0.7
            )
            left = left + np.asarray(values, float)
        if len(parts) == 1:
            axes.bar_label(drawn_bars, [short(value) for value in left], padding=3, size=9)
            axes.margins(x=0.14)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)
        if limit is not None:
            axes.axvline(limit[0], color=INK, lw=1.2, ls="--", label=limit[1])
        number_axes(axes, y=False)
        if max(map(len, labels), default=0) > LONG_LABEL:  # which leaves little room for numbers
            axes.xaxis.set_major_locator(MaxNLocator(3))
        if len(parts) > 1 or limit is not None:
            figure.legend(loc="outside lower left", ncols=2, fontsize=9)
        drawn = svg(figure)
    rows = (
        f"{label}: " + ", ".join(f"{name} {plain(values[at])}" for name, values in parts.items())
        for at, label in enumerate(labels)
    )
    return Drawing(drawn, f"{x_label}. {'; '.join(rows)}.", caption)


def heat_map(
    values: npt.ArrayLike,
    x: Sequence[object],
    y: Sequence[object],
    labels: tuple[str, str, str],
    *,
    caption: str = "",
) -> Drawing:
    """Cells [y, x] in six heats with their numbers; NaN is empty. `labels`: of x, y and values."""
    cells = np.asarray(values, float)
    x_label, y_label, what = labels
    heats = heat_levels(cells)
    with themed(1.1 + 0.42 * len(y)) as figure:
        axes = figure.subplots()
        for (row, column), value in np.ndenumerate(cells):
            if np.isnan(value):
                continue
            level = int(heats[row, column])
            axes.add_patch(
                Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=HEAT_COLOURS[level], lw=0)
            )
            axes.text(column, row, short(value), ha="center", va="center", fontsize=9,
                      color=PAPER if level > 2 else INK)  # fmt: skip
        axes.set_xlim(-0.5, len(x) - 0.5)
        axes.set_ylim(len(y) - 0.5, -0.5)
        axes.set_xticks(range(len(x)), [str(one) for one in x])
        axes.set_yticks(range(len(y)), [str(one) for one in y])
        axes.grid(visible=False)
        axes.set(xlabel=x_label, ylabel=y_label)
        drawn = svg(figure)
    rows = (
        f"{y_label} {label}: "
        + ", ".join(
            f"{x_label} {x[at]} {value:,.4g}" for at, value in enumerate(row) if value == value
        )
        for label, row in zip(y, cells, strict=True)
    )
    return Drawing(drawn, f"{what} by {x_label} and {y_label}. {'; '.join(rows)}.", caption or what)


def heat_levels(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """One of six levels for each value, from the least to the most; NaN stays."""
    low, high = np.nanmin(values), np.nanmax(values)
    if not high > low:
        return np.where(np.isnan(values), np.nan, 0.0)
    return np.minimum(HEATS - 1, np.floor((values - low) / (high - low) * HEATS))


@dataclass(frozen=True)
class Span:
    """Something on a row of a timeline, from a first cycle to an end; `kind` gives its colour."""

    row: str
    start: float
    end: float
    kind: str = ""


def spans(
    found: Sequence[Span],
    x_label: str,
    *,
    bound: tuple[float, str] | None = None,
    caption: str = "",
) -> Drawing:
    """A waterfall: a row for each name, in the order of their first spans; `bound` is a line."""
    order = list(dict.fromkeys(one.row for one in sorted(found, key=lambda s: (s.start, s.end))))
    kinds = list(dict.fromkeys(one.kind for one in found))
    with themed(0.9 + 0.23 * len(order) + 0.2 * -(-(len(kinds) + 1) // 3)) as figure:
        axes = figure.subplots()
        for number, kind in enumerate(kinds):
            mine = [one for one in found if one.kind == kind]
            axes.barh(
                [order.index(one.row) for one in mine],
                [one.end - one.start for one in mine],
                left=[one.start for one in mine],
                height=0.72, color=SERIES_COLOURS[number % SERIES], label=kind,
            )  # fmt: skip
        axes.set_yticks(range(len(order)), order, fontsize=8.5)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)
        if bound is not None:
            axes.axvline(bound[0], color=INK, lw=1.2, ls="--", label=bound[1])
        number_axes(axes, y=False)
        if len(kinds) > 1 or bound is not None:
            figure.legend(loc="outside lower left", ncols=2, fontsize=9)
        drawn = svg(figure)
    ends = ((row, [s for s in found if s.row == row]) for row in order)
    said = "; ".join(
        f"{row} {plain(min(s.start for s in mine))} to {plain(max(s.end for s in mine))}"
        for row, mine in ends
    )
    limit = f" {bound[1]}: {plain(bound[0])}." if bound else ""
    return Drawing(drawn, f"{x_label}. {said}.{limit}", caption)
