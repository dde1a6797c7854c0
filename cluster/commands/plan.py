"""`lpu plan MODEL`: timing and capacity of a model on a cluster, without running anything."""

import json
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chip.collection import uncollected
from cluster.commands.guessing import asked_guessing, guessing_lines
from cluster.commands.parameters import (
    CHIPS,
    COUNT,
    IN_FLIGHT,
    NAME,
    ROWS,
    TOPOLOGY,
    gpu_options,
    guess_options,
    report_option,
    sums_option,
    trace_options,
)
from cluster.compiler.choose import PlanRequest
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.files import check_writable
from cluster.model.fetch import cache_folder
from cluster.planning.companions import shared_store
from cluster.planning.planner import Planned, make, report, reported
from cluster.planning.search import OBJECTIVES
from cluster.runs.display import Bars, counted, print_rows, show_table
from cluster.runs.distance import distance_line
from topology.collectives.sums import FP32

if TYPE_CHECKING:
    from cluster.report.page import Page

BAR = 24
KINDS = {"weights": "#", "kv_cache": "=", "activations": "+", "network": "~", "programs": ":"}
STAGES_SHOWN = 8
RANGES_SHOWN = 5  # of the chips of a stage


@click.command("plan")
@click.argument("model", type=NAME)
@click.option("--chips", type=CHIPS, metavar="N", help="Chips there are (default: what it takes).")
@click.option("--tp", type=CHIPS, metavar="N", help="Tensor-parallel chips per stage.")
@click.option("--pp", type=CHIPS, metavar="N", help="Pipeline stages.")
@click.option("--ep", type=CHIPS, metavar="N",
              help="Spread experts over N times tp chips of a stage.")  # fmt: skip
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
@click.option("--weights", type=NAME, metavar="TYPE",
              help="fp16, int8 or w8a16 (int8, activations of 16 bits); default: fp16, or int8 "
              "if published in 8 bits or on chips too few.")  # fmt: skip
@click.option("--context", type=COUNT, default=CONTEXT_BLOCK, show_default=True, metavar="TOKENS")
@click.option("--batch", type=IN_FLIGHT, default=1, show_default=True, metavar="B",
              help="Sequences in flight, each with caches of its own.")  # fmt: skip
@click.option("--rows-per-launch", "rows", type=ROWS, metavar="R",
              help="Sequences that share a decode launch (default: what serves the objective).",
              )  # fmt: skip
@click.option("--prompt-tokens", type=COUNT, metavar="N",
              help="For the time to the first token (default 128).")  # fmt: skip
