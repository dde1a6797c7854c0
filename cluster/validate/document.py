"""The validation table as Markdown, and where it stands in a document."""

from collections.abc import Sequence
from pathlib import Path

from cluster.errors import BadValue
from cluster.validate.row import Row

HEAD = "| row | what | published | ours | error | tolerance | |\n|---|---|---|---|---|---|---|"


def line(row: Row) -> str:
    """A row of the table; four figures of ours."""
    status = "off" if row.ok is None else row.status
    numbers = number(row.published), number(row.emulated), percent(row.error)
    cells = row.id, row.what, *numbers, row.tolerance, status
    return "| " + " | ".join(cells) + " |"


def percent(error: float) -> str:
    """Two figures, and whole per cents from ten on.

    >>> percent(1.433), percent(-0.00098), percent(0.0)
    ('+143 %', '-0.098 %', '0 %')
    """
    if not error:
        return "0 %"
    figures = f"{100 * error:+.0f}" if abs(error) >= 0.1 else f"{100 * error:+.2g}"
    return f"{figures} %"


def number(value: float) -> str:
    """Four figures, whole numbers below a million in full.

    >>> number(8742), number(0.00011922), number(7.04e16)
    ('8,742', '0.0001192', '7.04e+16')
    """
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}"


def markdown(rows: Sequence[Row]) -> str:
    """The table, what makes the difference where a row is off, and the counts."""
    rows = sorted(rows, key=lambda row: row.id)
    reasons = dict.fromkeys(f"- **{row.id}**: {row.reason}." for row in rows if row.ok is None)
    counts = ", ".join(
        f"{sum(row.status == status for row in rows)} {status}"
        for status in ("holds", "fails", "reported")
    )
    parts = [HEAD, *map(line, rows), "", f"{len(rows)} rows: {counts}. Of those without a claim:"]
    return "\n".join([*parts, "", *reasons])


def put(path: Path, section: str, text: str) -> None:
    """Replace what stands between the comments that begin and end a section.

    Raises BadValue where the document has no such section.
    """
    old = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {section}: begin -->\n", f"\n<!-- {section}: end -->"
    if begin not in old or end not in old:
        raise BadValue("document", path, f"has no section {section}")
    before, after = old.split(begin)[0], old.split(end)[1]
    new = path.with_suffix(".new")
    new.write_text(before + begin + text + end + after, encoding="utf-8")
    new.replace(path)
