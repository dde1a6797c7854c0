"""The page of a run: of one prompt, or of many."""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from chip.energy import energy_table
from cluster.compiler.bound import layer_bound
from cluster.compiler.launch import LaunchKind, launch_kinds, stage_programs
from cluster.compiler.lower import Lowered
from cluster.report.page import Page, Section, Table, Text
from cluster.report.parts import cycles as cycles_section
from cluster.report.parts import energy, layer_waterfall, memory, network, share_out, utilisation
from cluster.report.plots import Line, lines
from cluster.report.reproduce import command_line, versions
from cluster.runs.display import counted
from cluster.runs.report import summary
from cluster.tracing.launch import run_launch
from cluster.tracing.traffic import LinkBytes

TOKENS_SHOWN = 400  # characters of an answer


def run_page(
    lowered: Lowered,
    graph: nx.Graph,
    launch: tuple[str, Mapping[int, str]],
    links: LinkBytes,
    found: Mapping[str, Any],
) -> Page:
    """The page of a run; `launch` is its last one, `links` what that sent, `found` its JSON."""
    name, joined = launch
    fast, plan = found["emulated"], found["plan"]
    timed = run_launch(lowered, joined, name, [])
    last = fast["decode_cycles"][-1] if fast["decode_cycles"] else fast["prefill_cycles"]
    kinds = _kinds(lowered)

    def bound_of(stage: int, layer: int) -> int:
        kind = kinds[joined[lowered.placement[stage][0]]]
        reach = lowered.pipeline.groups_of(kind)[stage].routes.reach
        return layer_bound(lowered.plan, reach, layer, kind).cycles

    sections = [
        *_said(found),
        Section("The run", (_facts(found),)),
        *_cycles_of_tokens(fast["decode_cycles"]),
        cycles_section(share_out(timed)),
        utilisation(fast.get("utilisation") or {}, fast.get("bound_cycles"), last),
        layer_waterfall(timed, bound_of),
        memory(_stages(lowered), lowered.plan.spec.sram_bytes),
        network(graph, links, last, fast["clock_hz"]),
        *([energy(fast)] if "energy" in fast or energy_table(lowered.plan.spec) is None else []),
    ]
    title = f"{found['model']} on {counted(plan['chips'], 'chip')} of {plan['topology']}, emulated"
    shown = [one for one in sections if one is not None]
    return Page(title, _answer(found), shown, command_line(), versions(), found)


def _kinds(lowered: Lowered) -> dict[str, LaunchKind]:
    """The kind of every launch, or of every stage program, by its name."""
    programs = stage_programs(lowered.plan, lowered.pipeline.apart)
    return {str(kind): kind for kind in launch_kinds(lowered.plan)} | {
        str(program): program.kind for program in programs
    }


def _answer(found: Mapping[str, Any]) -> str:
    fast, plan, host = found["emulated"], found["plan"], found["host"]
    speed = fast["tokens_per_s"]
    where = (
        f"{counted(plan['chips'], 'emulated chip')} of {plan['topology']}, "
        f"{counted(plan['pp'], 'stage')} x tp {plan['tp']}"
    )
    rate = f"{speed:,.0f} tokens/s" if speed else "its first token"
    several = "each of its users " if "sequences" in found else ""
    return (
        f"{found['model']} gives {several}{rate} on {where}. The first token came after "
        f"{fast['time_to_first_token_s'] * 1e3:,.3f} ms of their time. Every number of the chips "
        f"is of executed instructions; emulating them took {host['wall_s']:,.1f} s here."
    )


def _said(found: Mapping[str, Any]) -> list[Section]:
    """The answer, or the first lines of several."""
    if "sequences" not in found:
        return [Section("What it said", (Text.of(_short(found["text"]) or "(nothing)"),))]
    rows = [
        (n, _short(one["text"]), len(one["output_ids"]),
         f"{one['time_to_first_token_s'] * 1e3:.3f}", f"{one['tokens_per_s'] or 0:,.0f}")
        for n, one in enumerate(found["sequences"], 1)
    ]  # fmt: skip
    head = ("prompt", "answer", "tokens", "first after ms", "tokens/s")
    return [Section("What it said", (Table(head, rows),))]


def _short(text: str) -> str:
    return text if len(text) <= TOKENS_SHOWN else f"{text[:TOKENS_SHOWN]} ..."


def _facts(found: Mapping[str, Any]) -> Table:
    if "sequences" in found:
        fast = found["emulated"]
        rows = [("in all", f"{fast['tokens_per_s_total']:,.0f} tokens/s"),
                ("digest", found["digest"])]  # fmt: skip
    else:
        rows = list(summary(found).items())
    return Table(("what", "how much"), rows)


def _cycles_of_tokens(decode: Sequence[int]) -> list[Section]:
    """How long each token took, where they differ."""
    if len(set(decode)) < 2:
        return []
    line = Line("tokens", list(range(1, len(decode) + 1)), list(decode), marker=".")
    drawn = lines([line], "token", "cycles")
    return [Section("Cycles of each token", (drawn,))]


def _stages(lowered: Lowered) -> list[tuple[str, dict[str, int]]]:
    """Layers of each stage, and what its chips hold by kind, programs among it."""
    size = lowered.plan.spec.instruction_bytes
    found = []
    for number, group in enumerate(lowered.placement):
        part = lowered.plan.stages[number]
        counts = [sum(one.instructions.get(chip, 0) for one in lowered.launches.values())
                  for chip in group]  # fmt: skip
        held = dict(lowered.stages[number].memory.bytes_by_kind())
        held["programs"] = size * max(counts)
        found.append((f"{part.layers}{' + head' if part.head else ''}", held))
    return found
