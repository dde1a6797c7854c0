"""The page of a plan."""

from collections.abc import Mapping
from typing import Any

from cluster.compiler.bound import layer_bound
from cluster.compiler.launch import decode_kind
from cluster.planning.planner import Planned
from cluster.report.page import Page, Section, Table, Text
from cluster.report.parts import cycles, energy, layer_waterfall, memory, network, utilisation
from cluster.report.reproduce import command_line, versions
from cluster.runs.display import counted
from cluster.tracing.events import KERNELS
from cluster.tracing.launch import plan_launch
from cluster.tracing.traffic import step_link_bytes


def plan_page(planned: Planned, found: Mapping[str, Any]) -> Page:
    """The page of a plan, and of `found`, its JSON object."""
    plan = found["plan"]
    sections = [
        Section("The plan", (_facts(found), *_notes(found))),
        cycles(found["breakdown"]),
        utilisation(found.get("utilisation", {}), found.get("bound_cycles"),
                    found["cycles_per_token"]),
        *hardware(planned, found),
        energy(found),
        _alternatives(found),
    ]  # fmt: skip
    title = f"{found['model']} on {counted(plan['chips'], 'chip')} of {plan['topology']}"
    shown = [one for one in sections if one is not None]
    return Page(title, _answer(found), shown, command_line(), versions(), found)


def hardware(planned: Planned, found: Mapping[str, Any]) -> list[Section]:
    """A layer op by op, what chips hold, and what a token sends over the links of a plan."""
    timed, plan = planned.timed, found["plan"]
    kind = decode_kind(timed.plan.context)
    launch = plan_launch(timed, kind, KERNELS)

    def bound_of(stage: int, layer: int) -> int:
        reach = timed.pipeline.groups_of(kind)[stage].routes.reach
        return layer_bound(timed.plan, reach, layer, kind).cycles

    links = step_link_bytes(launch)
    stages = [(_layers(one), one["sram"]) for one in plan["stages"]]
    return [
        layer_waterfall(launch, bound_of),
        memory(stages, plan["sram_bytes_of_a_chip"]),
        network(timed.graph, links, found["cycles_per_token"], found["clock_hz"]),
    ]


def _answer(found: Mapping[str, Any]) -> str:
    plan = found["plan"]
    users = plan["batch"]
    several = f", {found['tokens_per_s_total']:,.0f} for all of {users} users" if users > 1 else ""
    return (
        f"{found['model']} gives {found['tokens_per_s_per_user']:,.0f} tokens/s to each user"
        f"{several} on {counted(plan['chips'], 'chip')} of {plan['topology']}, "
        f"{counted(plan['pp'], 'stage')} of {counted(plan['tp'], 'chip')}. The first "
        f"token of an answer comes after {found['time_to_first_token_s'] * 1e3:,.1f} ms for a "
        f"prompt of {found['prompt_tokens']:,} tokens. {found['bottleneck'][0].upper()}"
        f"{found['bottleneck'][1:]}."
    )


def _facts(found: Mapping[str, Any]) -> Table:
    plan = found["plan"]
    rows = [
        ("chips", f"{plan['chips']:,} hold the model, {len(plan['transit_chips']):,} only forward, "
                  f"{plan['spare_chips']:,} are spare"),
        ("stages and tensor-parallel width", f"{plan['pp']} x {plan['tp']}"),
        ("weights, context", f"{plan['weights']}, {plan['context']:,} tokens"),
        ("a token", f"{found['cycles_per_token']:,} cycles at {found['clock_hz'] / 1e6:,.0f} MHz"),
        ("host link, of each token", f"{found['host_transfer_s'] * 1e6:.1f} us"),
        ("SRAM of the fullest chip", f"{plan['sram_bytes_max'] / 2**20:.1f} MiB of "
                                     f"{plan['sram_bytes_of_a_chip'] / 2**20:.0f}"),
    ]  # fmt: skip
    return Table(("what", "how much"), rows)


def _notes(found: Mapping[str, Any]) -> tuple[Text, ...]:
    return (Text.of(*found["notes"]),) if found["notes"] else ()


def _layers(stage: Mapping[str, Any]) -> str:
    return f"{stage['layers']}{' + head' if stage['head'] else ''}"


def _alternatives(found: Mapping[str, Any]) -> Section | None:
    rows = [
        (f"{one['pp']} x tp {one['tp']}", f"{one['chips']:,}", f"{one['cycles_per_token']:,}",
         f"{one['slower'] - 1:+.1%}", one["limited_by"])
        for one in found["alternatives"]
    ]  # fmt: skip
    if not rows:
        return None
    head = ("stages x width", "chips", "cycles a token", "slower", "limited by")
    return Section("The next best plans", (Table(head, rows),))
