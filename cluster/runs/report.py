"""The numbers of a run, from cycles and bytes, and the JSON object that `lpu run` prints.

Seconds appear here only: chip cycles over the clock, plus one transfer from and one to the host
per launch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chip.energy import energy_table
from chip.spec import ChipSpec
from cluster.compiler.lower import Lowered
from cluster.energy import Use, launch_use, token_energy
from cluster.generation.logprobs import TokenLogprob
from cluster.machines.launch_log import LaunchEntry
from cluster.model.load import Loaded
from cluster.runs.accuracy import accuracy_line
from cluster.runs.answers import finish_reason
from cluster.runs.clock_report import clock_cycles, clock_line
from cluster.runs.display import counted
from cluster.runs.distance import bound_report, distance_line
from cluster.serving.engine import PipelineRunner
from cluster.serving.requests import Request


@dataclass(frozen=True)
class Host:
    """What the emulation cost on the host. `load_parts_s` sum to `load_s`."""

    machine: str
    actors: int
    load_parts_s: Mapping[str, float]
    wall_s: float
    peak_rss_bytes: int
    costs: Mapping[str, int] = field(default_factory=dict)


def transfer_s(spec: ChipSpec, entry: LaunchEntry) -> float:
    """Seconds of a launch's transfers: one from the host and one back to it."""
    return 2 * spec.host_latency_s + (entry.in_bytes + entry.out_bytes) / spec.host_bytes_per_s


def launch_s(spec: ChipSpec, entry: LaunchEntry) -> float:
    """Seconds of a launch with its transfers."""
    return entry.cycles / spec.clock_hz + transfer_s(spec, entry)


def emulated(
    spec: ChipSpec, prefill: Sequence[LaunchEntry], decode: Sequence[LaunchEntry]
) -> dict[str, Any]:
    """What the cluster did: cycles, and seconds with the host transfers they include.

    Without a decode launch `tokens_per_s` is null, and `host_transfer_s` that of the prefill.
    """
    per_token = _mean([launch_s(spec, entry) for entry in decode])
    transfers = [transfer_s(spec, entry) for entry in decode or prefill]
    return {
        "clock_hz": spec.clock_hz,
        "prefill_cycles": sum(entry.cycles for entry in prefill),
        "prefill_launches": len(prefill),
        "decode_cycles": [entry.cycles for entry in decode],
        "time_to_first_token_s": sum(launch_s(spec, entry) for entry in prefill),
        "tokens_per_s": 1 / per_token if per_token else None,
        "host_transfer_s": _mean(transfers),
        "prefill_host_transfer_s": sum(transfer_s(spec, entry) for entry in prefill),
    }


def report_of_one(
    model: Loaded, runner: PipelineRunner, topology: str, entries: Sequence[LaunchEntry], host: Host
) -> dict[str, Any]:
    """The JSON object of a run of one prompt; its launches up to the first token are prefill."""
    lowered, (request,) = runner.lowered, runner.scheduler.requests
    first = len(entries) - len(request.tokens) + 1
    prefill, decode = entries[:first], entries[first:]
    names = {entry.name for entry in decode or prefill[-1:]}
    used = {name: launch_use(lowered.launches[name], lowered.plan.spec) for name in names}
    return {
        "model": model.model.name,
        "text": model.tokenizer.decode(request.tokens),
        "prompt_ids": list(request.prompt),
        "output_ids": request.tokens,
        "finish_reason": finish_reason(request.tokens, model.tokenizer.stop),
        **logprobs_report(model, runner, request),
        "plan": plan_shape(lowered, topology),
        "emulated": emulated(lowered.plan.spec, prefill, decode)
        | bound_report(lowered, runner.scheduler.records[-1], decode or prefill[-1:], used)
        | decode_energy(lowered, decode, used)
        | clock_cycles(lowered, runner.programs, prefill, decode),
        "host": host_shape(host, prefill, decode),
        "digest": runner.digest.hexdigest(),
        "logits_sha256": runner.logits_sha256(request),
    }


def logprobs_report(model: Loaded, runner: PipelineRunner, request: Request) -> dict[str, Any]:
    """How likely each token was, and the likeliest ones, if that was asked for."""
    if not runner.logprobs:
        return {}

    def one(token: TokenLogprob) -> dict[str, Any]:
        return {"text": model.tokenizer.decode([token.id]), **asdict(token)}

    found = runner.logprobs_of(request)
    return {"logprobs": [one(n.chosen) | {"top": [*map(one, n.top)]} for n in found]}


