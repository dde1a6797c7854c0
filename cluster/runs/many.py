"""Many prompts: those of a file, their answers one by one, and the JSON object of the run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chip.energy import Activity, energy_table
from cluster.energy import Joules, activity
from cluster.machines.launch_log import LaunchEntry
from cluster.model.load import Loaded
from cluster.runs.answers import Answers, finish_reason
from cluster.runs.display import Bars, counted
from cluster.runs.distance import distance_line, step_report
from cluster.runs.drafting import speculation_line
from cluster.runs.report import Host, host_shape, logprobs_report, plan_shape
from cluster.serving.engine import PipelineRunner, Scheduler
from cluster.serving.requests import Request
from cluster.serving.scheduler import steady_tokens_per_s


def put_answers(
    tokens: Iterator[tuple[Request, int]],
    lines: Sequence[tuple[int, str]],
    model: Loaded,
    runner: PipelineRunner,
    shown: tuple[Bars, Answers],
) -> None:
    """Run to the end; put out the answer to each line when it is whole."""
    bars, answers = shown
    total = sum(request.max_new_tokens for request in runner.scheduler.requests)
    for done, (request, token) in enumerate(tokens, 1):
        bars.step("decode", done, total)
        if token in model.tokenizer.stop or len(request.tokens) == request.max_new_tokens:
            if not answers.quiet:
                bars.stop()
            number, text = lines[request.number]
            answers.put({"line": number, "prompt": text, **_answer(model, runner, request)})


def report_of_many(
    model: Loaded, runner: PipelineRunner, topology: str, entries: Sequence[LaunchEntry], host: Host
) -> dict[str, Any]:
    """What became of every prompt, and what the cluster did step by step."""
    lowered, scheduler = runner.lowered, runner.scheduler
    done = activity(programs_run(runner), lowered.plan.spec)
    return {
        "model": model.model.name,
        "sequences": [_answer(model, runner, request) for request in scheduler.requests],
        "plan": plan_shape(lowered, topology)
        | {"concurrency": lowered.plan.slots, "rows_per_launch": lowered.plan.rows},
        "emulated": emulated(scheduler)
        | step_report(lowered, scheduler.records, done)
        | _energy(runner, done),
        "host": _host(host, scheduler, entries),
        "digest": runner.digest.hexdigest(),
    }


def _answer(model: Loaded, runner: PipelineRunner, request: Request) -> dict[str, Any]:
    return {
        "text": model.tokenizer.decode(request.tokens),
        "prompt_ids": list(request.prompt),
        "output_ids": request.tokens,
        "finish_reason": finish_reason(request.tokens, model.tokenizer.stop),
        **logprobs_report(model, runner, request),
        "slot": request.slot,
        "queued_s": request.entered_s,
        "time_to_first_token_s": request.first_token_s,
        "tokens_per_s": request.tokens_per_s,
        "logits_sha256": runner.logits_sha256(request),
    }


def emulated(scheduler: Scheduler) -> dict[str, Any]:
    """What the cluster did, step by step, and what its users saw.

    `tokens_per_s` is the mean of all users, `tokens_per_s_total` that of the whole run with its
    beginning and its end, `steady_tokens_per_s_total` that while every slot was decoding.
    """
    everyone, link = scheduler.requests, scheduler.link
    decode = [record for record in scheduler.records if record.kind.logits_rows]
    prefill = [record.cycles for record in scheduler.records if not record.kind.logits_rows]
    rates = [one.tokens_per_s for one in everyone if one.tokens_per_s]
    first = [one.first_token_s for one in everyone]
    end_s = max(one.token_s[-1] for one in everyone)
    work = next(work for record in decode for work in record.works if work)
    return {
        "clock_hz": link.spec.clock_hz,
        "prefill_cycles": sum(prefill),
        "prefill_step_cycles": prefill,
        "decode_cycles": [record.cycles for record in decode],
        "seconds": end_s,
        "time_to_first_token_s": sum(first) / len(first),
        "time_to_first_token_max_s": max(first),
        "tokens_per_s": sum(rates) / len(rates) if rates else None,
        "tokens_per_s_total": sum(len(one.tokens) for one in everyone) / end_s,
        "steady_tokens_per_s_total": steady_tokens_per_s(everyone, scheduler.slots),
        "host_transfer_s": link.in_s(work.kind) + link.out_s(work.kind),
    }


def programs_run(runner: PipelineRunner) -> Counter[bytes]:
    """Every program that a chip ran, as often as it did."""
    programs: Counter[bytes] = Counter()
    for name, times in Counter(runner.launches).items():
        for chip, part in runner.programs[name].items():
            programs[runner.lowered.launches[part].programs[chip]] += times
    return programs


def _energy(runner: PipelineRunner, done: Activity) -> dict[str, Any]:
    """Joules of the chips over the whole run, per token of the answers; null if not known."""
    lowered, requests = runner.lowered, runner.scheduler.requests
    table = energy_table(lowered.plan.spec)
    if table is None:
        return {"joules_per_token": None}
    dynamic = table.dynamic_j(done)
    chips = len(lowered.chips) + len(lowered.transit_chips)
    spent = Joules(table, chips, dynamic, max(one.token_s[-1] for one in requests))
    return {"joules_per_token": spent.chips_j / sum(len(one.tokens) for one in requests)}


def _host(host: Host, scheduler: Scheduler, entries: Sequence[LaunchEntry]) -> dict[str, Any]:
    prefill, decode = list[LaunchEntry](), list[LaunchEntry]()
    for record, entry in zip(scheduler.records, entries, strict=True):
        (decode if record.kind.logits_rows else prefill).append(entry)
    tokens = sum(len(one.tokens) for one in scheduler.requests)
    wall_s = sum(entry.wall_s for entry in entries)
    return host_shape(host, prefill, decode) | {"tokens_per_s": tokens / wall_s}


def summary_of_many(report: Mapping[str, Any]) -> dict[str, str]:
    """The few lines a person wants to see, by label: each answer, then how fast."""
    plan, fast, host = report["plan"], report["emulated"], report["host"]
    said = {
        f"{number}": f"{counted(len(one['output_ids']), 'token')} ({one['finish_reason']}), "
        f"the first after {one['time_to_first_token_s'] * 1e3:.3f} ms, "
        f"then {_rate(one['tokens_per_s'])} tokens/s"
        for number, one in enumerate(report["sequences"], 1)
    }
    steps = sorted(set(fast["decode_cycles"]))
    guesses = report.get("speculation")
    said |= {"speculation": speculation_line(guesses)} if guesses else {}
    return said | {
        "plan": f"{counted(plan['chips'], 'chip')} on {plan['topology']}: "
        f"{counted(plan['pp'], 'stage')} x tp {plan['tp']}, {plan['concurrency']} in flight "
        f"in launches of {counted(plan['rows_per_launch'], 'row')}, "
        f"at most {plan['sram_bytes_max'] / 2**20:.1f} MiB of SRAM each",
        "prefill": f"{fast['prefill_cycles']:,} cycles in "
        f"{counted(len(fast['prefill_step_cycles']), 'step')}",
        "decode": f"{counted(len(fast['decode_cycles']), 'step')} of {steps[0]:,} to "
        f"{steps[-1]:,} cycles at {fast['clock_hz'] / 1e6:,.0f} MHz",
        "emulated": f"{_rate(fast['tokens_per_s'])} tokens/s per user, "
        f"{_rate(fast['tokens_per_s_total'])} in all, "
        f"{_rate(fast['steady_tokens_per_s_total'])} while all slots decode",
        "hardware": distance_line(fast),
        "this host": f"{host['tokens_per_s']:,.1f} tokens/s ({host['machine']}), "
        f"load {host['load_s']:.1f} s, peak {host['peak_rss_bytes'] / 2**30:.2f} GiB",
        "digest": f"{report['digest']} (of all programs, logits and memories)",
    }


def _rate(value: float | None) -> str:
    return "no" if value is None else f"{value:,.0f}"