@click.option("--objective", type=click.Choice(OBJECTIVES), default="latency", show_default=True)
@guess_options
@gpu_options
@trace_options
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@uncollected(stays=True)
def plan_command(
    model: str,
    acceptance: float | None,
    draft: str | None,
    draft_tokens: int | None,
    prefill_on: str | None,
    afd: str | None,
    between: tuple[str, ...],
    trace: Path | None,
    trace_level: str,
    trace_chips: tuple[int, ...] | None,
    report_file: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the best plan for MODEL (a name, a config.json, a folder, a GGUF file) and time it."""
    # GPUs, pages and timelines are loaded when they are asked for: plans are quick to begin
    mixed = False
    if prefill_on or afd or between:
        from cluster.commands.with_gpus import asked, find_with_gpus, print_with_gpus

        mixed = asked(prefill_on, afd, between)
    guessing = asked_guessing(acceptance, draft, draft_tokens)
    check_writable("--trace", trace)
    check_writable("--report", report_file)
    folder = cache_folder() / "costs"
    request, made = PlanRequest(**given), count(1)
    work = partial(reported, model, request)
    with (
        Bars() as bars,
        shared_store(folder, work, lambda: bars.step("plan", next(made), 0)) as store,
    ):
        bars.step("plan", 0, 0)
        planned = make(model, request, store)
        found, together = report(planned), None
        if mixed:
            together = find_with_gpus(model, request, prefill_on, afd, between, store)
            found["with_gpus"] = together.report()
        if guessing:
            from cluster.planning.speculation import speculated

            gain = speculated(model, request, guessing, planned, store)
            found["speculation"] = gain.report()
        if trace:
            from cluster.tracing.files import write_timeline
            from cluster.tracing.launch import plan_timeline

            bars.step("trace", 0, 0)
            write_timeline(trace, plan_timeline(planned.timed, trace_level, trace_chips))
        if report_file:
            from cluster.report.files import write_report

            bars.step("report", 0, 0)
            write_report(report_file, found, lambda: _page(planned, found))
    if as_json:
        click.echo(json.dumps(found))
        return
    _show(found)
    if together:
        print_with_gpus(together)


def _page(planned: Planned, found: dict[str, Any]) -> "Page":
    from cluster.report.plan_page import plan_page  # matplotlib is loaded for pages alone

    return plan_page(planned, found)


def _show(found: dict[str, Any]) -> None:
    plan, ms = found["plan"], 1e3 / found["clock_hz"]
    cycles = found["cycles_per_token"]
    show_table(
        {
            "plan": _chips(plan),
            "token": f"{cycles:,} cycles, {cycles * ms:.3f} ms; context {plan['context']}",
            "speed": f"{found['tokens_per_s_per_user']:,.1f} tokens/s per user, "
            f"{found['tokens_per_s_total']:,.1f} in all with {plan['batch']} in flight",
            "first token": f"{found['time_to_first_token_s'] * 1e3:.3f} ms after a prompt of "
            f"{found['prompt_tokens']} tokens, in chunks of {plan['prefill_chunk']}",
            **_in_flight(found),
            **guessing_lines(found),
            **_experts(found),
            "hardware": distance_line(found),
            "energy": _energy(found),
            "placement": _placement(found["placement"]),
            "bottleneck": found["bottleneck"],
            **{f"note {n + 1}": text for n, text in enumerate(found["notes"])},
        }
    )
    _breakdown(found)
    _stages(plan)
    if found["alternatives"]:
        _alternatives(found)


def _chips(plan: dict[str, Any]) -> str:
    """What the chips of the graph do, all of them."""
    ep = f" x ep {plan['ep']}" * (plan["ep"] > 1)
    sums = f", sums between nodes {plan['sums_between_nodes']}"
    ep += sums * (plan["sums_between_nodes"] != FP32)
    where = (
        f"{counted(plan['chips'], 'chip')} of {plan['topology']}: "
        f"{counted(plan['pp'], 'stage')} x tp {plan['tp']}{ep}"
    )
    passing = len(plan["transit_chips"])
    others = [f"{passing:,} that only forward what others send"] if passing else []
    return ", ".join([where, *others, f"{plan['spare_chips']:,} spare"])


def _in_flight(found: dict[str, Any]) -> dict[str, str]:
    """What more sequences at a time bring, for a plan of several."""
    if "pipeline" not in found:
        return {}
    rates = found["pipeline"]["tokens_per_s_total_by_concurrency"]
    text = ", ".join(f"{rate:,.0f} with {count}" for count, rate in rates.items())
    count = -(-found["plan"]["batch"] // found["rows_per_launch"])
    launches = f"{count:,} launch" + ("" if count == 1 else "es")
    step = f"{launches} of {counted(found['rows_per_launch'], 'row')} under way, a step is "
    return {"in flight": f"tokens/s: {text}; {step}{found['interval_cycles']:,} cycles"}


def _experts(found: dict[str, Any]) -> dict[str, str]:
    """Where the experts of a mixture rest, and how many of them run for a token."""
    if "experts" not in found["plan"]:
        return {}
    mine, tp = found["plan"]["experts"], found["plan"]["tp"]
    where = f"{mine['per_rank']:.3g} of {mine['count']} on each rank"
    if mine["ep"] > 1:
        where = f"{mine['count'] // mine['ep']} of {mine['count']} on each of {mine['ep']} parts"
        run = f"each runs {mine['run']} for every token, as one may hold all that it chooses"
        return {"experts": f"{where}; {run}: the FFN's {found['breakdown']['ffn']:,} cycles"}
    if mine["run"] < mine["count"]:
        where = f"a part of all {mine['count']} on each rank" if tp > 1 else where
    else:
        where += ", whole" if mine["whole"] else f", cut, as tp {tp} does not divide them"
    run = f"{mine['run']} run for every token, which chooses {mine['chosen']}"
    return {"experts": f"{where}; {run}: the FFN's {found['breakdown']['ffn']:,} cycles"}


def _energy(found: dict[str, Any]) -> str:
    joules = found["joules_per_token"]
    if joules is None:
        return "unknown for this chip"
    full = found["energy"]["full_pipeline"]["joules_per_token"]
    batch = found["plan"]["batch"]
    busy = f"with {batch:,} in flight" if batch > 1 else "with all stages busy"
    return f"{joules:.3g} J per token for one user, {full:.3g} J {busy} (modelled)"


def _placement(found: dict[str, Any]) -> str:
    best = "no placement has fewer"
    if not found["best_possible"]:
        best = f"at most {found['gap']:.0%} above the fewest there can be"
    hops = counted(found["hops"], "hop")
    return f"{hops} between chips that talk, those of all-reduces counted 4 times; {best}"


def _breakdown(found: dict[str, Any]) -> None:
    rows = [
        (name.replace("_", " "), f"{cycles:,}", f"{cycles / found['cycles_per_token']:.1%}")
        for name, cycles in found["breakdown"].items()
    ]
    print_rows(("a token's cycles go to", "cycles", "share"), rows)


def _stages(plan: dict[str, Any]) -> None:
    stages, rows = plan["stages"], []
    shown = list(range(len(stages)))
    if len(stages) > STAGES_SHOWN:
        shown = [*range(STAGES_SHOWN - 2), len(stages) - 1]
    for number in shown:
        stage = stages[number]
        layers = f"{stage['layers']}{' + head' if stage['head'] else ''}"
        bar = _bar(stage["sram"], plan["sram_bytes_of_a_chip"])
        mib = f"{stage['sram_bytes'] / 2**20:.1f}"
        rows.append((number, layers, _chip_ranges(stage["chips"]), mib, bar))
    print_rows(("stage", "layers", "chips", "MiB of each", "of its SRAM"), rows)
    legend = ", ".join(f"{sign} {name.replace('_', ' ')}" for name, sign in KINDS.items())
    between = len(stages) - len(shown)
    more = f"; {counted(between, 'stage')} like these before the last" if between else ""
    click.echo(f"SRAM: {legend}{more}")
    left, size = plan["sram_unused"], plan["sram_bytes_of_a_chip"]
    click.echo(
        f"the fullest leaves {left['bytes'] / size:.1%}, and {left['padding_bytes'] / size:.1%} is "
        f"padding: {left['why']}\n"
    )


def _chip_ranges(chips: list[int]) -> str:
    """Chips of a stage, neighbours in number as ranges.

    >>> _chip_ranges([0, 1, 2, 7, 9, 10]), _chip_ranges(list(range(0, 40, 2)))
    ('0-2, 7, 9-10', '0, 2, 4, 6, ... 38')
    """
    runs: list[list[int]] = []
    for chip in sorted(chips):
        if runs and chip == runs[-1][-1] + 1:
            runs[-1][1:] = [chip]
        else:
            runs.append([chip])
    texts = ["-".join(map(str, run)) for run in runs]
    if len(texts) > RANGES_SHOWN:
        texts = [*texts[: RANGES_SHOWN - 1], f"... {texts[-1]}"]
    return ", ".join(texts)


def _bar(kinds: dict[str, int], size: int) -> str:
    text, total = "", 0
    for name, sign in KINDS.items():
        total += kinds[name]
        text += sign * (round(total / size * BAR) - len(text))
    return text.ljust(BAR, ".")


def _alternatives(found: dict[str, Any]) -> None:
    rows = [
        (
            f"{counted(other['pp'], 'stage')} x tp {other['tp']}",
            f"{other['chips']:,}",
            f"{other['cycles_per_token']:,}",
            f"{other['slower'] - 1:+.1%}",
            other["limited_by"],
        )
        for other in found["alternatives"]
    ]
    print_rows(("next best", "chips", "cycles per token", "slower", "limited by"), rows)
