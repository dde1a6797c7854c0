"""`lpu run MODEL`: generate text on an emulated cluster."""

import json
import time
from typing import Any

import click

from cluster.commands.parameters import (
    CHIPS,
    COUNT,
    DRIFT,
    FILE,
    GUESSES,
    IN_FLIGHT,
    JSONL_FILE,
    NAME,
    REPORT_FILE,
    ROWS,
    SEED,
    TOPOLOGY,
    sums_option,
    trace_options,
)
from cluster.compiler.limits import CONTEXT_BLOCK, DECODER_TYPES
from cluster.machines.ray.capacity import AUTO
from cluster.runs.display import Bars, show_table
from cluster.runs.many import summary_of_many
from cluster.runs.report import summary
from cluster.runs.running import CHECKPOINT_LAUNCHES, NEW_TOKENS, Options, generate


class CountOrAuto(click.ParamType[int | str]):
    """A number from 1 on, or `auto`."""

    name = "count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or `auto`."""
        return AUTO if value == AUTO else COUNT.convert(value, param, ctx)


@click.command("run")
@click.argument("model", type=NAME)
@click.option("--prompt", metavar="TEXT", help="What to say to the model.")
@click.option("--raw", is_flag=True, help="Take the prompt as it is, without the chat template.")
@click.option("--prompt-ids", metavar="1,2,3", help="The prompt as token ids.")
@click.option("--prompts", type=FILE, metavar="FILE", help="A prompt a line; all are answered.")
@click.option("--output", type=JSONL_FILE, metavar="FILE",
              help="Write each answer to --prompts as a line of JSON, when it is whole.",
              )  # fmt: skip
@click.option("--concurrency", type=IN_FLIGHT, default=1, show_default=True,
              metavar="B", help="Sequences in flight at a time, of --prompts.")  # fmt: skip
@click.option("--rows-per-launch", "rows", type=ROWS, metavar="R",
              help="Of these, those that share a decode launch (default: as lpu plan says).",
              )  # fmt: skip
@click.option("--max-new-tokens", type=COUNT, metavar="N",
              help=f"Tokens to generate at most (default {NEW_TOKENS}, or what fits).")  # fmt: skip
@click.option("--temperature", type=float, default=0.0, show_default="0, greedy")
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the sampling.")
@click.option("--logprobs", type=COUNT, metavar="K",
              help="Say how likely each token was, and the K likeliest ones.")  # fmt: skip
@click.option("--draft", type=NAME, metavar="WHAT",
              help="Guess tokens ahead: by ngram:N, or by a model such as smollm2-int8.",
              )  # fmt: skip
@click.option("--draft-tokens", type=GUESSES, default=4, show_default=True, metavar="K",
              help="Guesses under way at most.")  # fmt: skip
@click.option("--chips", type=CHIPS, metavar="N", help="Chips (default: the fewest that fit).")
@click.option("--tp", type=CHIPS, metavar="N", help="Tensor-parallel chips per stage.")
@click.option("--pp", type=CHIPS, metavar="N", help="Pipeline stages.")
@click.option("--ep", type=CHIPS, metavar="N",
              help="Spread experts over N times tp chips of a stage.")  # fmt: skip
@sums_option
@click.option("--topology", type=TOPOLOGY, metavar="SPEC",
              help="Such as node, ring:16, torus:4x4 (default: one that fits).")  # fmt: skip
@click.option("--profile", type=NAME, metavar="NAME", help="Link profile (default by topology).")
@click.option("--link", "links", multiple=True, metavar="FIELD=VALUE",
              help="Override a field of the link or its profile.")  # fmt: skip
@click.option("--faults", metavar="LIST",
              help="Dead parts to go around, e.g. link:0-1,chip:5,links:4:SEED.")  # fmt: skip
@click.option("--spec", type=NAME, default="groqchip1", show_default=True, help="Chip generation.")
@click.option("--weights", type=click.Choice(DECODER_TYPES), default="fp16",
              show_default=True, help="Their type; int8 makes activations int8, too, w8a16 16 "
              "bits of which each half is int8.")  # fmt: skip
@click.option("--accuracy", is_flag=True,
              help="Say how far logits are from float32, which this host computes.")  # fmt: skip
@click.option("--context", type=COUNT, default=CONTEXT_BLOCK, show_default=True, metavar="TOKENS")
@click.option("--machine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--chips-per-actor", type=CountOrAuto(), metavar="K",
              help="Chips in one Ray actor (1); auto: an actor per CPU.")  # fmt: skip
@click.option("--address", type=NAME, help="A running Ray cluster (default: one of our own).")
@click.option("--checkpoint", type=FILE, metavar="DIR", help="Keep what a --resume needs.")
@click.option("--checkpoint-every", type=COUNT, default=CHECKPOINT_LAUNCHES, show_default=True,
              metavar="N", help="Launches between checkpoints.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where the run of --checkpoint has ended.")
@click.option("--drift-ppm", type=DRIFT, metavar="X",
              help="How far oscillators really are off (default: as the schedule is made for).",
              )  # fmt: skip
@click.option("--jitter-cycles", type=DRIFT, metavar="X",
              help="Standard deviation of link jitter, really (default 2.8, as measured).",
              )  # fmt: skip
@click.option("--jitter-seed", type=SEED, default=0, show_default=True,
              help="Of oscillators and jitter.")  # fmt: skip
@click.option("--design-drift-ppm", type=DRIFT, metavar="X",
              help="How far the schedule lets them be off (default 50).")  # fmt: skip
@trace_options
@click.option("--report", type=REPORT_FILE, metavar="FILE",
              help="Write a page to look at (.html), or the JSON object (.json).")  # fmt: skip
@click.option("--record", type=FILE, metavar="DIR", help="Write all that a replay needs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_context
def run_command(ctx: click.Context, /, **given: Any) -> None:
    """Run MODEL (smollm2, a GGUF file or a Hugging Face folder) and print what it says."""
    options = Options(**given).check()
    start = ctx.obj if isinstance(ctx.obj, float) else time.perf_counter()
    with Bars() as bars:
        report = generate(options, start, bars)
    if options.as_json:
        click.echo(json.dumps(report))
    else:
        click.echo("\n")
        show_table(summary_of_many(report) if options.prompts or options.draft else summary(report))
