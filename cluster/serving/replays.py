"""A replay from its options to its report: traffic, plan, the replay itself, files."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.compiler.choose import PlanRequest
from cluster.compiler.stage_shape import keeps_all
from cluster.errors import BadValue
from cluster.files import check_writable, write_whole
from cluster.model.fetch import cache_folder
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import Planned
from cluster.serving.build import Policy
from cluster.serving.clockwork import Clockwork
from cluster.serving.core import columns as c
from cluster.serving.metrics import SLO_KINDS, joules_per_token, measures, met
from cluster.serving.replay import Outcome, ready, replay
from cluster.serving.sizing import sized
from cluster.serving.traces import read_trace
from cluster.serving.traffic import Traffic, lengths_of, load
from topology.collectives.sums import FP32

REQUESTS = 1000  # of a load, where nobody says how many
GOOD = 0.99  # share of requests within their bounds that is good enough
LOGGED = 200_000  # steps x stages of a timeline
Step = Callable[[str, int, int], None]  # what is done, how much of it, of how much


def no_step(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class Options:
    """The options of `lpu replay` as given."""

    model: str | None = None
    trace: Path | None = None
    chips: int | None = None
    tp: int | None = None
    pp: int | None = None
    topology: str | None = None
    profile: str | None = None
    links: tuple[str, ...] = ()
    spec: str = "groqchip1"
    weights: str | None = None
    context: int | None = None
    slots: int | None = None
    objective: str = "latency"
    faults: str | None = None
    sums_between_nodes: str = FP32
    load: str | None = None
    lengths: str | None = None
    requests: int | None = None
    rate: float | None = None
    seed: int = 0
    policy: str = "prefill"
    prefix_cache: bool = True
    kv_pages: int | None = None
    slo: str | None = None
    find_rate: bool = False
    find_chips: bool = False
    output: Path | None = None
    timeline: Path | None = None

    @property
    def plan(self) -> PlanRequest:
        """What is asked of the plan, but for context and slots."""
        return PlanRequest(
            self.chips, self.tp, self.pp, self.topology, self.profile, self.links, self.faults,
            self.spec, self.weights, objective=self.objective,
            sums_between_nodes=self.sums_between_nodes,
        )  # fmt: skip

    def bounds(self) -> dict[str, float]:
        """The SLO as {kind: seconds}; raises BadValue."""
        found: dict[str, float] = {}
        for part in self.slo.split(",") if self.slo is not None else ():
            name, _, text = part.strip().partition("=")
            try:
                seconds = float(text)
            except ValueError:
                seconds = 0.0
            if name not in SLO_KINDS or name in found or not 0 < seconds < 1e9:
                kinds = ", ".join(SLO_KINDS)
                raise BadValue("--slo", self.slo, f"write ttft=0.3,tpot=0.01 in seconds; {kinds}")
            found[name] = seconds
        return found

    def order(self) -> Policy:
        """The policy, but for the hashes of a trace; raises BadValue."""
        name, _, text = self.policy.partition(":")
        if name == "budget" and text.isdecimal() and 1 <= int(text) <= 1 << 24:
            return Policy("budget", int(text), pages=self.kv_pages)
        if self.policy not in ("prefill", "decode"):
            raise BadValue("--policy", self.policy, "is none of prefill, decode, budget:TOKENS")
        return Policy(self.policy, pages=self.kv_pages)


def given_traffic(options: Options) -> Traffic:
    """The requests of a trace, or of a load, at the rate asked for; raises BadValue, TraceError."""
    found = _as_they_come(options)
    if options.rate is None:
        return found
    if not found.rate:
        raise BadValue("--rate", options.rate, "the requests have no rate of arrivals to change")
    return found.at_rate(options.rate)


def _as_they_come(options: Options) -> Traffic:
    trace, lengths, count = options.trace, options.lengths, options.requests
    if trace is None and options.load is None:
        raise BadValue("TRACE", "", "name a trace, or --load with --lengths")
    if options.load is None and lengths is not None:
        raise BadValue("--lengths", lengths, "is for --load; a trace has lengths of its own")
    if trace is not None and lengths in (None, "trace"):
        found = read_trace(trace)
        if count is not None:
            if count > len(found):
                raise BadValue("--requests", count, f"{trace} holds {len(found)}")
            found = replace(
                found, arrives_s=found.arrives_s[:count], prompt=found.prompt[:count],
                new=found.new[:count], first_block=found.first_block[:count],
                blocks=found.blocks[:count],
            )  # fmt: skip
    elif lengths is None or lengths == "trace":
        raise BadValue("--lengths", lengths or "", "say IN:OUT, or name a trace that has lengths")
    elif trace is not None:
        raise BadValue("--lengths", lengths, "trace and lengths are both given; one must do")
    else:
        found = lengths_of(lengths, count or REQUESTS, options.seed)
    return load(options.load, found, options.seed) if options.load is not None else found


@dataclass(frozen=True)
class Played:
    """A replay: its figures as `lpu replay --json` prints them, and what they are of."""

    found: dict[str, Any]
    outcome: Outcome
    cluster: "Cluster"
    policy: Policy
    slo: dict[str, float]


def play(options: Options, step: Step = no_step, prepare: "Prepare | None" = None) -> Played:
    """Replay; `prepare` makes the cluster. Raises BadValue, TraceError, DoesNotFit, ..."""
    slo, policy = options.bounds(), options.order()
    traffic = given_traffic(options)
    _check_searches(options, traffic, slo)
    begun = time.perf_counter()
    cluster = (prepare or prepared)(options, traffic, step)
    plan_s = time.perf_counter() - begun
    if options.prefix_cache and keeps_all(cluster.planned.timed.plan.model):
        policy = replace(policy, block_tokens=traffic.block_tokens)
    if policy.pages is not None:
        clockwork = cluster.clockwork
        policy = replace(policy, move_s=clockwork.move_s, refill_s=clockwork.refill_s)
    begun = time.perf_counter()
    log_steps = LOGGED // cluster.clockwork.shape.stages if options.timeline else 0
    found, outcome = cluster.report(policy, slo, log_steps, step)
    wall_s = time.perf_counter() - begun
    found |= {
        "load": options.load if options.trace is None else str(options.trace),
        "offered_requests_per_s": cluster.traffic.rate or None,
        "wall_s": wall_s,
        "plan_s": plan_s,
    }
    found["joules_per_token"] = joules_per_token(outcome, cluster.clockwork)
    if options.find_rate:
        from cluster.serving.capacity import highest_rate

        found["rate"] = highest_rate(cluster.clockwork, cluster.traffic, policy, slo)
    if options.find_chips:
        from cluster.serving.capacity import fewest_chips

        found["chips_needed"] = fewest_chips(options, traffic, policy, slo, step)
    return Played(found, outcome, cluster, policy, slo)


def _check_searches(options: Options, traffic: Traffic, slo: dict[str, float]) -> None:
    """Raise BadValue, before any work, where what is searched for has no bound to go by."""
    if options.model is None:
        raise BadValue("--model", "", "name the model that serves")
    if options.find_rate and (not slo or traffic.users):
        raise BadValue("--find-rate", "", "needs --slo, and arrivals that are not closed:USERS")
    if options.find_chips and (not slo or options.chips is None):
        raise BadValue("--find-chips", "", "needs --slo, and --chips as the most there may be")


def run(options: Options, step: Step) -> Played:
    """Replay, and write the files that are asked for; raises what `play` raises, and OSError."""
    files = {"--output": options.output, "--trace": options.timeline}
    for name, path in files.items():
        check_writable(name, path)
    played = play(options, step)
    if options.output:
        write_whole(options.output, request_lines(played.outcome, played.slo))
    if options.timeline:
        from cluster.serving.timeline import timeline

        write_whole(options.timeline, timeline(played.outcome, options.timeline.name))
    return played


@dataclass(frozen=True)
class Cluster:
    """A plan that is timed for a traffic, and that part of it which its caches hold."""

    planned: Planned
    clockwork: Clockwork
    traffic: Traffic
    rejected: int
    notes: tuple[str, ...]

    def report(
        self, policy: Policy, slo: dict[str, float], log_steps: int, step: Step
    ) -> tuple[dict[str, Any], Outcome]:
        """Replay, and what came of it."""
        self._check(policy)

        def progress(done: int, total: int) -> None:
            step("replay", done, total)

        outcome = replay(self.clockwork, self.traffic, policy, log_steps, progress)
        plan = self.planned.timed.plan
        shape = {
            "chips": plan.chips, "tp": plan.tp, "pp": plan.pp, "topology": self.planned.topology,
            "spec": plan.spec.name, "weights": plan.weights, "context": plan.context,
            "slots": plan.slots, "prefill_chunk": plan.chunk,
        }  # fmt: skip
        head = {"model": self.planned.model, "plan": shape, "notes": list(self.notes)}
        found = measures(outcome, self.clockwork, slo)
        return {**head, "rejected": self.rejected, **found}, outcome

    def _check(self, policy: Policy) -> None:
        longest = -(-int(self.traffic.tokens.max()) // policy.page_tokens)
        if policy.pages is not None and policy.pages < longest:
            raise BadValue("--kv-pages", policy.pages, f"the longest request needs {longest}")


def prepared(
    options: Options, traffic: Traffic, step: Step, store: CostStore | None = None
) -> Cluster:
    """Plan, time, and turn away what no cache holds; costs are those of this user unless given."""
    step("plan", 0, 0)
    store = store or CostStore(cache_folder() / "costs", lambda: step("plan", 0, 0))
    longest = int(traffic.tokens.max())
    assert options.model is not None
    found = sized(options.model, options.plan, longest, store, options.context, options.slots)
    planned = found.planned
    kept = traffic.within(planned.timed.plan.tokens_max)
    if not len(kept):
        shortest, context = int(traffic.tokens.min()), planned.timed.plan.context
        raise BadValue(
            "--context", context, f"every request is longer, the shortest has {shortest} tokens; "
            "raise it, or give it more --chips",
        )  # fmt: skip
    clockwork = Clockwork(
        planned.timed, int(kept.tokens.max()), lambda done, all_: step("tables", done, all_)
    )
    ready(clockwork)
    notes = (*planned.notes, *found.notes)
    if traffic.dropped:
        notes += (f"{traffic.dropped} records of the trace have no answer, and are left out",)
    return Cluster(planned, clockwork, kept, len(traffic) - len(kept), notes)


Prepare = Callable[[Options, Traffic, Step], Cluster]


def request_lines(outcome: Outcome, slo: dict[str, float]) -> Iterator[bytes]:
    """A line of JSON for each request, by arrival."""
    tpot_s, good = outcome.tpot_s, met(outcome, slo)
    columns = {
        "arrives_s": outcome.time_s(c.ARRIVES), "queue_s":
        outcome.time_s(c.ENTERED) - outcome.time_s(c.ARRIVES), "ttft_s": outcome.ttft_s,
        "tpot_s": tpot_s, "e2e_s": outcome.e2e_s,
    }  # fmt: skip
    counts = {
        "prompt_tokens": outcome.traffic.prompt, "output_tokens": outcome.traffic.new,
        "cached_tokens": np.asarray(outcome.state.requests[c.HIT]),
        "slot": np.asarray(outcome.state.requests[c.SLOT]),
    }  # fmt: skip
    for r in range(len(outcome.traffic)):
        line: dict[str, Any] = {"request": r}
        line |= {name: int(values[r]) for name, values in counts.items()}
        line |= {name: _plain(float(values[r])) for name, values in columns.items()}
        yield json.dumps(line | {"slo_met": bool(good[r])}).encode() + b"\n"


def _plain(value: float) -> float | None:
    return None if value != value else value
