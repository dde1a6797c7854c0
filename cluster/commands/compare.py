"""`lpu compare MODEL`: an LPU cluster against GPUs and TPUs."""

import json
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import click

from cluster.commands.parameters import (
    CHIPS,
    COUNT,
    NAME,
    PICTURE,
    TOPOLOGY,
    gpu_options,
    report_option,
    sums_option,
)
from cluster.commands.with_gpus import asked, draw_with_gpus, find_with_gpus, print_with_gpus
from cluster.compare.lpu import lpu_points, published_cluster
from cluster.compare.measured import MEASURED
from cluster.compare.shortlist import shortlist
from cluster.compare.table import BATCHES, Row, device_rows, lpu_rows, published_rows
from cluster.compare.verdict import Verdict, verdict
from cluster.compare.words import HEAD, KINDS, SHORT_HEAD, WORDS, cells, short_cells
from cluster.compiler.choose import PlanRequest
from cluster.errors import BadValue
from cluster.files import check_writable
from cluster.hybrid.answer import WithGpus
from cluster.model.fetch import cache_folder
from cluster.model.graph.counts import MATRIX_BYTES
from cluster.model.load import find_decoder
from cluster.planning.companions import shared_store
from cluster.report.files import write_report
from cluster.report.page import Page
from cluster.runs.display import Bars, print_rows

MOST_USERS = 1 << 20
TEXT_COLUMNS = 80


@click.command("compare")
@click.argument("model", type=NAME)
@click.option("--chips", type=CHIPS, help="LPU chips (default: the published cluster of the model, "
              "or the fewest that hold it).")  # fmt: skip
@click.option("--tp", type=CHIPS, help="Chips of a tensor-parallel group (default: searched).")
@click.option(
    "--topology", type=TOPOLOGY, metavar="SPEC", help="Topology of the LPUs (default: by chips)."
)
@sums_option
@click.option("--context", type=COUNT, default=320, show_default=True, help="Tokens of context.")
@click.option("--weights", type=click.Choice(list(MATRIX_BYTES)), help="Of the LPUs; the others "
              "take as many bytes for a weight (default: as published, or fp16).")  # fmt: skip
@click.option("--batches", default=",".join(map(str, BATCHES)), show_default=True, metavar="1,8")
@click.option("--plot", "picture", type=PICTURE, help="Write a .png or .svg.")
@gpu_options
@click.option("--all", "every", is_flag=True, help="Print every size, batch and context.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare_command(
    model: str,
    chips: int | None,
    tp: int | None,
    topology: str | None,
    sums_between_nodes: str,
    context: int,
    weights: str | None,
    batches: str,
    picture: Path | None,
    prefill_on: str | None,
    afd: str | None,
    between: tuple[str, ...],
    every: bool,
    report_file: Path | None,
    as_json: bool,
) -> None:
    """Compare tokens/s and joules of MODEL on a planned LPU cluster with GPUs and TPUs.

    The answer comes first, then a dozen rows, the best makes for it; --all prints every row. With
    --prefill-on or --afd the question is whether GPUs help LPUs, against either alone.
    Emulated speeds are those of `lpu plan`, with each token's transfers to the host and back.
    """
    check_writable("--plot", picture)
    check_writable("--report", report_file)
    sizes = _numbers(batches)
    mixed = asked(prefill_on, afd, between)
    graph = find_decoder(model)
    if mixed or graph.in_8_bits:
        weights = weights or "int8"  # as LPUs that serve large models have them
    chips, weights = published_cluster(graph.name, chips, weights)
    request = PlanRequest(
        chips, tp, topology=topology, weights=weights, context=context,
        sums_between_nodes=sums_between_nodes,
    )  # fmt: skip
    folder = cache_folder() / "costs"
    made, work = count(1), partial(lpu_points, model, request)
    with (
        Bars() as bars,
        shared_store(folder, work, lambda: bars.step("plan", next(made), 0)) as store,
    ):
        bars.step("plan", 0, 0)
        points = lpu_points(model, request, store)
        help_of = (prefill_on, afd, between)
        together = find_with_gpus(model, request, *help_of, store) if mixed else None
    contexts = sorted({context, min(4096, graph.context_max)})
    rows = [
        *lpu_rows(points),
        *device_rows(graph, contexts, sizes, MATRIX_BYTES[weights]),
        *published_rows(graph),
    ]
    found = verdict(rows)
    if picture is not None:
        from cluster.compare.plot import draw

        title = f"{graph.name}, {weights}, context {context}"
        if together:
            draw_with_gpus(together, title, picture)
        else:
            draw(rows, f"{title}: energy over speed", picture)
    measured = [asdict(m) | {"ours": m.ours, "error": m.error, "ok": m.ok} for m in MEASURED]
    report = {
        "model": graph.name,
        "rows": [asdict(row) for row in rows],
        "verdict": asdict(found),
        "model_of_gpus_against_measured": measured,
        "system_joules_per_token": [point.system_joules_per_token for point in points],
    }
    if together:
        report["with_gpus"] = together.report()
    if report_file:
        write_report(report_file, report, lambda: _page(graph.name, rows, found, report, together))
    if as_json:
        click.echo(json.dumps(report))
    elif together:
        print_with_gpus(together)
    else:
        _print(rows, found, every)


def _page(
    model: str, rows: list[Row], found: Verdict, report: dict[str, Any], together: WithGpus | None
) -> Page:
    from cluster.report.compare_page import compare_page  # matplotlib is loaded for pages alone

    return compare_page(model, rows, found, report, together)


def _numbers(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BadValue("--batches", text, "must be numbers such as 1,8,32") from None
    if found[0] != 1:
        raise BadValue("--batches", text, "must begin with 1, one user")
    if found[-1] > MOST_USERS:
        raise BadValue("--batches", text, f"must be at most {MOST_USERS:,} users")
    return found


def _print(rows: list[Row], found: Verdict, every: bool) -> None:
    click.echo(found.answer)
    if every:
        print_rows(HEAD, map(cells, rows))
        said = [KINDS]
    else:
        print_rows(SHORT_HEAD, map(short_cells, shortlist(rows)))
        said = [*WORDS, f"These are the best of {len(rows)} rows: --all prints them."]
    good = [m for m in MEASURED if m.ok]
    worst = max(MEASURED, key=lambda m: abs(m.error))
    said += [
        found.sentence,
        f"Of {len(MEASURED)} measured GPU decode speeds our `achieved` model is within 25 % of "
        f"{len(good)}; worst {worst.count} x {worst.device}, {worst.model}: {worst.error:+.0%}.",
    ]
    for text in said:
        click.echo(click.wrap_text(text, TEXT_COLUMNS))
