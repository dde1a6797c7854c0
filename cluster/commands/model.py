"""`lpu models`: what can be run and planned. `lpu model NAME`: one of them, as its graph."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from chip.own_spec import find
from chip.spec import ChipSpec
from cluster.commands.parameters import CHIPS, NAME, PICTURE
from cluster.errors import BadValue
from cluster.model.describe import as_data, line, lines, titled
from cluster.model.graph.counts import MATRIX_BYTES
from cluster.model.graph.graph import Model
from cluster.model.known import known_model, known_models
from cluster.model.load import FETCHED, RANDOM, find_model
from cluster.runs.display import print_rows

SHOWN = ("fp16", "int8")  # of a list of models: types of weights of different sizes


@dataclass(frozen=True)
class View:
    """What a later stage of the compiler is shown for."""

    tp: int
    spec: ChipSpec
    weights: str = "fp16"


def _graph(model: Model, view: View) -> Iterator[str]:
    return lines(model)


def _sharded(model: Model, view: View) -> Iterator[str]:
    """Ops as every rank runs them, with how ranks hold each value and what rank 0 has of it."""
    from cluster.compiler.shard import shard

    yield f"{model.name} on tensor-parallel groups of {view.tp}; sizes are rank 0's"
    for title, section in titled(model):
        cut = shard(section, view.tp)
        yield f"\n{title}"
        for op in cut.section.ops:
            held = cut.spread(op.out)
            sizes = " x ".join(str(dim.size) for dim in cut.local(op.out, 0))
            yield f"  {line(op)}  {held.value}: {sizes or 1}"


def _memory(model: Model, view: View) -> Iterator[str]:
    from cluster.commands.stage_lines import memory_lines

    return memory_lines(model, view.tp, view.spec, view.weights)


def _schedule(model: Model, view: View) -> Iterator[str]:
    from cluster.commands.stage_lines import schedule_lines

    return schedule_lines(model, view.tp, view.spec, view.weights)


# What `--stage` prints, in the order of the passes.
STAGES: dict[str, Callable[[Model, View], Iterator[str]]] = {
    "graph": _graph, "sharded": _sharded, "memory": _memory, "schedule": _schedule,
}  # fmt: skip


@click.command("models")
@click.option("--spec", type=NAME, default="groqchip1", show_default=True, help="Chip to count.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models_command(spec: str, as_json: bool) -> None:
    """List the models that are known by name, with their parameters and the chips they need."""
    chip = find(spec)
    rows = [_summary(known_model(name), chip) for name in known_models()]
    if as_json:
        click.echo(json.dumps({"spec": chip.name, "models": rows}))
        return
    head = ("model", "family", "params", "use", *SHOWN)
    print_rows(head, (_row(row) for row in rows))
    click.echo(f"fp16, int8: chips that parameters take at least, by the SRAM of {chip.name}; what")
    click.echo("a plan needs besides is said by `lpu plan`, which takes all but those to embed.")
    click.echo("files: runs from a GGUF file or a Hugging Face folder, as any of its family.")


def _summary(model: Model, spec: ChipSpec) -> dict[str, Any]:
    known = known_models()[model.name]
    held = {kind: model.chip_parameters * MATRIX_BYTES[kind] for kind in SHOWN}
    chips = {kind: -(-size // spec.sram_bytes) for kind, size in held.items()}
    return {
        "name": model.name,
        "aliases": list(known.aliases),
        "architecture": model.architecture,
        "parameters": model.parameters,
        "context_max": model.context_max,
        "for": _use(model),
        "chips_at_least": chips,
        "source": known.source,
        "notes": list(model.stand_in.notes) if model.stand_in else [],
    }


def _use(model: Model) -> list[str]:
    """The commands for a model; what is not fetched runs from files."""
    if not model.has_logits:
        return ["embed"]
    own = model.name in (*FETCHED, *RANDOM)
    runs = [] if model.stand_in else ["run" if own else "run from files"]
    return [*runs, "plan"]


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    names = ", ".join((row["name"], *row["aliases"]))
    chips = row["chips_at_least"]
    use = {"run from files": "files"}.get(row["for"][0], row["for"][0])
    size = row["architecture"], _count(row["parameters"]), use
    return names, *size, f"{chips['fp16']:,}", f"{chips['int8']:,}"


def _count(number: int) -> str:
    """A number of parameters in three digits: 8.19 B."""
    for power, unit in ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " K")):
        if number >= power:
            return f"{number / power:.{2 if number < 10 * power else 1}f}{unit}"
    return str(number)


@click.command("model")
@click.argument("name", metavar="MODEL")
@click.option("--stage", type=click.Choice(list(STAGES)), default="graph", show_default=True,
              help="How far to compile.")  # fmt: skip
@click.option("--tp", type=CHIPS, default=1, show_default=True,
              help="Ranks of a tensor-parallel group, for stages behind the graph.")  # fmt: skip
@click.option("--spec", type=NAME, default="groqchip1", show_default=True, help="Chip.")
@click.option("--weights", type=click.Choice(list(MATRIX_BYTES)), default="fp16", show_default=True,
              help="Their type, for memory and schedule.")  # fmt: skip
@click.option("--draw", "picture", type=PICTURE, metavar="FILE.svg",
              help="Draw the graph of a layer of each kind.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def model_command(
    name: str, stage: str, tp: int, spec: str, weights: str, picture: Path | None, as_json: bool
) -> None:
    """Print the graph of a MODEL: a known name, a GGUF file, a config.json or its folder."""
    model, view = find_model(name), View(tp, find(spec), weights)
    if not 1 <= tp <= max(1, model.size("heads")):
        raise BadValue("--tp", tp, f"must be 1 to {model.size('heads')}, the heads of {model.name}")
    text = list(STAGES[stage](model, view))
    if picture is not None:
        from cluster.model.drawing import draw

        draw(model, picture)
    if as_json:
        click.echo(json.dumps(as_data(model) | {"stage": stage, "lines": text}))
    else:
        click.echo("\n".join(text))
