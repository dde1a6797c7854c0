"""`lpu replay TRACE`: traffic through a planned cluster, in virtual time."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.commands.parameters import (
    CHIPS,
    COUNT,
    FILE,
    IN_FLIGHT,
    JSONL_FILE,
    NAME,
    SEED,
    TOPOLOGY,
    FilePath,
    Finite,
    report_option,
    sums_option,
)
from cluster.files import check_writable
from cluster.planning.search import OBJECTIVES
from cluster.report.files import write_report
from cluster.report.page import Page
from cluster.runs.display import Bars, counted, print_rows, show_table

if TYPE_CHECKING:
    from cluster.serving.replays import Played

TIMELINE = FilePath(".json", ".json.gz")
RATE = Finite(min=1e-9, max=1e9)  # requests per second


@click.command("replay")
@click.argument("trace", type=FILE, required=False)
@click.option("--model", type=NAME, help="A name, a config.json, a folder or a GGUF file.")
@click.option("--chips", type=CHIPS, metavar="N", help="Chips there are (default: what it takes).")
@click.option("--tp", type=CHIPS, metavar="N", help="Tensor-parallel chips per stage.")
@click.option("--pp", type=CHIPS, metavar="N", help="Pipeline stages.")
@sums_option
@click.option(
    "--topology", type=TOPOLOGY, metavar="SPEC", help="Such as node, torus:4x4, dragonfly:576."
)
@click.option("--profile", type=NAME, metavar="NAME", help="Link profile (default by topology).")
@click.option("--link", "links", multiple=True, metavar="FIELD=VALUE",
              help="Override a field of the link or its profile.")  # fmt: skip
@click.option("--faults", metavar="WHAT",
              help="Dead parts to go around, e.g. link:0-1,chip:5,links:4:SEED.")  # fmt: skip
@click.option("--spec", type=NAME, default="groqchip1", show_default=True, help="Chip generation.")
@click.option("--weights", type=NAME, metavar="TYPE", help="fp16, int8 or w8a16.")
@click.option("--context", type=COUNT, metavar="TOKENS",
              help="Of a cache (default: of the longest request, or what fits).")  # fmt: skip
@click.option("--slots", "--concurrency", "slots", type=IN_FLIGHT, metavar="B",
              help="Sequences at a time (default: what fits, up to 16).")  # fmt: skip
@click.option("--objective", type=click.Choice(OBJECTIVES), default="latency", show_default=True)
@click.option("--load", metavar="LOAD",
              help="poisson:RATE, gamma:RATE:CV or closed:USERS, instead of a trace's arrivals.",
              )  # fmt: skip
@click.option("--lengths", metavar="IN:OUT",
              help="Tokens of each request; ~IN:~OUT are means; trace takes those of TRACE.",
              )  # fmt: skip
@click.option("--requests", type=COUNT, metavar="N", help="How many (default: of TRACE, or 1,000).")
@click.option("--rate", type=RATE, metavar="R",
              help="Move arrivals closer together or apart, to R requests a second.")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of --load and --lengths.")
@click.option("--policy", metavar="ORDER", default="prefill", show_default=True,
              help="prefill or decode goes first, or budget:TOKENS between decodes.")  # fmt: skip
@click.option("--prefix-cache/--no-prefix-cache", default=True, show_default=True,
              help="Start where a slot's caches hold the same prompt.")  # fmt: skip
@click.option("--kv-pages", type=COUNT, metavar="N",
              help="Pages of 320 tokens for all slots (default: full caches).")  # fmt: skip
@click.option("--slo", metavar="ttft=S,tpot=S", help="Bounds in seconds, for the goodput.")
@click.option("--find-rate", is_flag=True, help="The highest rate that 99 % of requests stand.")
@click.option("--find-chips", is_flag=True, help="The fewest chips for that, up to --chips.")
@click.option("--output", type=JSONL_FILE, metavar="FILE", help="Write a line for each request.")
@click.option("--trace", "timeline", type=TIMELINE, metavar="FILE",
              help="Write a timeline of stages and requests for Perfetto.")  # fmt: skip
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def replay_command(report_file: Path | None, as_json: bool, **given: Any) -> None:
    """Serve TRACE (Mooncake JSONL, Azure or BurstGPT CSV), or --load, by MODEL's plan."""
    from cluster.serving.replays import Options, run

    check_writable("--report", report_file)
    with Bars() as bars:
        played = run(Options(**given), bars.step)
        found = played.found
        if report_file:
            bars.step("report", 0, 0)
            write_report(report_file, found, lambda: _page(played))
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found)


def _page(played: "Played") -> Page:
    from cluster.report.replay_page import replay_page  # matplotlib is loaded for pages alone

    return replay_page(played)


def _show(found: dict[str, Any]) -> None:
    plan = found["plan"]
    rows = [
        (label, *(_ms(found[key][p]) for p in ("mean", "p50", "p90", "p99")))
        for label, key in (
            ("time to first token", "ttft_s"),
            ("time per output token", "tpot_s"),
            ("between two tokens", "itl_s"),
            ("whole request", "e2e_s"),
            ("of it waiting for a slot", "queue_s"),
        )
    ]
    busy, kv = found["utilisation"], found["kv"]
    joules = found["joules_per_token"]
    show_table(
        {
            "plan": f"{counted(plan['chips'], 'chip')} of {plan['topology']} ({plan['spec']}): "
            f"{counted(plan['pp'], 'stage')} x tp {plan['tp']}, {plan['weights']}",
            "caches": f"{plan['slots']} of {plan['context']:,} tokens",
            "load": found["load"],
            "requests": f"{found['requests']:,} in {found['seconds']:,.3f} s; "
            f"{found['rejected']:,} rejected, as longer than the context",
            **{f"note {n + 1}": text for n, text in enumerate(found["notes"])},
        }
    )
    print_rows(("ms", "mean", "p50", "p90", "p99"), rows)
    slo = ", ".join(f"{name} {bound * 1e3:g} ms" for name, bound in found["slo"].items())
    show_table(
        {
            "throughput": f"{found['requests_per_s']:,.3f} requests/s, "
            f"{found['output_tokens_per_s']:,.1f} output tokens/s",
            "goodput": f"{found['goodput_requests_per_s']:,.3f} requests/s within "
            f"{slo or 'no bound (--slo)'}",
            "prefix hits": f"{found['cached_prompt_tokens']:,} of {found['prompt_tokens']:,} "
            "tokens of prompts",
            "stages": f"busy {busy['stages_mean']:.1%} of the time, the busiest "
            f"{busy['stages_max']:.1%}",
            "links": f"between stages {busy['links']:.1%}, host link {busy['host_link']:.1%}",
            "caches in use": f"{kv['occupancy_mean']:.1%} of their pages, at most "
            f"{kv['occupancy_max']:.1%}; pre-empted "
            f"{counted(kv['preempted_recomputed'] + kv['preempted_spilled'], 'time')}",
            "energy": "unknown for this chip" if joules is None else f"{joules:.3g} J per token",
            "this host": f"{found['steps']:,} steps in {found['wall_s']:.3f} s",
            **_answers(found),
        }
    )


def _answers(found: dict[str, Any]) -> dict[str, str]:
    """What --find-rate and --find-chips have found."""
    said: dict[str, str] = {}
    if "rate" in found:
        said["highest rate"] = f"{found['rate']:,.3f} requests/s"
    if "chips_needed" in found:
        said["fewest chips"] = f"{found['chips_needed']:,}"
    return said


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.3f}"
