"""What pages of runs and plans have in common: memory, network, a layer, cycles, energy."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import networkx as nx

from cluster.report.page import Block, Drawing, Section, Table, Text
from cluster.report.plots import FAINT, HEAT_COLOURS, Span, bars, plain, spans, svg, themed
from cluster.tracing.levels import Launch, kernels_of
from cluster.tracing.steps import TRANSFER
from topology.drawing import picture

MIB = 2**20
KINDS = ("weights", "kv_cache", "activations", "network", "programs")
MOST_DRAWN_CHIPS = 1200  # a drawing of more is megabytes, and shows nothing
LINKS_SHOWN = 8
UNITS = (
    "MXM: the matrix units, busy when they take in weights or multiply; VXM: the vector unit; SXM: "
    "what moves and turns lanes; MEM: slices of SRAM; C2C: links. All of the chips in use."
)
Sram = Mapping[str, int]


def memory(stages: Sequence[tuple[str, Sram]], chip_bytes: int) -> Section:
    """What fills the SRAM of a chip of each stage; `stages` are (layers, bytes by kind)."""
    labels, held, rows = [], [], []
    for (layers, _), some in groupby(enumerate(stages), lambda one: _but_programs(*one[1])):
        alike = list(some)
        numbers = [number for number, _ in alike]
        sram = max((one for _, (_, one) in alike), key=lambda one: one.get("programs", 0))
        several = len(numbers) > 1
        label = f"{numbers[0]} to {numbers[-1]}" if several else f"{numbers[0]}"
        labels.append(label)
        held.append(sram)
        cells = [f"{sram.get(kind, 0) / MIB:.1f}" for kind in KINDS]
        free = f"{(chip_bytes - sum(sram.values())) / MIB:.1f}"
        rows.append((label, layers, *cells, free))
    parts = {kind.replace("_", " "): [one.get(kind, 0) / MIB for one in held] for kind in KINDS}
    drawn = bars(
        parts,
        [f"stage {label}" for label in labels],
        "MiB of SRAM of each chip",
        limit=(chip_bytes / MIB, "there is"),
    )
    head = ("stage", "layers", *(f"{kind.replace('_', ' ')} MiB" for kind in KINDS), "free MiB")
    return Section("Memory map: what a chip of each stage holds", (drawn, Table(head, rows)))


def _but_programs(layers: str, sram: Sram) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Equal for stages that hold the same; their programs differ by who passes things on."""
    held = ((kind, size) for kind, size in sram.items() if kind != "programs")
    return layers, tuple(sorted(held))


def network(
    graph: nx.Graph, links: Mapping[tuple[int, int], int], cycles: int, clock_hz: float
) -> Section:
    """The topology, links coloured by the bytes that a token sends over them."""
    if not links:
        return Section("Network", (Text.of("All of it is on one chip: no link is used."),))
    hot = sorted(links.items(), key=lambda one: -one[1])
    most, total = hot[0][1], sum(links.values())
    rows = []
    for (a, b), size in hot[:LINKS_SHOWN]:
        link = graph.edges[a, b]["link"]
        rate = link.bytes_per_s(clock_hz) * link.count
        rows.append((f"{a} to {b}", f"{size:,}", f"{size / rate / (cycles / clock_hz):.2%}"))
    said = (
        f"A token sends {total:,} bytes over {len(links):,} of {2 * graph.size():,} links "
        f"(each way counts as one)."
    )
    blocks: list[Block] = [Text.of(said)]
    if len(graph) <= MOST_DRAWN_CHIPS:
        blocks.append(heat_drawing(graph, links))
    blocks.append(
        Table(
            ("link", "bytes a token", "busy, of a token's time"), rows, "The links that carry most"
        )
    )
    name = graph.graph["name"]
    caption = f"Network: {name}, at most {most:,} bytes a token on a link"
    return Section(caption, blocks)


def heat_drawing(graph: nx.Graph, links: Mapping[tuple[int, int], float]) -> Drawing:
    """The graph, its links in six colours by what they carry."""
    most = max(links.values(), default=0)
    with themed():
        figure = picture(graph, "", heat=links, heats=(FAINT, *HEAT_COLOURS), size_in=6.4)
        drawn = svg(figure, tight=True)
    name = graph.graph["name"]
    alternative = (
        f"Drawing of {name}: {len(graph)} chips, {graph.size()} links. The table below names the "
        f"links that carry most, up to {plain(most)} bytes a token."
    )
    caption = (
        f"Chips of {name}. Bytes a token, from pale to dark: up to {plain(most)}, the most in red; "
        "grey links are not used."
    )
    return Drawing(drawn, alternative, caption)


