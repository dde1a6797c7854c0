"""`lpu compare MODEL`: an LPU cluster against GPUs and TPUs."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from cluster.commands.parameters import CHIPS, COUNT, NAME, PICTURE, TOPOLOGY
from cluster.compare.lpu import lpu_points, published_cluster
from cluster.compare.measured import MEASURED
from cluster.compare.table import BATCHES, Row, device_rows, lpu_rows, published_rows
from cluster.compare.verdict import Verdict, verdict
from cluster.compiler.choose import PlanRequest
from cluster.errors import BadValue
from cluster.files import check_writable
from cluster.model.load import find_decoder
from cluster.runs.display import Bars, print_rows

MOST_USERS = 1 << 20
BYTES = {"fp16": 2.0, "int8": 1.0}


@click.command("compare")
@click.argument("model", type=NAME)
@click.option("--chips", type=CHIPS, help="LPU chips (default: the published cluster of the model, "
              "or the fewest that hold it).")  # fmt: skip
@click.option("--tp", type=CHIPS, help="Chips of a tensor-parallel group (default: searched).")
@click.option(
    "--topology", type=TOPOLOGY, metavar="SPEC", help="Topology of the LPUs (default: by chips)."
)
@click.option("--context", type=COUNT, default=320, show_default=True, help="Tokens of context.")
@click.option("--weights", type=click.Choice(list(BYTES)), help="Of the LPUs; the others take as "
              "many bytes for a weight (default: as published, or fp16).")  # fmt: skip
@click.option("--batches", default=",".join(map(str, BATCHES)), show_default=True, metavar="1,8")
@click.option("--plot", "picture", type=PICTURE, help="Write a .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare_command(
    model: str,
    chips: int | None,
    tp: int | None,
    topology: str | None,
    context: int,
    weights: str | None,
    batches: str,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Compare tokens/s and joules of MODEL on a planned LPU cluster with GPUs and TPUs.

    Every row says its kind: `emulated` by this program, `roofline` of published rates, `achieved`
    with measured shares of bandwidth and latencies of collectives, or `published`. Emulated speeds
    are those of `lpu plan`, with each token's transfers to the host and back.
    """
    check_writable("--plot", picture)
    sizes = _numbers(batches)
    graph = find_decoder(model)
    chips, weights = published_cluster(graph.name, chips, weights)
    request = PlanRequest(chips, tp, topology=topology, weights=weights, context=context)
    with Bars() as bars:
        bars.step("plan", 0, 0)
        points = lpu_points(model, request)
    contexts = sorted({context, min(4096, graph.context_max)})
    rows = [
        *lpu_rows(points),
        *device_rows(graph, contexts, sizes, BYTES[weights]),
        *published_rows(graph),
    ]
    found = verdict(rows)
    if picture is not None:
        from cluster.compare.plot import draw

        title = f"{graph.name}, {weights}, context {context}: energy over speed"
        draw(rows, title, picture)
    if as_json:
        measured = [asdict(m) | {"ours": m.ours, "error": m.error, "ok": m.ok} for m in MEASURED]
        report = {
            "model": graph.name,
            "rows": [asdict(row) for row in rows],
            "verdict": asdict(found),
            "model_of_gpus_against_measured": measured,
            "system_joules_per_token": [point.system_joules_per_token for point in points],
        }
        click.echo(json.dumps(report))
    else:
        _print(rows, found, context)


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


def _print(rows: list[Row], found: Verdict, context: int) -> None:
    head = ("device", "n", "users", "context", "tok/s/user", "tok/s", "J/token", "bound", "kind")
    shown = [r for r in rows if r.context in (context, 128) or r.kind == "emulated"]
    print_rows(head, [_cells(row) for row in shown])
    click.echo(found.sentence)
    good = [m for m in MEASURED if m.ok]
    worst = max(MEASURED, key=lambda m: abs(m.error))
    click.echo(
        f"Of {len(MEASURED)} measured GPU decode speeds our `achieved` model is within 25 % of "
        f"{len(good)}; worst {worst.count} x {worst.device}, {worst.model}: {worst.error:+.0%}."
    )


def _cells(row: Row) -> tuple[object, ...]:
    joules = "" if row.joules_per_token is None else f"{row.joules_per_token:.3g}"
    speeds = f"{row.tokens_per_s_per_user:,.0f}", f"{row.tokens_per_s:,.0f}"
    place = row.device, row.count, row.batch, row.context
    return (*place, *speeds, joules, row.bound, row.kind)
