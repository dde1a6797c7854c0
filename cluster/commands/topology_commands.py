"""`lpu topology SPEC` and `lpu collective OP`: facts, clocks, pictures and timings of networks."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import networkx as nx

from chip.isa import WIDTHS
from cluster.commands.parameters import (
    COUNT,
    DRIFT,
    NAME,
    PICTURE,
    SEED,
    TOPOLOGY,
    ByteCount,
    sums_option,
)
from cluster.runs.display import counted, show_table
from topology import Collective, Facts, collective, facts, parse
from topology.alignment import simulate
from topology.clocks import ClockPlan, ClockSpec, clock_plan
from topology.collectives import ALGORITHMS, OPERATIONS
from topology.drawing import draw
from topology.errors import BadCollective, BadLink
from topology.faults import Damage, apply
from topology.links import PROFILES

# Above this many links a simulated hour is looked at once a minute, not once a second.
_MANY_LINKS = 5_000

PERIOD = ClockSpec().hac_period_cycles
CLOCK_WORDS = f"""
An epoch is {PERIOD} cycles of a chip's clock; programs start where one begins. A deskew is a wait
after which a chip agrees with its parent in the tree again. Slip is how much later than scheduled
a vector arrives on clocks that drift, the margin how much later it may."""
# What a key ends with, and how its value is shown.
UNITS = (
    ("_bytes_per_s", 1e-9, "GB/s", ",.4g"),
    ("_cycles", 1, "cycles", ",.6g"),
    ("_s", 1, "s", ",.6g"),
)
_link = click.option(
    "--link", "links", multiple=True, metavar="FIELD=VALUE",
    help="Override a field of the link or its profile, e.g. latency_cycles=300.",
)  # fmt: skip
_profile = click.option(
    "--profile",
    type=NAME,
    metavar="NAME",
    help=f"Link profile: {', '.join(PROFILES)} (default by topology).",
)
_faults = click.option(
    "--faults", metavar="LIST", help="Dead parts, e.g. link:0-1,chip:5,node:2,links:4:SEED."
)
_draw = click.option(
    "--draw", "picture", type=PICTURE, metavar="FILE", help="Write a picture, .svg or .png."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command("topology")
@click.argument("spec", type=TOPOLOGY)
@_profile
@_link
@_faults
@_draw
@click.option("--clocks", is_flag=True, help="Also print start-up cost, margins, a simulated hour.")
@click.option("--drift-ppm", type=DRIFT, help="Actual drift in the simulated hour.")
@click.option("--jitter-seed", type=SEED, default=0, show_default=True, help="Seed of the hour.")
@_json
def topology_command(
    spec: str,
    profile: str | None,
    links: tuple[str, ...],
    faults: str | None,
    picture: Path | None,
    clocks: bool,
    drift_ppm: float | None,
    jitter_seed: int,
    as_json: bool,
) -> None:
    """Print the facts of the topology SPEC, such as `torus:8x8x8` or `file:my.graphml`."""
    graph, damage = _graph(spec, profile, links, faults)
    found = facts(graph)
    report: dict[str, Any] = {**dataclasses.asdict(found), **_link_report(graph)}
    report["hop_histogram"] = list(found.hop_histogram)
    if damage is not None:
        report["faults"] = _damage_report(damage)
    if clocks:
        report["clocks"] = _clock_report(graph, drift_ppm, jitter_seed)
    if picture is not None:
        draw(graph, str(picture))
        report["picture"] = str(picture)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_facts(found, report)


@click.command("collective")
@click.argument("operation", metavar="OP")
@click.option(
    "--topology", "spec", type=TOPOLOGY, default="node", show_default=True, metavar="SPEC"
)
@click.option("--bytes", "num_bytes", type=ByteCount(), default=1 << 20, show_default=True,
              metavar="N", help="Size of one chip's full buffer, also as 64k, 1M, 1MiB.",
              )  # fmt: skip
@click.option("--algorithm", default="auto", show_default=True)
@click.option("--chips", metavar="A,B,..", help="Group of chips, ranges as 0-7 (default: all).")
@click.option("--root", type=int, metavar="CHIP", help="Root of broadcast or reduce.")
@click.option("--chunks", type=COUNT, metavar="N", help="Blocks per share.")
@sums_option
@click.option(
    "--execute",
    is_flag=True,
    help="Also run it on emulated chips, on random fp32 data, and compare with NumPy.",
)
@click.option("--seed", type=SEED, default=0, show_default=True,
              help="Seed of that data.")  # fmt: skip
@_profile
@_link
@_faults
@_draw
@_json
def collective_command(
    operation: str,
    spec: str,
    num_bytes: int,
    algorithm: str,
    chips: str | None,
    root: int | None,
    chunks: int | None,
    sums_between_nodes: str,
    execute: bool,
    seed: int,
    profile: str | None,
    links: tuple[str, ...],
    faults: str | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Time the collective OP (all_reduce, all_gather, ...) and check it for contention.

    With --execute buffers are whole fp32 rows of 320 lanes, padded if need be; the exit code is 1
    if a bit of the result differs from NumPy's.
    """
    operation = operation.replace("-", "_")
    graph, damage = _graph(spec, profile, links, faults)
    group = _group(operation, graph, chips)
    unit = WIDTHS["f32"] if execute else 1
    timed = collective(
        *(operation, graph, num_bytes, algorithm, group, root, chunks),
        unit_vectors=unit,
        sums_between=sums_between_nodes,
    )
    timed.check()
    report = _collective_report(timed, spec)
    if execute:
        report |= _execution_report(timed, seed)
    if damage is not None:
        report["faults"] = _damage_report(damage)
    if picture is not None:
        draw(graph, str(picture), f"{operation} on {graph.graph['name']}: {timed.cycles:,} cycles")
        report["picture"] = str(picture)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_table(f"{operation} on {graph.graph['name']}", report)
    if report.get("wrong_values"):
        click.get_current_context().exit(1)


