"""Plots of a sweep: those that the axes of its question allow, each with its numbers in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.report.page import Drawing
from cluster.report.plots import Line, bars, heat_map, lines
from cluster.sweeps.answers import Said, named, varied
from cluster.sweeps.companions import companions
from cluster.sweeps.evaluation import Row
from cluster.sweeps.figures import CHIPS, ENERGY, SPEED, SPEED_IN_ALL, figure, setting, value_of
from cluster.sweeps.sweeping import SweepResult

MOST_LINES, MOST_BARS, MOST_CELLS = 8, 24, 12
NAN = float("nan")
HOST = "host_tokens_per_s"


@dataclass(frozen=True)
class Picture:
    """A drawing with the name of its file and its heading."""

    name: str
    title: str
    drawing: Drawing


def pictures(result: SweepResult, said: Said) -> list[Picture]:
    """All plots that there are rows for."""
    return [one for draw in DRAWN for one in draw(result, said)]


def by_axis(result: SweepResult, said: Said) -> Iterator[Picture]:
    """The deciding figure over the axis: lines where that is a number, bars where it is a name."""
    what, along = figure(said.by), said.along
    numeric = all(value_of(row, along) is not None for row in result.good)
    if numeric and len({row[along] for row in result.good}) > 1:
        drawn = _lines(result, along, said.by)
        yield Picture("by_axis", f"{what.name} over {along}", drawn)
        return
    rows = [row for row in result.good if value_of(row, said.by) is not None][:MOST_BARS]
    names = varied(result) or [along]
    labels = [", ".join(named(name, setting(row, name)) for name in names) for row in rows]
    values = [_scaled(row, said.by) for row in rows]
    if rows:
        drawn = bars({what.name: values}, labels, what.label)
        yield Picture("bars", f"{what.name} by {along}", drawn)


def host_speed(result: SweepResult, said: Said) -> Iterator[Picture]:
    """Of runs: tokens/s of this host over the axis."""
    if said.by != HOST and any(value_of(row, HOST) is not None for row in result.good):
        found = _series(result, said.along, HOST, said.along)
        if found:
            yield Picture("host_speed", "Speed on this host",
                          lines(found, said.along, figure(HOST).label, log="xy"))  # fmt: skip


def latency_over_chips(result: SweepResult, said: Said) -> Iterator[Picture]:
    """Time of a token over the chips in use."""
    if said.by == SPEED and said.along == "chips":
        return
    chips = {row.get(CHIPS) for row in result.good}
    found = _series(result, CHIPS, "cycles_per_token", said.along)
    numeric = any(value_of(row, said.along) is not None for row in result.good)
    if len(chips - {None}) > 1 and numeric and found:
        drawn = lines(found, "chips", figure("cycles_per_token").label, log="xy")
        yield Picture("latency_over_chips", "Time of a token over chips", drawn)


def pareto(result: SweepResult, said: Said) -> Iterator[Picture]:
    """Speed of one user against that of all, with the front of what nothing else beats."""
    rows = [r for r in result.good if value_of(r, SPEED) and value_of(r, SPEED_IN_ALL)]
    others = [c for row in rows for c in companions(result.question, row)]
    points = [(_scaled(r, SPEED), _scaled(r, SPEED_IN_ALL)) for r in rows]
    if len(set(points)) < 2 and not others:
        return
    if all(x == y for x, y in points) and not others:
        return
    found = [Line("LPU plans", *_columns(points), style="")]
    front = _front(points)
    found.append(Line("Pareto front", *_columns(front), marker=""))
    for name in dict.fromkeys(c.device for c in others):
        mine = [(c.tokens_per_s_per_user, c.tokens_per_s) for c in others if c.device == name]
        found.append(Line(name, *_columns(mine), style="", marker="s"))
    yield Picture(
        "pareto", "Speed of a user against that of all",
        lines(found[:MOST_LINES], figure(SPEED).unit, figure(SPEED_IN_ALL).unit, log="xy"),
    )  # fmt: skip


def energy(result: SweepResult, said: Said) -> Iterator[Picture]:
    """Joules of a token, for each row."""
    rows = [row for row in result.good if value_of(row, ENERGY) is not None][:MOST_BARS]
    if len(rows) < 2 or said.by == ENERGY:
        return
    names = varied(result) or [said.along]
    labels = [", ".join(named(name, setting(row, name)) for name in names) for row in rows]
    parts = {"one user": [_scaled(row, ENERGY) for row in rows]}
    yield Picture("energy", "Energy of a token", bars(parts, labels, figure(ENERGY).label))


def heat(result: SweepResult, said: Said) -> Iterator[Picture]:
    """The deciding figure over the first two axes, the best of all others."""
    names = varied(result)
    if len(names) < 2 or not result.good:
        return
    across, down = names[:2]
    x = list(dict.fromkeys(setting(row, across) for row in result.rows))[:MOST_CELLS]
    y = list(dict.fromkeys(setting(row, down) for row in result.rows))[:MOST_CELLS]
    what = figure(said.by)
    best = max if what.more else min
    cells: dict[tuple[str, str], list[float]] = {}
    for row in result.good:
        if value_of(row, said.by) is not None:
            place = setting(row, across), setting(row, down)
            cells.setdefault(place, []).append(_scaled(row, said.by))
    values = [[best(cells.get((one, other), [NAN])) for one in x] for other in y]
    if all(value != value for line in values for value in line):
        return
    yield Picture("heat_map", f"{what.name} over {across} and {down}",
                  heat_map(values, x, y, (across, down, what.label)))  # fmt: skip


def breakdown(result: SweepResult, said: Said) -> Iterator[Picture]:
    """Where the cycles of a token go, for each row."""
    rows = [row for row in result.good if row.get("attention_cycles") is not None][:MOST_BARS]
    if not rows:
        return
    names = varied(result) or [said.along]
    labels = [", ".join(named(name, setting(row, name)) for name in names) for row in rows]
    parts = {words: [float(row[name]) for row in rows] for name, words in PARTS.items()}
    yield Picture("breakdown", "Where the cycles of a token go",
                  bars(parts, labels, "cycles per token"))  # fmt: skip


PARTS = {
    "attention_cycles": "attention", "ffn_cycles": "FFN", "all_reduce_cycles": "all-reduces",
    "lm_head_cycles": "LM head", "clocks_cycles": "clocks",
    "stage_transfers_cycles": "between stages",
}  # fmt: skip
DRAWN = (by_axis, host_speed, heat, latency_over_chips, pareto, energy, breakdown)


def _lines(result: SweepResult, along: str, by: str) -> Drawing:
    x = [value_of(row, along) or 0.0 for row in result.good]
    wide = min(x) > 0 and max(x) / min(x) >= 8
    return lines(
        _series(result, along, by, along), along, figure(by).label, log="x" if wide else ""
    )


def _series(result: SweepResult, across: str, by: str, along: str) -> list[Line]:
    """A line for each combination of the other axes."""
    names = [name for name in varied(result) if name not in (across, along)]
    found: dict[str, list[tuple[float, float]]] = {}
    for row in result.good:
        x, y = value_of(row, across), value_of(row, by)
        if x is not None and y is not None:
            label = ", ".join(f"{name} {setting(row, name)}" for name in names) or figure(by).name
            found.setdefault(label, []).append((x, y * figure(by).factor))
    return [Line(name, *_columns(sorted(p))) for name, p in list(found.items())[:MOST_LINES]]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that none beats in both, by the first number."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(set(points), reverse=True):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found[::-1]


def _scaled(row: Row, by: str) -> float:
    return (value_of(row, by) or 0.0) * figure(by).factor
