"""`lpu energy`: the energy table, and the fit to the published power."""

import json
from dataclasses import asdict

import click

from chip.energy import EVENTS, GROQCHIP1_ENERGY
from cluster.energy_fit import Fit, fit


@click.command("energy")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def energy_command(as_json: bool) -> None:
    """Print the energy of every event, and how idle power and scale follow from published watts."""
    found = fit()
    if as_json:
        report = {
            "table": asdict(GROQCHIP1_ENERGY),
            "fitted": {"scale": found.table.scale, "idle_w": found.table.idle_w},
            "points": [
                asdict(point) | {"emulated_w": point.power_w(GROQCHIP1_ENERGY)}
                for point in found.points
            ],
        }
        click.echo(json.dumps(report))
    else:
        _print(found)


def _print(found: Fit) -> None:
    high, low = found.points
    click.echo(f"{'pJ at 45 nm x ' + format(GROQCHIP1_ENERGY.scale, '.3f'):>32}  watts in A  in B")
    for event in EVENTS:
        each = getattr(GROQCHIP1_ENERGY, event)
        watts = [point.parts_w[event] * GROQCHIP1_ENERGY.scale for point in (high, low)]
        click.echo(f"{event:>20} {each:11.2f}  {watts[0]:10.2f} {watts[1]:5.2f}")
    click.echo(f"{'idle':>20} {'':11}  {GROQCHIP1_ENERGY.idle_w:10.2f}")
    for name, point in zip("AB", found.points, strict=True):
        ours = point.power_w(GROQCHIP1_ENERGY)
        click.echo(f"{name}: {point.what}: {ours:.1f} W, published {point.published_w:.0f} W")
    used = f"scale {GROQCHIP1_ENERGY.scale:.3f} and idle {GROQCHIP1_ENERGY.idle_w:.1f} W"
    anew = f"{found.table.scale:.3f} and {found.table.idle_w:.1f} W would fit today's schedules"
    share = f"a share of {GROQCHIP1_ENERGY.system_w:.0f} W of hosts, fans and supplies"
    click.echo(f"{used} were fitted once to A and to B as a slower schedule; {anew}")
    click.echo(f"besides the chip: {share}")