def _graph(
    spec: str, profile: str | None, links: tuple[str, ...], faults: str | None
) -> tuple[nx.Graph, Damage | None]:
    overrides: dict[str, object] = {}
    for text in links:
        field, equals, value = text.partition("=")
        if not equals:
            raise BadLink(text, "", "write it as field=value, e.g. latency_cycles=300")
        overrides[field.strip()] = value.strip()
    graph = parse(spec, profile, overrides)
    if faults is None:
        return graph, None
    damage = apply(graph, faults)
    return damage.graph, damage


def _group(operation: str, graph: nx.Graph, chips: str | None) -> list[int] | None:
    if chips is None:
        # Without a group, point to point goes between the first and the last chip.
        return [min(graph), max(graph)] if operation == "point_to_point" else None
    group: list[int] = []
    for part in chips.split(","):
        first, dash, last = part.partition("-")
        try:
            numbers = range(int(first), int(last if dash else first) + 1)
            missing = [chip for chip in (numbers[0], numbers[-1]) if chip not in graph]
            if missing:
                raise BadCollective(
                    operation, f"there is no chip {missing[0]}", f"name some of 0-{max(graph)}"
                )
            group += numbers
        except (ValueError, IndexError):
            raise BadCollective(
                operation, f"group '{chips}' is not a list of chips", "write it as 0,1,4-7"
            ) from None
    return group


def _link_report(graph: nx.Graph) -> dict[str, Any]:
    links = (data["link"] for *_, data in graph.edges(data=True))
    kinds = Counter(dataclasses.replace(link, count=1, kind="") for link in links)
    link = kinds.most_common(1)[0][0] if kinds else graph.graph["profile"].link
    latencies = sorted({kind.latency_cycles for kind in kinds})
    return {
        "link_latencies_cycles": latencies,
        "clock_hz": graph.graph["profile"].clock_hz,
        "link": {
            "cycles_per_vector": str(link.cycles_per_vector),
            "latency_cycles": link.latency_cycles,
            "endpoint_cycles": link.endpoint_cycles,
            "payload_bytes": link.payload_bytes,
            "bytes_per_vector_wire": link.bytes_per_vector_wire,
            "bytes_per_s": link.bytes_per_s(graph.graph["profile"].clock_hz),
            "source": link.source,
        },
    }


def _damage_report(damage: Damage) -> dict[str, Any]:
    return {
        "dead_chips": list(damage.dead_chips),
        "dead_cables": damage.dead_cables,
        "lost_bytes_per_s": damage.lost_bytes_per_s,
        "lost_bisection_bytes_per_s": damage.lost_bisection_bytes_per_s,
        "unreachable_chips": list(damage.unreachable),
    }


