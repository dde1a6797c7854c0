"""`lpu sweep FILE.toml`: many points at once, and an answer."""

import json
import os
from pathlib import Path

import click

from cluster.commands.parameters import FILE, NAME
from cluster.model.fetch import cache_folder
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def sweep_command(
    file: Path, output: Path | None, workers: int | None, address: str | None, dry_run: bool,
    fresh: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compute all points of the question in FILE, write rows, plots and a report, and answer it.

    What is known from before is not computed again. Inside `ray job submit`, and with --address,
    points are Ray tasks.
    """
    question = read(file)
    if dry_run:
        total = len(grid.points(question))
        found = {"points": total, "computed": 0, "cached": 0, "failed": 0}
        click.echo(json.dumps(found) if as_json else counted(total, "point"))
        return
    folder = output or Path(file.stem)
    with sweeping.output_folder("--output", folder), Bars() as bars:
        result = sweeping.sweep(
            question, cache_folder(), workers=workers, address=address, fresh=fresh,
            progress=lambda done, total: bars.step("sweep", done, total),
        )  # fmt: skip
        said = answer(result)
        write_results(result, said, folder, f"lpu sweep {os.path.relpath(file)}")
    counts = {
        "points": len(result.rows), "computed": result.computed, "cached": result.cached,
        "failed": result.failed,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps({"answer": said.text, **counts, "output": str(folder)}))
        return
    click.echo(f"{said.text}\n")
    reasons = "; their rows say why" if result.failed else ""
    show_table(
        {
            "points": f"{len(result.rows):,}: {result.computed:,} computed, {result.cached:,} "
            f"known from before, {result.failed:,} without a plan{reasons}",
            "results": f"{folder}/results.csv, results.jsonl",
            "report": f"{folder}/report.html",
        }
    )
