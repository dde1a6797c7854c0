"""What load generators print of a run: latencies by percentile, goodput, rates, utilisation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.serving.clockwork import Clockwork
from cluster.serving.core import columns as c
from cluster.serving.core import play as p
from cluster.serving.replay import Outcome
from cluster.serving.traffic import Seconds

PERCENTILES = (50, 90, 99)
SLO_KINDS = ("ttft", "tpot", "e2e")


def percentiles(values: Seconds) -> dict[str, float | None]:
    """p50, p90, p99, mean and max of what is a number; None where nothing is."""
    known = values[~np.isnan(values)]
    names = [f"p{n}" for n in PERCENTILES]
    if not len(known):
        return dict.fromkeys([*names, "mean", "max"])
    at = np.percentile(known, PERCENTILES)
    named: dict[str, float | None] = dict(zip(names, map(float, at), strict=True))
    return named | {"mean": float(known.mean()), "max": float(known.max())}


def of_bins(bins: npt.NDArray[np.int64]) -> dict[str, float | None]:
    """The same of counted gaps, each known to a thousandth."""
    total = int(bins.sum())
    names = [f"p{n}" for n in PERCENTILES]
    if not total:
        return dict.fromkeys([*names, "mean", "max"])
    values = p.SHORTEST_GAP_S * np.exp((np.arange(len(bins)) + 0.5) / p.GAP_BINS_PER_E)
    ends = np.cumsum(bins)
    at = [int(np.searchsorted(ends, -(-total * n // 100))) for n in PERCENTILES]
    named: dict[str, float | None] = {
        name: float(values[n]) for name, n in zip(names, at, strict=True)
    }
    last = int(np.flatnonzero(bins)[-1])
    return named | {"mean": float(values @ bins / total), "max": float(values[last])}


def met(outcome: Outcome, slo: Mapping[str, float]) -> npt.NDArray[np.bool_]:
    """Which requests keep every bound; a request of one token has no time per token to keep."""
    found = {"ttft": outcome.ttft_s, "tpot": outcome.tpot_s, "e2e": outcome.e2e_s}
    good = np.ones(len(outcome.traffic), np.bool_)
    for name, bound_s in slo.items():
        good &= ~(found[name] > bound_s)
    return good


def measures(outcome: Outcome, clockwork: Clockwork, slo: Mapping[str, float]) -> dict[str, Any]:
    """The figures of a replay, without its plan and its wall time."""
    seconds, good = outcome.end_s, met(outcome, slo)
    tokens = outcome.total(p.NEW_TOKENS)
    counts, rules = outcome.state.counts, outcome.state.rules
    page_s = float(outcome.played.sums[p.PAGE_S])
    pages = clockwork.timed.plan.slots * -(-clockwork.timed.plan.context // rules.page_tokens)
    pages = min(pages, rules.pages)
    prompt = int(outcome.traffic.prompt.sum())
    hit = int(np.asarray(outcome.state.requests[c.HIT]).sum())
    return {
        "requests": len(outcome.traffic),
        "seconds": seconds,
        "ttft_s": percentiles(outcome.ttft_s),
        "tpot_s": percentiles(outcome.tpot_s),
        "itl_s": of_bins(np.asarray(outcome.played.gaps)),
        "e2e_s": percentiles(outcome.e2e_s),
        "queue_s": percentiles(outcome.time_s(c.ENTERED) - outcome.time_s(c.ARRIVES)),
        "slo": dict(slo),
        "slo_met": int(good.sum()),
        "requests_per_s": len(good) / seconds,
        "goodput_requests_per_s": int(good.sum()) / seconds,
        "output_tokens": tokens,
        "output_tokens_per_s": tokens / seconds,
        "prompt_tokens": prompt,
        "cached_prompt_tokens": hit,
        "utilisation": _utilisation(outcome, clockwork),
        "kv": {
            "pages": pages,
            "page_tokens": rules.page_tokens,
            "occupancy_mean": page_s / seconds / pages,
            "occupancy_max": outcome.total(p.PEAK_PAGES) / pages,
            "preempted_recomputed": int(counts[c.RECOMPUTED]),
            "preempted_spilled": int(counts[c.SPILLS]),
        },
        "steps": outcome.total(p.STEPS),
        "prefill_launches": int(outcome.works[c.PREFILL].sum()),
        "decode_launches": int(outcome.works[c.DECODE].sum()),
    }


def joules_per_token(outcome: Outcome, clockwork: Clockwork) -> float | None:
    """Of the chips, over the whole time; None where nothing is known of their power."""
    joules = clockwork.joules(outcome.works, outcome.end_s)
    return None if joules is None else joules / outcome.total(p.NEW_TOKENS)


def _utilisation(outcome: Outcome, clockwork: Clockwork) -> dict[str, Any]:
    """Shares of the time in which stages compute, links carry x, and the host link moves bytes."""
    hz, seconds, works = clockwork.shape.clock_hz, outcome.end_s, outcome.works
    stages = np.einsum("lb,lbs->s", works, clockwork.busy_cycles) / hz / seconds
    sending = float(works.sum(axis=1) @ clockwork.sending_cycles) / hz / seconds
    host = float((works[:, None] * clockwork.moves[:, : c.FURTHER]).sum()) / seconds
    return {
        "steps": float(outcome.played.sums[p.BUSY_S]) / seconds,
        "stages_mean": float(stages.mean()),
        "stages_max": float(stages.max()),
        "stages": [float(one) for one in stages],
        "links": sending,
        "host_link": host,
    }
