"""Cycles of pipeline steps, and what many users see of them, without running anything.

The same stage programs are put on the same time axis as for a run, only without their instructions,
and the same pipeline is filled with sequences by the same rules; so what comes out is what a run
does.
"""

from functools import cache, partial
from itertools import repeat
from typing import Any

from cluster.compiler.host_regions import host_bytes
from cluster.compiler.launch import decode_kind
from cluster.compiler.pipeline import StepSchedules
from cluster.planning.cost_step_times import StepTimes
from cluster.serving.host_link import HostLink
from cluster.serving.requests import Request
from cluster.serving.scheduler import (
    PipelineScheduler,
    drive,
    steady_tokens_per_s,
)

NEW_TOKENS = 4  # of each sequence of a simulated run: enough for whole rounds


def simulated(
    times: StepTimes, sequences: int, prompt: int, chunked: bool = True, held: int = 0
) -> PipelineScheduler:
    """A run of so many equal prompts at once, NEW_TOKENS for each, by the clock alone.

    Prompts go token by token unless `chunked`; `held` tokens of each are in the caches already.
    """
    plan, parts = times.steps.plan, times.steps.parts
    assert isinstance(parts, StepSchedules)
    stages = parts.stages
    link = HostLink(plan.spec, cache(partial(host_bytes, stages)), beside=True)
    chunk = plan.chunk if chunked else 0
    scheduler = PipelineScheduler(plan.pp, sequences, chunk, link, plan.rows)
    count = min(NEW_TOKENS, plan.context + 1 - prompt)
    for _ in range(sequences):
        scheduler.submit(Request((0,) * prompt, count, position=held))
    for _ in drive(scheduler, lambda step: (times.cycles(step), repeat(None)), _zero, frozenset()):
        pass
    return scheduler


def _zero(_request: Request, _logits: None) -> int:
    return 0


def steady_rate(times: StepTimes, sequences: int) -> float:
    """Tokens per second of so many sequences, all of them decoding with full caches."""
    full = times.steps.plan.context + 1 - NEW_TOKENS
    warm = simulated(times, sequences, full, held=full - 1)
    return steady_tokens_per_s(warm.requests, sequences) or 0.0


def pipelined(
    times: StepTimes, sequences: int, prompt: int, chunked: bool = True
) -> dict[str, Any]:
    """What so many users see, for the report of a plan.

    Speeds are those of full caches; the steps are those of a run whose prompts come all at once.
    """
    plan, found = times.steps.plan, dict[str, float]()
    for count in sorted({1 << n for n in range(sequences.bit_length())} | {sequences}):
        found[str(count)] = steady_rate(times, count)
    cold = simulated(times, sequences, prompt, chunked)
    first = [one.first_token_s for one in cold.requests]
    prefill, decode = (
        [record.cycles for record in cold.records if bool(record.kind.logits_rows) == logits]
        for logits in (False, True)
    )
    return {
        "interval_cycles": times.full_cycles(decode_kind(plan.context, plan.rows)),
        "tokens_per_s_per_user": found[str(sequences)] / sequences,
        "tokens_per_s_total": found[str(sequences)],
        "prefill_cycles": sum(prefill),
        "time_to_first_token_s": sum(first) / len(first),
        "pipeline": {
            "time_to_first_token_max_s": max(first),
            "new_tokens": NEW_TOKENS,
            "prefill_step_cycles": prefill,
            "decode_step_cycles": decode,
            "tokens_per_s_total_by_concurrency": found,
        },
    }
