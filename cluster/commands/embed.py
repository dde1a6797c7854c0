"""`lpu embed MODEL`: sentence embeddings of a BERT-like encoder on emulated chips."""

import json
from typing import Any

import click
import numpy as np

from cluster.commands.parameters import CHIPS, COUNT, NAME, TOPOLOGY, FilePath
from cluster.compiler.limits import WEIGHT_TYPES
from cluster.encoders.embedding import Options, embed_sentences
from cluster.runs.display import Bars, counted, show_table

FAILED = 1


@click.command("embed")
@click.argument("model", type=NAME, metavar="MODEL")
@click.option("--text", "texts", multiple=True, required=True, help="A sentence; give it often.")
@click.option("--tokens", type=COUNT, help="Longest sequence to prepare for (default: as needed).")
@click.option("--chips", type=CHIPS, help="Chips, a stage of whole layers each (default: fewest).")
@click.option(
    "--topology", type=TOPOLOGY, metavar="SPEC", help="Topology (default: a node, else a ring)."
)
@click.option("--spec", type=NAME, default="groqchip1", show_default=True, metavar="CHIP")
@click.option("--weights", type=click.Choice(list(WEIGHT_TYPES)), default="fp16",
              show_default=True, help="Their type; int8 makes activations int8, too, int8-static "
              "with steps found before.")  # fmt: skip
@click.option("--calibration", type=FilePath(), metavar="FILE",
              help="Sentences, one a line, that give int8-static its steps (default: ten of ours)."
              )  # fmt: skip
@click.option("--machine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--check", is_flag=True, help="Compare with a float32 reference; exit 1 if it fails.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def embed_command(as_json: bool, **options: Any) -> int:
    """Embed sentences with MODEL (minilm, or tiny-encoder with random weights)."""
    with Bars() as bars:
        report = embed_sentences(Options(**options), bars)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report)
    return FAILED if report.get("ok") is False else 0


def _print(report: dict[str, Any]) -> None:
    vectors = np.array(report["embeddings"])
    for text, similar in zip(report["texts"], vectors @ vectors.T, strict=True):
        row = " ".join(f"{value:6.3f}" for value in similar)
        click.echo(f"{row}  {text[:60]}")
    plan, fast = report["plan"], report["emulated"]
    cycles = ", ".join(f"{n:,}" for n in sorted(set(fast["cycles"])))
    lines = {
        "plan": f"{counted(plan['chips'], 'chip')} on {plan['topology']}, layers {plan['layers']}, "
        f"{plan['weights']}, at most {plan['sram_bytes_max'] / 2**20:.1f} MiB of SRAM each",
        "encode": f"{cycles} cycles per sentence at {fast['clock_hz'] / 1e6:,.0f} MHz",
        "digest": report["digest"],
    }
    if "reference" in report:
        lines["check"] = f"cosine to the float32 reference at least {min(report['reference']):.6f}"
    show_table(lines)
