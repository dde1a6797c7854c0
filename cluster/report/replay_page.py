"""The page of a replay: what its requests waited for, and the plan that served them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from cluster.planning.planner import report
from cluster.report.page import Block, Drawing, Page, Section, Table, Text
from cluster.report.plan_page import hardware
from cluster.report.plots import Line, bars, lines
from cluster.report.reproduce import command_line, versions
from cluster.runs.display import counted
from cluster.serving.core import columns as c
from cluster.serving.replay import Outcome
from cluster.serving.replays import Played
from cluster.serving.traffic import Seconds

LATENCIES = {
    "time to the first token": "ttft_s", "time per output token": "tpot_s",
    "between two tokens": "itl_s", "whole request": "e2e_s", "of it waiting for a slot": "queue_s",
}  # fmt: skip
SHOWN = ("mean", "p50", "p90", "p99", "max")
POINTS = 120  # of a curve, at most
SAME = 1.01  # latencies that are so near each other are one
MOST_BARS = 24  # stages; more are a curve


def replay_page(played: Played) -> Page:
    """The page of a replay."""
    found, outcome = played.found, played.outcome
    sections = [
        Section("Latencies", (_latencies(found), *_distributions(outcome))),
        Section("Requests over time", (_over_time(outcome),)),
        Section("The traffic and what served it", (_facts(found), Text.of(*found["notes"]))),
        _busy(found),
        *hardware(played.cluster.planned, report(played.cluster.planned)),
    ]
    plan = found["plan"]
    title = (
        f"{found['model']} on {counted(plan['chips'], 'chip')} of {plan['topology']}, under load"
    )
    return Page(title, _answer(found), sections, command_line(), versions(), found)


def _answer(found: Mapping[str, Any]) -> str:
    """Goodput first, where bounds say what is good."""
    count, first, plan = found["requests"], found["ttft_s"], found["plan"]
    requests = counted(count, "request")
    where = f"{found['model']} on {counted(plan['chips'], 'chip')} of {plan['topology']}"
    speeds = (
        f"half of the first tokens come within {first['p50'] * 1e3:,.3g} ms, 99 % within "
        f"{first['p99'] * 1e3:,.3g} ms"
    )
    rates = f"{found['output_tokens_per_s']:,.0f} tokens/s in all"
    if not found["slo"]:
        return f"{where} serves {requests} of {found['load']} with {rates}: {speeds}."
    bounds = " and ".join(f"{name} {bound * 1e3:g} ms" for name, bound in found["slo"].items())
    return (
        f"{where} keeps {found['slo_met']:,} of {requests} of {found['load']} within {bounds}, a "
        f"goodput of {found['goodput_requests_per_s']:,.3g} requests/s. It gives {rates}; {speeds}."
    )


def _latencies(found: Mapping[str, Any]) -> Table:
    rows = [
        (what, *("" if (s := found[key][name]) is None else f"{s * 1e3:,.3f}" for name in SHOWN))
        for what, key in LATENCIES.items()
    ]
    return Table(("ms", *SHOWN), rows)


def _distributions(outcome: Outcome) -> list[Drawing]:
    """Shares of requests over their latencies."""
    found = []
    for name, values in (
        ("time to the first token", outcome.ttft_s),
        ("time per output token", outcome.tpot_s),
    ):
        known = np.sort(values[~np.isnan(values)]) * 1e3
        if len(known) < 2 or known[-1] < known[0] * SAME:
            continue  # there is no distribution to draw
        at = np.unique(np.linspace(0, len(known) - 1, min(len(known), POINTS)).astype(int))
        x, y = known[at], 100 * (at + 1) / len(known)
        wide = x[0] > 0 and x[-1] > 20 * x[0]
        line = Line(name, x.tolist(), y.tolist(), marker="")
        label = f"ms, {name}"
        found.append(lines([line], label, "% of requests, at most", log="x" if wide else ""))
    return found


def _over_time(outcome: Outcome) -> Drawing:
    """How many requests have come and not ended, and how many of them have a slot, at most."""
    edges_s = np.linspace(0.0, outcome.end_s, POINTS + 1)
    last = outcome.time_s(c.LAST)

    def most(since: Seconds) -> list[float]:
        at_s = np.concatenate([since, last])
        order = np.argsort(at_s, kind="stable")
        inside = np.cumsum(np.repeat([1, -1], len(since))[order])
        ends = np.searchsorted(at_s[order], edges_s, side="right")
        return [float(inside[max(0, i - 1) : max(j, 1)].max()) for i, j in pairwise(ends)]

    middle_s = ((edges_s[1:] + edges_s[:-1]) / 2).tolist()
    return lines(
        [Line("arrived, not ended", middle_s, most(outcome.time_s(c.ARRIVES)), marker=""),
         Line("of them in a slot", middle_s, most(outcome.time_s(c.ENTERED)), marker="")],
        "seconds of virtual time", "requests, at most",
    )  # fmt: skip


def _facts(found: Mapping[str, Any]) -> Table:
    plan, kv, joules = found["plan"], found["kv"], found["joules_per_token"]
    rows = [
        ("plan", f"{counted(plan['pp'], 'stage')} x tp {plan['tp']} on {plan['spec']}, "
                 f"{plan['weights']}"),
        ("caches", f"of {counted(plan['slots'], 'sequence')} of {plan['context']:,} tokens; "
                   f"{kv['occupancy_mean']:.1%} of their pages in use, "
                   f"at most {kv['occupancy_max']:.1%}"),
        ("load", f"{found['load']}: {found['requests']:,} requests in {found['seconds']:,.3f} s, "
                 f"{found['rejected']:,} rejected as longer than the context"),
        ("prompts", f"{found['prompt_tokens']:,} tokens, {found['cached_prompt_tokens']:,} of them "
                    "found in the caches"),
        ("answers", f"{found['output_tokens']:,} tokens, {found['output_tokens_per_s']:,.1f} a "
                    "second"),
        ("energy of the chips", "unknown" if joules is None else f"{joules:.3g} J per token"),
    ]  # fmt: skip
    for key, what in (("rate", "highest rate"), ("chips_needed", "fewest chips")):
        if key in found:
            rows.append((what, f"{found[key]:,.6g}"))
    return Table(("what", "how much"), rows)


def _busy(found: Mapping[str, Any]) -> Section:
    """How busy stages and links are."""
    busy = found["utilisation"]
    shares = [100 * share for share in busy["stages"]]
    said = (
        f"Stages compute {busy['stages_mean']:.1%} of the time, the busiest "
        f"{busy['stages_max']:.1%}; links between stages carry vectors {busy['links']:.1%} of it, "
        f"the host link bytes {busy['host_link']:.1%}."
    )
    blocks: list[Block] = [Text.of(said)]
    if 1 < len(shares) <= MOST_BARS:
        names = [f"stage {n}" for n in range(len(shares))]
        blocks.append(bars({"busy": shares}, names, "% of the time"))
    elif len(shares) > MOST_BARS:
        line = Line("busy", list(range(len(shares))), shares, marker="")
        blocks.append(lines([line], "stage", "% of the time"))
    return Section("Utilisation: how busy the hardware is", blocks)
