"""LPUs with GPUs, as `lpu plan` and `lpu compare` ask for and print them."""

from pathlib import Path

import click

from cluster.compiler.choose import PlanRequest
from cluster.errors import BadValue
from cluster.hybrid.answer import HEAD, WithGpus, cells, shown, with_gpus
from cluster.hybrid.between import between
from cluster.hybrid.gpus import gpus_of
from cluster.planning.cost_store import CostStore
from cluster.runs.display import print_rows

TEXT_COLUMNS = 80


def asked(prefill_on: str | None, afd: str | None, links: tuple[str, ...]) -> bool:
    """Whether GPUs are asked for; raises BadValue for options that are wrong by themselves."""
    if links and not (prefill_on or afd):
        raise BadValue("--between", links[0], "needs --prefill-on or --afd")
    between(links)
    for option, text in (("--prefill-on", prefill_on), ("--afd", afd)):
        if text is not None:
            gpus_of(option, text)
    return bool(prefill_on or afd)


def find_with_gpus(
    model: str,
    request: PlanRequest,
    prefill_on: str | None,
    afd: str | None,
    links: tuple[str, ...],
    store: CostStore | None = None,
) -> WithGpus:
    """Points of a model with the help that is asked for."""
    prompts = gpus_of("--prefill-on", prefill_on) if prefill_on else None
    attention = gpus_of("--afd", afd) if afd else None
    return with_gpus(model, request, between(links), prompts, attention, store)


def print_with_gpus(found: WithGpus) -> None:
    """The answer, a table of the best of each kind, and what the numbers are of."""
    click.echo(found.answer)
    rows = []
    for kind, points in shown(found).items():
        rows.append((kind, *[""] * (len(HEAD) - 1)))
        rows += [(f"  {first}", *rest) for first, *rest in map(cells, points)]
    print_rows(HEAD, rows)
    for note in found.notes:
        click.echo(click.wrap_text(note, TEXT_COLUMNS))


def draw_with_gpus(found: WithGpus, title: str, path: Path) -> None:
    """Write the picture of all points: tokens/s of a megawatt over tokens/s of each user."""
    from cluster.hybrid.plot import draw

    draw(found, title, path)
