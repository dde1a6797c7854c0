"""`lpu fetch MODEL`: a model into the cache."""

import json

import click

from cluster.commands.parameters import NAME
from cluster.errors import UnknownName
from cluster.model.fetch import fetch_minilm, fetch_smollm2
from cluster.runs.display import Bars

FETCHABLE = {
    "smollm2": fetch_smollm2,
    "smollm2-135m": fetch_smollm2,
    "smollm2-moe8": fetch_smollm2,  # of which it is made as it is loaded
    "minilm": fetch_minilm,
    "minilm-l6": fetch_minilm,
}


@click.command("fetch")
@click.argument("model", type=NAME)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fetch_command(model: str, as_json: bool) -> None:
    """Download MODEL (smollm2, smollm2-moe8, minilm) into the cache, and verify it."""
    if model.lower() not in FETCHABLE:
        raise UnknownName("model to fetch", model, tuple(FETCHABLE))
    with Bars() as bars:
        fetch = FETCHABLE[model.lower()]
        found = fetch(progress=lambda done, total: bars.step("fetch", done, total))
    if as_json:
        click.echo(json.dumps({"path": str(found.path), "sha256": found.sha256}))
    else:
        how = "downloaded" if found.downloaded else "in the cache"
        click.echo(f"{found.path}\nSHA-256 {found.sha256}, {how}")
