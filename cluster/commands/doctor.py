"""`lpu doctor`: whether this host has what the emulator needs."""

import json
from dataclasses import asdict

import click

from cluster.host_checks import checks
from cluster.runs.display import show_table

FAILED = 1


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def doctor_command(as_json: bool) -> int:
    """Look at Python, cores, memory, caches, models and Ray; exit with 1 where something lacks."""
    found = list(checks())
    if as_json:
        plain = [asdict(one) | ({"advice": ""} if one.ok else {}) for one in found]
        click.echo(json.dumps({"checks": plain}))
    else:
        show_table(
            {
                check.name: f"ok  {check.found}"
                if check.ok
                else f"NO  {check.found}; {check.advice}"
                for check in found
            }
        )
    return 0 if all(check.ok for check in found) else FAILED
