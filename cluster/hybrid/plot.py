"""The picture of systems of LPUs and GPUs: tokens/s of a megawatt over tokens/s of each user."""

from pathlib import Path

import matplotlib

from cluster.hybrid.answer import WithGpus

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FRONT = "best of all"
X_LABEL = "tokens/s of each user (faster is right)"
Y_LABEL = "tokens/s for a megawatt (thriftier is up)"


def series(found: WithGpus) -> dict[str, tuple[list[float], list[float]]]:
    """The front of all, and by kind of system the points from the slowest on."""
    kinds = dict.fromkeys(one.kind for one in found.points)
    groups = {FRONT: list(found.front)}  # first: the points lie on it
    groups |= {kind: [one for one in found.points if one.kind == kind] for kind in kinds}
    drawn = {}
    for name, points in groups.items():
        order = sorted(points, key=lambda one: one.tokens_per_s_per_user)
        drawn[name] = (
            [one.tokens_per_s_per_user for one in order],
            [one.tokens_per_s_per_mw for one in order],
        )
    return drawn


def draw(found: WithGpus, title: str, path: Path) -> None:
    """Write a PNG or SVG."""
    figure, axes = plt.subplots(figsize=(9, 6))
    for name, (x, y) in series(found).items():
        front = name == FRONT
        axes.plot(x, y, "k--" if front else "o", lw=1, ms=5, label=name, zorder=1 if front else 2)
    axes.set(xscale="log", yscale="log", title=title, xlabel=X_LABEL, ylabel=Y_LABEL)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
