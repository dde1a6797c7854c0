"""`lpu serve MODEL`: an OpenAI-compatible endpoint on an emulated cluster."""

import time
from typing import Any

import click

from cluster.commands.parameters import (
    CHIPS,
    COUNT,
    IN_FLIGHT,
    NAME,
    TOPOLOGY,
    ByteCount,
    Finite,
    sums_option,
)
from cluster.commands.run import CountOrAuto
from cluster.compiler.limits import DECODER_TYPES
from cluster.runs.display import Bars
from cluster.serving.openai.service import NONE, SLOTS, Options, serve

PORT = click.IntRange(min=0, max=65535)
SECONDS = click.IntRange(min=0, max=86400)
QUEUE = click.IntRange(min=0, max=1 << 20)
SPEED = Finite(min=1e-6, max=1e6)


@click.command("serve")
@click.argument("model", type=NAME, default="smollm2")
@click.option("--host", type=NAME, default="127.0.0.1", show_default=True,
              help="Address to listen on.")  # fmt: skip
@click.option("--port", type=PORT, default=8000, show_default=True, help="0: any free one.")
@click.option("--api-key", type=NAME, metavar="KEY", help="Clients must send it (default: none).")
@click.option("--concurrency", type=IN_FLIGHT, metavar="SLOTS",
              help=f"Sequences in flight at a time; others wait (default {SLOTS}).")  # fmt: skip
@click.option("--queue", type=QUEUE, default=1024, show_default=True, metavar="N",
              help="Requests that may wait; others get 429.")  # fmt: skip
@click.option("--context", type=COUNT, metavar="TOKENS",
              help="Of prompt and answer (default 640, or the model's).")  # fmt: skip
@click.option("--prefix-cache/--no-prefix-cache", default=True, show_default=True,
              help="Start where a slot's caches hold the same prompt.")  # fmt: skip
@click.option("--kv-pages", type=COUNT, metavar="N",
              help="Pages of 320 tokens for all slots (default: full caches).")  # fmt: skip
@click.option("--max-body", "body_bytes", type=ByteCount(), default="4MiB", show_default=True,
              metavar="BYTES", help="Of a request.")  # fmt: skip
@click.option("--drain", "drain_s", type=SECONDS, default=60, show_default=True, metavar="SECONDS",
              help="For answers to end after SIGTERM.")  # fmt: skip
@click.option("--embeddings", type=NAME, default="minilm", show_default=True, metavar="MODEL",
              help=f"Encoder, loaded when first asked for; or {NONE}.")  # fmt: skip
@click.option("--timing-of", type=NAME, metavar="MODEL",
              help="Answer in the times of this model's plan, which need not run here.",
              )  # fmt: skip
@click.option("--text", type=NAME, metavar="smollm2|echo|random",
              help="Where words come from then: a model (default MODEL), the prompt, or chance.",
              )  # fmt: skip
@click.option("--speed", type=SPEED, metavar="X",
              help="Emulated seconds in one of the wall (default: 1 with --timing-of, else "
              "as fast as the host).")  # fmt: skip
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
@click.option("--weights", type=click.Choice(DECODER_TYPES), help="Their type (default fp16).")
@click.option("--machine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--chips-per-actor", type=CountOrAuto(), metavar="K",
              help="Chips in one Ray actor (1); auto: an actor per CPU.")  # fmt: skip
@click.option("--address", type=NAME, help="A running Ray cluster (default: one of our own).")
@click.pass_context
def serve_command(ctx: click.Context, /, **given: Any) -> None:
    """Serve MODEL (smollm2, a GGUF file, a folder, minilm) to clients of OpenAI and Groq."""
    options = Options(**given).check()
    start = ctx.obj if isinstance(ctx.obj, float) else time.perf_counter()
    with Bars() as bars:
        serve(options, start, bars)
