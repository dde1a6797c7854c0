"""`lpu sweep FILE.toml`: many points at once, and an answer."""

import json
from pathlib import Path
from typing import Any

import click

from cluster.commands.parameters import FILE, NAME, report_option
from cluster.files import check_writable
from cluster.model.fetch import cache_folder
from cluster.report.files import write_report
from cluster.report.reproduce import command_line
from cluster.runs.display import Bars, counted, show_table
from cluster.sweeps import grid, sweeping
from cluster.sweeps.answers import answer
from cluster.sweeps.pages import write_results
from cluster.sweeps.question import read


@click.command("sweep")
@click.argument("file", type=FILE, metavar="FILE.toml")
@click.option("--output", type=FILE, metavar="DIR",
              help="Folder of the results (default: named after FILE, in this one).")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N",
              help="Processes here (default: one for each core).")  # fmt: skip
@click.option("--address", type=NAME, help="A running Ray cluster, for tasks on it.")
@click.option("--dry-run", is_flag=True, help="Check FILE and count its points.")
@click.option("--fresh", is_flag=True, help="Compute points anew that are known.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def sweep_command(
    file: Path, output: Path | None, workers: int | None, address: str | None, dry_run: bool,
    fresh: bool, report_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Compute all points of the question in FILE, write rows, plots and a report, and answer it.

    What is known from before is not computed again. Inside `ray job submit`, and with --address,
    points are Ray tasks.
    """
    question = read(file)
    check_writable("--report", report_file)
    if dry_run:
        total = len(grid.points(question))
        found: dict[str, Any] = {"points": total, "computed": 0, "cached": 0, "failed": 0}
        click.echo(json.dumps(found) if as_json else counted(total, "point"))
        return
    folder = output or Path(file.stem)
    with sweeping.output_folder("--output", folder), Bars() as bars:
        result = sweeping.sweep(
            question, cache_folder(), workers=workers, address=address, fresh=fresh,
            progress=lambda done, total: bars.step("sweep", done, total),
        )  # fmt: skip
        said = answer(result)
        page = write_results(result, said, folder, command_line())
        found = {"answer": said.text, **result.counts, "output": str(folder)}
        if report_file:
            write_report(report_file, found, lambda: page)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{said.text}\n")
    reasons = "; their rows say why" if result.failed else ""
    show_table(
        {
            "points": f"{len(result.rows):,}: {result.computed:,} computed, {result.cached:,} "
            f"known from before, {result.failed:,} without a plan{reasons}",
            "results": f"{folder}/results.csv, results.jsonl",
            "report": f"{report_file or folder / 'report.html'}",
        }
    )
