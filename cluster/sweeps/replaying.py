"""Points that are replays: traffic through a plan in virtual time, as `lpu replay` has it.

Plans and tables are kept from point to point, as loads and bounds change neither.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.serving.replays import Cluster, Options, Step, play, prepared
from cluster.serving.traffic import Traffic
from cluster.sweeps.grid import Point
from topology.collectives.sums import FP32

if TYPE_CHECKING:
    from cluster.sweeps.evaluation import Evaluator

TRAFFIC = ("load", "lengths", "requests", "rate", "seed", "policy", "kv_pages", "slo")
MOST_CLUSTERS = 8  # kept at a time
LATENCIES = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
PERCENTILES = ("p50", "p90", "p99")
OF_REPLAY = (
    "rejected", "offered_requests_per_s", "requests_per_s", "goodput_requests_per_s",
    "slo_met", "output_tokens_per_s", "joules_per_token", "cached_prompt_tokens",
)  # fmt: skip
OF_PLAN = {
    "chips": "chips_used", "tp": "tp_used", "pp": "pp_used", "topology": "topology_used",
    "weights": "weights_used", "context": "context_used", "slots": "slots_used",
}  # fmt: skip


def traffic_options(settings: Mapping[str, Any], trace: Path | None) -> Options:
    """The traffic of a point, without what serves it."""
    return Options(trace=trace, **{name: settings[name] for name in TRAFFIC if name in settings})


def replay_point(point: Point, evaluator: "Evaluator") -> dict[str, Any]:
    """The figures of a replay; raises what `lpu replay` does."""
    trace = evaluator.copy(point.trace_file, point.get("trace")) if point.trace_file else None
    plan = {n: point.get(n) for n in ("chips", "tp", "pp", "faults", "weights", "context")}
    options = replace(
        traffic_options(point.settings, trace), model=point.model, **plan,
        slots=point.get("batch"), topology=evaluator.topology(point), profile=point.profile,
        links=point.links, spec=point.spec, objective=point.get("objective", "latency"),
        sums_between_nodes=point.get("sums_between_nodes", FP32),
    )  # fmt: skip

    def prepare(options: Options, traffic: Traffic, step: Step) -> Cluster:
        sizes = np.sort(traffic.tokens).tobytes(), traffic.dropped
        key = (options.model, options.plan, options.context, options.slots, *sizes)
        known: Cluster | None = evaluator.clusters.pop(key, None)
        if known is None:
            known = prepared(options, traffic, step, evaluator.kept.store)
        else:
            known = replace(known, traffic=traffic.within(known.planned.timed.plan.tokens_max))
        while len(evaluator.clusters) >= MOST_CLUSTERS:
            del evaluator.clusters[next(iter(evaluator.clusters))]
        evaluator.clusters[key] = known
        return known

    found = play(options, prepare=prepare).found
    row = {"requests_served": found["requests"], **{name: found[name] for name in OF_REPLAY}}
    row |= {f"{what}_{p}": found[what][p] for what in LATENCIES for p in PERCENTILES}
    row |= {
        "stages_busy": found["utilisation"]["stages_mean"],
        "caches_used": found["kv"]["occupancy_mean"],
    }
    shape = {ours: found["plan"][name] for name, ours in OF_PLAN.items()}
    if point.graph_file is not None:
        shape["topology_used"] = point.get("topology")
    return row | shape