def decode_energy(
    lowered: Lowered, decode: Sequence[LaunchEntry], used: Mapping[str, Use]
) -> dict[str, Any]:
    """Joules per token for one user, and with the pipeline full; null where power is unknown."""
    spec = lowered.plan.spec
    table = energy_table(spec)
    if table is None or not decode:
        return {"joules_per_token": None, "energy": None}
    chips = len(lowered.chips) + len(lowered.transit_chips)
    seconds = _mean([launch_s(spec, entry) for entry in decode])
    interval = _mean([used[entry.name].interval_cycles / spec.clock_hz for entry in decode])
    dynamic = _mean([table.dynamic_j(used[entry.name].activity) for entry in decode])
    found = token_energy(table, chips, (dynamic, dynamic), seconds, interval)
    found["energy"]["chip_w"] = found["joules_per_token"] / seconds / chips
    return found


def plan_shape(lowered: Lowered, topology: str) -> dict[str, Any]:
    """The plan: how many chips hold what."""
    plan = lowered.plan
    return {
        "chips": plan.chips,
        "pp": plan.pp,
        "tp": plan.tp // plan.ep,
        "ep": plan.ep,
        "topology": topology,
        "spec": plan.spec.name,
        "context": plan.context,
        "weights": plan.weights,
        "sums_between_nodes": plan.model.sums,
        "sram_bytes_max": plan.sram_bytes_max,
        "transit_chips": list(lowered.transit_chips),
        "program_bytes": sum(
            len(data) for launch in lowered.launches.values() for data in launch.programs.values()
        ),
        "stages": [
            {"layers": s.layers, "head": s.head, "sram_bytes": s.sram_bytes, "chips": list(group)}
            for s, group in zip(plan.stages, lowered.placement, strict=True)
        ],
    }


def host_shape(
    host: Host, prefill: Sequence[LaunchEntry], decode: Sequence[LaunchEntry]
) -> dict[str, Any]:
    """What it cost here: load time by part, wall time, decode tokens per second, memory."""
    decode_s = sum(entry.wall_s for entry in decode)
    return {
        "machine": host.machine,
        "actors": host.actors,
        "load_s": sum(host.load_parts_s.values()),
        "load_parts_s": dict(host.load_parts_s),
        "prefill_s": sum(entry.wall_s for entry in prefill),
        "decode_s": decode_s,
        "wall_s": host.wall_s,
        "tokens_per_s": len(decode) / decode_s if decode_s else None,
        "peak_rss_bytes": host.peak_rss_bytes,
        **host.costs,
    }


def summary(report: Mapping[str, Any]) -> dict[str, str]:
    """The few lines a person wants to see, by label."""
    plan, fast, host = report["plan"], report["emulated"], report["host"]
    decode = fast["decode_cycles"]
    mean = f"{sum(decode) / len(decode):,.0f}" if decode else "none"
    parts = ", ".join(f"{name} {s:.1f}" for name, s in host["load_parts_s"].items())
    where = (
        f"{host['machine']}, {counted(host['actors'], 'actor')}"
        if host["actors"]
        else host["machine"]
    )
    return {
        "plan": f"{counted(plan['chips'], 'chip')} on {plan['topology']}: "
        f"{counted(plan['pp'], 'stage')} x tp {plan['tp']}, "
        f"at most {plan['sram_bytes_max'] / 2**20:.1f} MiB of SRAM each",
        "prefill": f"{fast['prefill_cycles']:,} cycles for "
        f"{counted(len(report['prompt_ids']), 'token')}, "
        f"first token after {fast['time_to_first_token_s'] * 1e3:.3f} ms",
        "decode": f"{mean} cycles per token at {fast['clock_hz'] / 1e6:,.0f} MHz",
        "hardware": distance_line(fast),
        **({"accuracy": accuracy_line(report["accuracy"])} if "accuracy" in report else {}),
        "clocks": clock_line(report.get("clocks"), fast),
        "emulated": f"{_rate(fast['tokens_per_s'])} tokens/s, of each token "
        f"{fast['host_transfer_s'] * 1e6:.1f} us on the host link",
        "energy": _energy_line(fast),
        "this host": f"{_rate(host['tokens_per_s'])} tokens/s ({where}), load {host['load_s']:.1f}"
        f" s ({parts}), peak {host['peak_rss_bytes'] / 2**30:.2f} GiB",
        "digest": f"{report['digest']} (of all programs, logits and memories)",
    }


def _energy_line(fast: Mapping[str, Any]) -> str:
    if fast["joules_per_token"] is None:
        return "no published power to go by"
    full = fast["energy"]["full_pipeline"]["joules_per_token"]
    return (
        f"{fast['joules_per_token']:.3g} J per token for one user, {full:.3g} J with all stages "
        f"busy (chips only, modelled)"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _rate(value: float | None) -> str:
    return "no" if value is None else f"{value:,.1f}"
