"""Print and plot the sensitivity of decode speed to assumed numbers: docs/sensitivity.svg."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from cluster.compare.sensitivity import MODELS, Sensitivity, sensitivities


def main(path: Path, models: tuple[str, ...] = MODELS) -> None:
    """Write the plot to `path`, and the table in Markdown to stdout."""
    found = [one for model in models for one in sensitivities(model)]
    names = list(dict.fromkeys(one.what for one in found))
    print("| assumption | " + " | ".join(f"{m}, x 0.5 | {m}, x 2" for m in models) + " |")
    print("|---|" + "---|" * 2 * len(models))
    for name in names:
        cells = [
            f"{100 * one.change:+.1f} %{' (bound)' if one.bound else ''}"
            for model in models
            for factor in (0.5, 2.0)
            for one in found
            if (one.model, one.what, one.factor) == (model, name, factor)
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    draw(found, names, models, path)


def draw(found: list[Sensitivity], names: list[str], models: tuple[str, ...], path: Path) -> None:
    """Bars of change in percent, half above double, a panel for each model."""
    bounds = {one.what for one in found if one.bound}
    figure, panels = plt.subplots(
        1, len(models), figsize=(11, 3.8), sharex=True, sharey=True, squeeze=False
    )
    for axes, model in zip(panels[0], models, strict=True):
        for factor, colour, shift in ((0.5, "tab:blue", -0.2), (2.0, "tab:orange", 0.2)):
            mine = {o.what: o for o in found if (o.model, o.factor) == (model, factor)}
            widths = [100 * mine[name].change for name in names]
            rows = [number + shift for number in range(len(names))]
            bars = axes.barh(rows, widths, 0.36, color=colour, label=f"x {factor:g}")
            axes.bar_label(bars, fmt="%+.1f", fontsize=7, padding=2)
        base = next(o.base for o in found if o.model == model)
        axes.set_title(f"{model}: {base:,.0f} tokens/s", fontsize=10)
        axes.axvline(0, color="black", lw=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.margins(x=0.2)
    labels = [f"{name}\n(a bound)" if name in bounds else name for name in names]
    panels[0][0].set_yticks(range(len(names)), labels)
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(fontsize=8)
    figure.supxlabel("change of tokens/s per user, %", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=Path("docs/sensitivity.svg"))
    main(parser.parse_args().picture)