def layer_waterfall(launch: Launch, bound_of: Callable[[int, int], int]) -> Section:
    """The ops of the first layer that a launch works on, on its first chip, cycle by cycle.

    `bound_of` gives the fewest cycles of a stage's layer, by their numbers.
    """
    steps = [one for one in launch.steps if one.layer is not None and one.stage is not None]
    mine = [one for one in steps if one.layer == steps[0].layer]
    if not mine:
        return Section("A layer", (Text.of("This launch works on no layer."),))
    layer, stage = mine[0].layer, mine[0].stage
    assert layer is not None and stage is not None
    bound = bound_of(stage, layer)
    begin = min(one.cycle for one in mine)
    found: list[Span] = []
    for step in mine:
        for part, everyone in step.parts:
            numbers = {members.get(n, n) if members else n
                       for members in everyone for n in part.members}  # fmt: skip
            if 0 not in numbers:
                continue
            # Ranks of a part do alike; a part of all ranks is read at its first.
            kernels = kernels_of(part).get(0) or kernels_of(part)[part.members[0]]
            for label, some in groupby(sorted(kernels, key=lambda k: k.label), lambda k: k.label):
                same = list(some)
                first, end = min(k.first for k in same), max(k.end for k in same)
                row = f"{label} ({step.what})" if label == "transfer" else label
                at = step.cycle - begin
                found.append(Span(row, at + first, at + end, step.what))
    length = max(one.end for one in found)
    drawn = spans(
        found,
        "cycles since the layer's first",
        bound=(bound, "no schedule takes less"),
        caption=f"Each bar is an op on chip {mine[0].chip(0)}, from its first instruction to its "
        "last on any unit.",
    )
    said = (
        f"Layer {layer} takes {plain(length)} cycles on chip {mine[0].chip(0)}; by its weights, "
        f"streams, SRAM, links and longest path no schedule takes less than {bound:,}."
    )
    return Section(f"A layer, op by op: layer {layer}", (Text.of(said), drawn))


def share_out(launch: Launch) -> dict[str, int]:
    """Cycles of a launch by what the stage that is at work does; what is left are transfers.

    Stages that work side by side are counted by the one that takes longest.
    """
    by_stage: dict[int | None, dict[str, int]] = {}
    for step in launch.steps:
        if step.what != TRANSFER:
            mine = by_stage.setdefault(step.stage, {})
            mine[step.what] = mine.get(step.what, 0) + step.timing.quiet_cycle - step.early_cycles
    total = max(launch.end_cycles.values())
    spent = sum(sum(mine.values()) for mine in by_stage.values())
    if spent > total:
        by_stage = {None: max(by_stage.values(), key=lambda mine: sum(mine.values()))}
    found: dict[str, int] = {}
    for mine in by_stage.values():
        for what, size in mine.items():
            found[what] = found.get(what, 0) + size
    found["clocks"] = launch.startup_cycles + sum({(s, c): c for _, s, c in launch.stalls}.values())
    return found | {"transfers and waiting": total - sum(found.values())}


def cycles(breakdown: Mapping[str, int]) -> Section:
    """Where the cycles of a token go."""
    total = sum(breakdown.values())
    names = {name: name.replace("_", " ") for name in breakdown}
    drawn = bars({"cycles": list(breakdown.values())}, list(names.values()), "cycles of a token")
    rows = [(names[name], f"{n:,}", f"{n / total:.1%}") for name, n in breakdown.items()]
    return Section("Where a token's cycles go", (drawn, Table(("part", "cycles", "share"), rows)))


def utilisation(
    found: Mapping[str, float], bound_cycles: int | None, cycles: int
) -> Section | None:
    """How busy units are, and how far the schedule is from the least it can take."""
    if not found and not bound_cycles:
        return None
    blocks: list[Block] = []
    if bound_cycles:
        blocks.append(
            Text.of(
                f"No schedule of this plan takes fewer than {bound_cycles:,} cycles; this one "
                f"takes {cycles:,}, {cycles / bound_cycles:.2f} times as many."
            )
        )
    if found:
        units = (name.partition("_") for name in found)
        names = [f"{unit.upper()} {part}".strip() for unit, _, part in units]
        shares = dict(zip(names, (100 * share for share in found.values()), strict=True))
        drawn = bars({"busy": list(shares.values())}, list(shares), "% of the time", caption=UNITS)
        blocks.append(drawn)
    return Section("Utilisation: how busy the hardware is", blocks)


def energy(found: Mapping[str, Any]) -> Section:
    """Joules of a token, for one user and with all stages busy."""
    parts = found.get("energy")
    if not parts:
        return Section("Energy", (Text.of("No power of this chip is published to go by."),))
    one, full = found["joules_per_token"], parts["full_pipeline"]
    dynamic = parts["dynamic_j"]
    split = {
        "what instructions do": [dynamic, dynamic],
        "chips idle or not": [parts["idle_j"], full["joules_per_token"] - dynamic],
        "hosts, fans, supplies": [
            parts["system_j"] - one,
            full["system_j"] - full["joules_per_token"],
        ],
    }
    labels = ("one user", "all stages busy")
    drawn = bars(split, labels, "J per token (modelled)")
    rows = [
        (label, *(f"{values[at]:.4g}" for values in split.values()))
        for at, label in enumerate(labels)
    ]
    said = (
        f"A token costs {one:.3g} J on the chips for one user, {full['joules_per_token']:.3g} J "
        "with all stages busy. Energies are modelled; `lpu energy` shows of what."
    )
    head = ("for", *(f"{name}, J" for name in split))
    return Section("Energy of a token", (Text.of(said), drawn, Table(head, rows)))
