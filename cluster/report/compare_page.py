"""The page of a comparison with GPUs and TPUs."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.compare.plot import frontier
from cluster.compare.shortlist import nearest_context, shortlist
from cluster.compare.table import Row
from cluster.compare.verdict import Verdict
from cluster.compare.words import HEAD, KINDS, SHORT_HEAD, WORDS, cells, short_cells
from cluster.hybrid.answer import HEAD as HYBRID_HEAD
from cluster.hybrid.answer import WithGpus
from cluster.hybrid.answer import cells as hybrid_cells
from cluster.hybrid.plot import FRONT, X_LABEL, Y_LABEL, series
from cluster.report.page import Drawing, Page, Section, Table, Text
from cluster.report.plots import Line, bars, lines
from cluster.report.reproduce import command_line, versions

MAKES = 6  # of others in a plot, the best


def compare_page(
    model: str,
    rows: Sequence[Row],
    found: Verdict,
    report: Mapping[str, Any],
    together: WithGpus | None = None,
) -> Page:
    """The page of a comparison, with systems of both if there are; `report` is its JSON object."""
    shown = shortlist(rows)
    sections = [
        *(_together(together) if together else ()),
        Section("The best of each", (Table(SHORT_HEAD, [short_cells(one) for one in shown]),
                                     Text(WORDS))),
        Section("Energy over speed", (_front(rows),)),
        Section("Speed for one user", (_speeds(rows),)),
        Section("In detail", (Text.of(found.sentence), _measured(report))),
        Section("Every row", (Text.of(KINDS), Table(HEAD, list(map(cells, rows)))), folded=True),
    ]  # fmt: skip
    return Page(
        f"{model}: LPUs against GPUs and TPUs", together.answer if together else found.answer,
        sections, command_line(), versions(), report,
    )  # fmt: skip


def _together(found: WithGpus) -> list[Section]:
    """Systems of LPUs and GPUs: the front, and every point."""
    drawn = lines(
        [
            Line(name, x, y, *(("--", "") if name == FRONT else ("", "o")))
            for name, (x, y) in series(found).items()
        ],
        X_LABEL,
        Y_LABEL,
        log="xy",
    )
    head = ("kind", *HYBRID_HEAD, "tok/s a rack", "limit")
    rows = [
        (one.kind, *hybrid_cells(one), f"{one.tokens_per_s_per_rack:,.0f}", one.bound)
        for one in found.points
    ]
    table = Table(head, rows)
    return [
        Section("LPUs with GPUs", (drawn, Text(found.notes))),
        Section("Every system", (table,), folded=True),
    ]


def _front(rows: Sequence[Row]) -> Drawing:
    context = nearest_context(rows)
    limits = [
        r for r in rows
        if (r.context, r.kind) == (context, "roofline") and r.joules_per_token is not None
    ]  # fmt: skip
    fronts = {device: frontier([r for r in limits if r.device == device])
              for device in dict.fromkeys(r.device for r in limits)}  # fmt: skip
    best = sorted(fronts, key=lambda d: min(r.joules_per_token or 0.0 for r in fronts[d]))[:MAKES]
    ours = [r for r in rows if r.kind == "emulated" and r.joules_per_token is not None]
    series = [("LPUs, emulated", ours), *((name, fronts[name]) for name in best)]
    found = [
        Line(
            name,
            [r.tokens_per_s_per_user for r in some],
            [r.joules_per_token or 0.0 for r in some],
            marker="o" if at else "*",
        )
        for at, (name, some) in enumerate(series)
        if some
    ]
    return lines(
        found,
        "tokens/s of each user (faster is right)",
        "J per token (thriftier is down)",
        log="xy",
        caption="Of each make the sizes and numbers of users that no other beats in both. Others "
        "are rooflines, which none exceeds; LPUs are schedules.",
    )


def _speeds(rows: Sequence[Row]) -> Drawing:
    shown = [one for one in shortlist(rows) if one.row.batch == 1 and one.row.kind != "published"]
    labels = [f"{one.row.count} x {one.row.device}" for one in shown]
    speeds = [one.row.tokens_per_s_per_user for one in shown]
    return bars({"tokens/s": speeds}, labels, "tokens/s for one user, at most")


def _measured(report: Mapping[str, Any]) -> Table:
    rows = [
        (one["model"], f"{one['count']} x {one['device']}", f"{8 * one['weight_bytes']} bit",
         f"{one['tokens_per_s']:,.1f}", f"{one['ours']:,.1f}", f"{one['error']:+.0%}")
        for one in report["model_of_gpus_against_measured"]
    ]  # fmt: skip
    head = ("model", "devices", "weights", "measured tok/s", "ours", "error")
    return Table(head, rows, "Measured decode speeds of GPUs, one user, against `achieved`")
