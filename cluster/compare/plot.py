"""The picture of the comparison: energy per token over speed for one user."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from cluster.compare.table import Row

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write a PNG or SVG: curves over the batch of each device at its largest size, and the LPU."""
    figure, axes = plt.subplots(figsize=(9, 6))
    context = min(r.context for r in rows if r.kind == "roofline")
    devices = dict.fromkeys(r.device for r in rows if r.kind == "roofline" and r.joules_per_token)
    colours = plt.get_cmap("tab10")
    for number, device in enumerate(devices):
        mine = [r for r in rows if r.device == device and r.context == context]
        size = max((r.count for r in mine if r.count <= 8), default=0)
        for kind, line in (("roofline", "-"), ("achieved", ":")):
            points = [r for r in mine if r.count == size and r.kind == kind]
            xs = [r.tokens_per_s_per_user for r in points]
            ys = [r.joules_per_token or np.nan for r in points]
            label = f"{size} x {device}" if kind == "roofline" else None
            axes.plot(xs, ys, line, marker="o", ms=3, color=colours(number), label=label)
    emulated = [r for r in rows if r.kind == "emulated"]
    xs = [r.tokens_per_s_per_user for r in emulated]
    axes.plot(xs, [r.joules_per_token or np.nan for r in emulated], "k*-", ms=12,
              label=f"{emulated[0].count} x GroqChip 1")  # fmt: skip
    for row in emulated:
        if row.joules_per_token is not None:
            text = f" {row.batch} user" + ("s" if row.batch > 1 else "")
            axes.annotate(text, (row.tokens_per_s_per_user, row.joules_per_token))
    axes.set(xscale="log", yscale="log", title=title)
    axes.set_xlabel("tokens/s for each user")
    axes.set_ylabel("J per token (devices alone)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, title="solid: roofline, dotted: achieved", title_fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
