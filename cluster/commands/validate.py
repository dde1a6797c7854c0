"""`lpu validate`: published numbers against ours."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cluster.commands.parameters import report_option
from cluster.files import check_writable
from cluster.report.files import write_report
from cluster.report.page import Page
from cluster.runs.display import Bars, counted, print_rows
from cluster.validate.row import Row, figures
from cluster.validate.table import rows

FAILED = 1
MARKS = {"holds": "ok", "fails": "FAILS", "reported": "off"}


@click.command("validate")
@click.option("--only", metavar="V10,V26", default="", help="These rows alone.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def validate_command(only: str, report_file: Path | None, as_json: bool) -> int:
    """Compute published numbers with the emulator; exit 1 if a row that claims to hold does not.

    `off` rows are outside their tolerance and claim nothing; below the table is what makes the
    difference.
    """
    check_writable("--report", report_file)
    start, found = time.perf_counter(), []
    wanted = [part.strip().upper() for part in only.split(",") if part.strip()]
    with Bars() as bars:
        for row in rows(wanted):
            found.append(row)
            bars.step("validate", len(found), 0)
    found.sort(key=lambda row: row.id)
    seconds = time.perf_counter() - start
    report = _report(found, seconds)
    if report_file:
        write_report(report_file, report, lambda: _page(found, report))
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(found, seconds)
    return FAILED if any(row.status == "fails" for row in found) else 0


def _report(found: list[Row], seconds: float) -> dict[str, Any]:
    table = [
        asdict(row) | {"error": row.error, "status": row.status, "command": row.command}
        for row in found
    ]
    counts = {status: sum(row.status == status for row in found) for status in MARKS}
    return {"rows": table, "counts": counts, "wall_s": seconds}


def _page(found: list[Row], report: dict[str, Any]) -> Page:
    from cluster.report.validate_page import validate_page  # matplotlib is loaded for pages alone

    return validate_page(found, report)


def _print(found: list[Row], seconds: float) -> None:
    head = ("id", "", "what", "published", "ours", "error", "tolerance")
    print_rows(head, [_cells(row) for row in found])
    notes = dict.fromkeys(f"{row.id}: {row.reason}" for row in found if row.ok is None)
    for note in notes:
        click.echo(note)
    counts = ", ".join(f"{sum(r.status == s for r in found)} {s}" for s in MARKS)
    click.echo(f"{counted(len(found), 'row')}: {counts}; {seconds:.0f} s")


def _cells(row: Row) -> tuple[object, ...]:
    return (row.id, MARKS[row.status], row.what, *figures(row), row.tolerance)
