"""A replay as a timeline for Perfetto: what each stage works on, and what becomes of requests."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from cluster.serving.core import columns as c
from cluster.serving.core import play as p
from cluster.serving.replay import Outcome

STAGES, SLOTS, HOST_LINK = 1, 2, 3  # processes of the timeline
NAMES = {c.PREFILL: "prefill", c.DECODE: "decode"}


def timeline(outcome: Outcome, name: str) -> bytes:
    """Chrome's JSON, gzipped if that is what the file is called; microseconds of virtual time."""
    events = [*_stages(outcome), *_slots(outcome), *_host_link(outcome)]
    data = json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}).encode()
    return gzip.compress(data, mtime=0) if name.rpartition(".")[2] == "gz" else data


def _named(process: int, title: str, threads: int, thread: str) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": title}}
    for number in range(threads):
        named = {"ph": "M", "pid": process, "tid": number, "name": "thread_name"}
        yield named | {"args": {"name": f"{thread} {number}"}}


def _slice(process: int, thread: int, name: str, start_s: float, seconds: float) -> dict[str, Any]:
    us = {"ts": start_s * 1e6, "dur": max(0.0, seconds) * 1e6}
    return {"ph": "X", "pid": process, "tid": thread, "name": name, **us}


def _stages(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """What each stage works on in the first steps, those that are logged."""
    log, count = outcome.played.log, outcome.total(p.LOGGED)
    stages = outcome.state.rules.stages
    yield from _named(STAGES, f"stages, the first {count:,} steps", stages, "stage")
    who, at = (np.asarray(log.stages[column]) for column in (p.LOG_WHO, p.LOG_AT))
    for step in range(count):
        kind, cycles = NAMES[int(log.steps[p.LOG_LINE][step])], int(log.steps[p.LOG_CYCLES][step])
        for stage in np.flatnonzero(who[step] != c.NOBODY):
            request = int(who[step][stage])
            found = _slice(
                STAGES, int(stage), f"{kind} {request}", log.start_s[step], log.seconds[step]
            )
            position = int(at[step][stage])
            args = {"request": request, "position": position, "step": step, "cycles": cycles}
            yield found | {"cat": kind, "args": args}


def _slots(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Requests of the logged time in their slots: until the first token, and then."""
    count, log = outcome.total(p.LOGGED), outcome.played.log
    end_s = log.start_s[count - 1] + log.seconds[count - 1] if count else 0.0
    yield from _named(SLOTS, "slots", outcome.state.rules.slots, "slot")
    entered_s, first_s, last_s = (outcome.time_s(n) for n in (c.ENTERED, c.FIRST, c.LAST))
    for r in map(int, np.flatnonzero(entered_s <= end_s)):
        slot = int(outcome.state.requests[c.SLOT][r])
        args = {
            "request": r, "arrives_s": float(outcome.time_s(c.ARRIVES)[r]),
            "prompt_tokens": int(outcome.traffic.prompt[r]),
            "output_tokens": int(outcome.traffic.new[r]),
            "cached_tokens": int(outcome.state.requests[c.HIT][r]),
        }  # fmt: skip
        for name, start_s, stop_s in (
            ("prompt", entered_s[r], first_s[r]),
            ("answer", first_s[r], last_s[r]),
        ):
            title = f"{name} {r}"
            yield _slice(SLOTS, slot, title, start_s, stop_s - start_s) | {"args": args}
        if args["cached_tokens"]:
            hit = {"ph": "i", "s": "t", "pid": SLOTS, "tid": slot, "ts": entered_s[r] * 1e6}
            yield hit | {"name": f"hit {r}", "args": {"tokens": args["cached_tokens"]}}


def _host_link(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Caches of the first requests that were pre-empted, on their way to the host and back."""
    state = outcome.state
    count = int(state.counts[c.TRANSFERS])
    if count:
        yield from _named(HOST_LINK, f"caches, the first {count:,} transfers", 1, "host link")
    for n in range(count):
        owner, slot, tokens, back = (int(column[n]) for column in state.transfers)
        begin_s, end_s = (float(column[n]) for column in state.transfer_s)
        title = f"{'restore' if back else 'spill'} {owner}"
        args = {"request": owner, "slot": slot, "tokens": tokens}
        yield _slice(HOST_LINK, 0, title, begin_s, end_s - begin_s) | {"args": args}