def _clock_report(graph: nx.Graph, drift_ppm: float | None, seed: int) -> dict[str, Any]:
    plan: ClockPlan = clock_plan(graph, ClockSpec())
    every_s = 1 if graph.size() < _MANY_LINKS else 60
    hour = simulate(graph, plan, drift_ppm=drift_ppm, seed=seed, every_s=every_s)
    return {
        "root": plan.root,
        "tree_height": plan.height,
        "startup_epochs": plan.startup_epochs,
        "startup_cycles": plan.startup_cycles,
        "deskew_cycles_max": plan.deskew_cycles,
        "margin_cycles": plan.spec.margin_cycles,
        "jitter_cycles": plan.jitter_cycles,
        "alignment_cycles": plan.alignment_cycles,
        "drift_cycles": plan.drift_cycles,
        "runtime_deskew_interval_cycles": plan.runtime_deskew_interval_cycles,
        "runtime_deskew_cycles": plan.runtime_deskew_cycles,
        "runtime_deskew_overhead": plan.overhead,
        "simulated_s": hour.seconds,
        "receives_checked": hour.receives_checked,
        "worst_slip_cycles": hour.worst_slip_cycles,
        "worst_link": list(hour.worst_link),
        "slack_cycles": hour.slack_cycles,
    }


def _collective_report(timed: Collective, spec: str) -> dict[str, Any]:
    return {
        "operation": timed.operation,
        "topology": spec,
        "algorithm": timed.algorithm,
        "sums_between_nodes": timed.messages.job.sums_between,
        "chips": len(timed.chips),
        "bytes": timed.bytes,
        "vectors": timed.vectors,
        "cycles": timed.cycles,
        "seconds": timed.seconds,
        "lower_bound_cycles": timed.lower_bound_cycles,
        "algbw_bytes_per_s": timed.algbw_bytes_per_s,
        "busbw_bytes_per_s": timed.busbw_bytes_per_s,
        "messages": timed.message_count,
        "link_utilisation": timed.link_utilisation(),
    }


def _execution_report(timed: Collective, seed: int) -> dict[str, Any]:
    from cluster.runs.collective import execute_collective  # the machine takes time to import

    found = execute_collective(timed, seed)
    return {
        "padded_bytes": timed.vectors * timed.fabric.payload_bytes,
        "executed_cycles": found.cycles,
        "instructions": found.instructions,
        "wrong_values": found.wrong_values,
        "equal_to_numpy": found.wrong_values == 0,
    }


def _print_facts(found: Facts, report: dict[str, Any]) -> None:
    rows: dict[str, Any] = {
        "chips": f"{found.chips:,}",
        "links (cables)": f"{found.links:,} ({found.cables:,})",
        "most ports on a chip": found.ports_max,
        "diameter": counted(found.diameter_hops, "hop"),
        "mean distance": f"{found.mean_hops:.3f} hops",
        "bisection, one direction": (
            f"{found.bisection_bytes_per_s / 1e9:,.1f} GB/s over "
            f"{counted(found.bisection_cables, 'cable')} "
            f" ({'exact' if found.bisection_exact else 'best cut found'})"
        ),
        "SRAM": f"{found.sram_bytes / 1e9:,.2f} GB ({found.sram_bytes / 2**30:,.1f} GiB)",
        "latency, farthest pair": f"{found.max_latency_s * 1e6:.3f} us",
        "link": f"{report['link']['bytes_per_s'] / 1e9:.3f} GB/s, "
        f"{_span(report['link_latencies_cycles'])} cycles per hop ({found.profile})",
    }
    _print_table(f"topology {found.name}", rows)
    for part in ("faults", "clocks"):
        if part in report:
            click.echo()
            _print_table(part, report[part])
    if "clocks" in report:
        click.echo(CLOCK_WORDS)
    if "picture" in report:
        click.echo(f"picture: {report['picture']}")


def _span(numbers: list[int]) -> str:
    ends = sorted({*numbers[:1], *numbers[-1:]})
    return " to ".join(map(str, ends)) or "no"


def _print_table(title: str, rows: dict[str, Any]) -> None:
    click.echo(title)
    show_table(dict(_labelled(name, value) for name, value in rows.items()))


def _labelled(key: str, value: Any) -> tuple[str, str]:
    """A fact as people read it: the unit that its key ends with goes to its value."""
    for ending, factor, unit, form in UNITS:
        if key.endswith(ending) and isinstance(value, int | float):
            name = key.removesuffix(ending).replace("_", " ")
            return name or key, f"{value * factor:{form}} {unit}"
    return key.replace("_", " "), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, dict):
        return ", ".join(" ".join(_labelled(name, part)) for name, part in value.items())
    if isinstance(value, list) and len(value) > 12:
        return f"{', '.join(map(str, value[:12]))}, ... ({len(value)} in all)"
    return f"{value:,}" if isinstance(value, int) else str(value)


# The operations and algorithms are looked up in their registries; naming them here would be a copy.
collective_command.epilog = f"OP is one of {', '.join(OPERATIONS)}; algorithms: auto, " + ", ".join(
    sorted({name for known in ALGORITHMS.values() for name in known})
)
