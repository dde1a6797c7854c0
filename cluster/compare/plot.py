"""The picture of the comparison: energy per token over speed for one user."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

from cluster.compare.shortlist import nearest_context
from cluster.compare.table import Row

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

LINES = {"roofline": "-", "achieved": ":"}


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write a PNG or SVG: of each device what no other size or batch of it beats, and the LPU."""
    figure, axes = plt.subplots(figsize=(10, 6.5))
    emulated = [r for r in rows if r.kind == "emulated"]
    context = nearest_context(rows)
    others = [r for r in rows if r.context == context and r.kind in LINES]
    metered = dict.fromkeys(r.device for r in others if r.joules_per_token is not None)
    colours = plt.get_cmap("tab10")
    for number, device in enumerate(metered):
        for kind, line in LINES.items():
            best = frontier(r for r in others if (r.device, r.kind) == (device, kind))
            sizes = sorted({r.count for r in best})
            span = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
            label = f"{span} x {device}" if kind == "roofline" else None
            axes.plot(*_points(best), line, marker="o", ms=3, color=colours(number), label=label)
    label = f"{emulated[0].count} x GroqChip 1, emulated"
    axes.plot(*_points(emulated), "k*-", ms=13, label=label)
    _say_users(axes, emulated)
    _dress(axes, title)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Rows that no other beats in both speed and energy, slowest first."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda r: (-r.tokens_per_s_per_user, r.joules_per_token or 0.0)):
        assert row.joules_per_token is not None
        if not found or row.joules_per_token < (found[-1].joules_per_token or 0.0):
            found.append(row)
    return found[::-1]


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    metered = [r for r in rows if r.joules_per_token is not None]
    return [r.tokens_per_s_per_user for r in metered], [r.joules_per_token or 0.0 for r in metered]


def _say_users(axes: Axes, emulated: Sequence[Row]) -> None:
    for row in emulated:
        if row.joules_per_token is not None:
            text = f"{row.batch} user" + ("s" if row.batch > 1 else "")
            axes.annotate(text, (row.tokens_per_s_per_user, row.joules_per_token), (9, 0),
                          textcoords="offset points", ha="left", va="center")  # fmt: skip


def _dress(axes: Axes, title: str) -> None:
    axes.set(xscale="log", yscale="log", title=title)
    axes.set_xlabel("tokens/s for each user (faster is right)")
    axes.set_ylabel("J per token, devices alone (frugal is down)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter(plain)
    axes.grid(alpha=0.3, which="both")
    axes.margins(x=0.12)
    head = (
        "solid: roofline, dotted: achieved;\nalong a line: devices and users\n(TPUs: no TDP known)"
    )
    axes.legend(fontsize=8, title=head, title_fontsize=8, loc="center left",
                bbox_to_anchor=(1.01, 0.5))  # fmt: skip
