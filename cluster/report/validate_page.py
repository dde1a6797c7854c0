"""The page of a validation: published numbers against ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.report.page import Block, Page, Section, Table, Text
from cluster.report.plots import bars
from cluster.report.reproduce import command_line, versions
from cluster.runs.display import counted
from cluster.validate.row import Row, figures

STATUS = (
    ("fails", "What should hold and does not"),
    ("holds", "What holds"),
    ("reported", "What is off, and why"),
)
HEAD = ("id", "what", "published", "ours", "error", "tolerance")
MOST_OFF = 100.0  # %, of a bar


def validate_page(rows: Sequence[Row], report: Mapping[str, Any]) -> Page:
    """The page of these rows; `report` is their JSON object."""
    sections = [_errors(rows)]
    for status, title in STATUS:
        mine = [row for row in rows if row.status == status]
        if mine:
            sections.append(_group(title, mine))
    head = ("id", "configuration", "source")
    sources = Table(head, [(row.id, row.configuration, row.source) for row in rows])
    sections.append(Section("Where they are published", (sources,), folded=True))
    title = "Published numbers against the emulator's"
    return Page(title, _answer(report), sections, command_line(), versions(), report)


def _answer(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    claimed = counts["holds"] + counts["fails"]
    verdict = "hold" if not counts["fails"] else f"do, {counts['fails']} do not hold"
    return (
        f"{counts['holds']} of {counted(claimed, 'published number')} that we claim to meet "
        f"{verdict}. {counts['reported']} more are outside their tolerance and say why. "
        f"It took {report['wall_s']:,.0f} s."
    )


def _group(title: str, rows: Sequence[Row]) -> Section:
    blocks: list[Block] = [Table(HEAD, [_cells(row) for row in rows])]
    notes = dict.fromkeys(f"{row.id}: {row.reason}" for row in rows if row.ok is None)
    if notes:
        blocks.append(Text(tuple(notes)))
    return Section(title, blocks)


def _errors(rows: Sequence[Row]) -> Section:
    """How far each is off, in a plot; what is beyond it is in the tables."""
    shown = [row for row in rows if abs(100 * row.error) <= MOST_OFF]
    values = {
        name: [100 * row.error if row.status == status else 0.0 for row in shown]
        for name, status in (("holds", "holds"), ("off", "reported"), ("fails", "fails"))
        if any(row.status == status for row in shown)
    }
    left = len(rows) - len(shown)
    caption = f"{counted(left, 'row')} beyond {MOST_OFF:.0f} % are in the tables." if left else ""
    drawn = bars(values, [row.id for row in shown], "ours against the published, %",
                 caption=caption)  # fmt: skip
    return Section("How far off", (drawn,))


def _cells(row: Row) -> tuple[str, ...]:
    return row.id, row.what, *figures(row), row.tolerance
