"""Steps of a launch as a timeline, at three levels of detail.

*segments*: what each chip does between two exchanges, in its layer. *kernels*: below them, on each
unit of a chip, from when to when it works for an op. *instructions*: each instruction in its queue.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from chip.board import Cable
from chip.program import Instruction
from chip.schedule import Schedule
from cluster.tracing.counters import Busy, counters
from cluster.tracing.events import (
    INSTRUCTIONS,
    SEGMENT_TRACK,
    SEGMENTS,
    Counter,
    Flow,
    Slice,
    Timeline,
    Track,
)
from cluster.tracing.steps import PlacedStep

# What stands before a matrix's name in a label says where it lies, not which op reads it.
PREFIX = re.compile(r"\b(layer\d*|head|opening)\.")
START, STALL = "start of the chips", "deskew"
Ends = Mapping[tuple[int, int], tuple[int, int, int]]  # (chip, port) -> peer, its port, latency


@dataclass(frozen=True)
class Launch:
    """A launch to be shown: its steps in order, and for the finest level what queues hold.

    `programs` yields (chip, queue, first cycle, instruction), all of a chip behind one another.
    """

    name: str
    clock_hz: float
    lanes: int
    startup_cycles: int
    end_cycles: Mapping[int, int]
    titles: Mapping[int, str]
    steps: Sequence[PlacedStep]
    stalls: Sequence[tuple[Collection[int], int, int]] = ()
    cables: Sequence[Cable] = ()
    programs: Sequence[tuple[int, str, int, Instruction]] = ()


def timeline(launch: Launch, level: str, chips: Collection[int] | None = None) -> Timeline:
    """The timeline of a launch, of these chips alone if they are given."""
    wanted = set(launch.titles if chips is None else chips)
    slices = list(_segments(launch, wanted))
    found: list[Flow] = []
    counted: list[Counter] = []
    if level == SEGMENTS:
        found = _handed_over(slices)
    else:
        units = _kernels(launch, wanted)
        busy = [Busy(chip, one.unit, one.first, one.end, one.queue_cycles, one.sram_bytes)
                for chip, one in units]  # fmt: skip
        if level == INSTRUCTIONS:
            fine = list(_instructions(launch, wanted))
        else:
            fine = list(_in_lanes(launch, units))
        found = _sent(fine, len(slices), ends_of(launch.cables))
        slices += fine
        counted = counters(busy)
    titles = {chip: title for chip, title in sorted(launch.titles.items()) if chip in wanted}
    end = max(launch.end_cycles.values(), default=0)
    return Timeline(
        launch.name, level, end, launch.clock_hz, titles, slices, tuple(found), tuple(counted)
    )


def ends_of(cables: Iterable[Cable]) -> Ends:
    """Where each port leads, both ways."""
    found = {}
    for one in cables:
        found[one.chip, one.port] = (one.other_chip, one.other_port, one.latency_cycles)
        found[one.other_chip, one.other_port] = (one.chip, one.port, one.latency_cycles)
    return found


# --- segments -------------------------------------------------------------------------------------
def _segments(launch: Launch, wanted: set[int]) -> Iterator[Slice]:
    """What each chip does in turn, layers around their segments."""
    by_chip: dict[int, list[tuple[int, int, PlacedStep]]] = defaultdict(list)
    for step in launch.steps:
        firsts, ends = step.timing.first_cycles, step.timing.end_cycles
        for member, first, end in zip(step.timing.members, firsts, ends, strict=True):
            if step.chip(member) in wanted:
                placed = (step.cycle + first, step.cycle + end, step)
                by_chip[step.chip(member)].append(placed)
    for chip in sorted(wanted):
        track = Track(chip, SEGMENT_TRACK)
        mine = sorted(by_chip[chip], key=lambda one: one[:2])
        if launch.startup_cycles:
            yield Slice(track, START, 0, launch.startup_cycles)
        # A result is on its way through the superlanes while the next step has begun.
        nexts = [*(start for start, *_ in mine), launch.end_cycles.get(chip, 0)][1:]
        whole = [
            Slice(track, step.name, start, max(start + 1, min(end, after)), _about(step))
            for (start, end, step), after in zip(mine, nexts, strict=True)
        ]
        for (stage, layer), some in groupby(whole, _layer_of):
            part = list(some)
            if layer is not None:
                about = {"stage": stage, "layer": layer}
                yield Slice(track, f"layer {layer}", part[0].start, part[-1].end, about)
            yield from part
        for chips, start, cycles in launch.stalls:
            if chip in chips:
                yield Slice(track, STALL, start, start + cycles)


def _layer_of(one: Slice) -> tuple[int | None, int | None]:
    return one.args.get("stage"), one.args.get("layer")


def _about(step: PlacedStep) -> dict[str, int]:
    found = {"stage": step.stage, "layer": step.layer}
    return {name: value for name, value in found.items() if value is not None}


def _handed_over(slices: Sequence[Slice]) -> list[Flow]:
    """From a transfer on the chip that begins it to the chips that it comes to."""
    found = []
    transfers = [n for n, one in enumerate(slices) if one.name == "transfer"]
    by_time = sorted(transfers, key=lambda n: (slices[n].args.get("stage", 0), slices[n].start))
    for _, some in groupby(by_time, lambda n: slices[n].args.get("stage", 0)):
        first, *others = some
        found += [Flow(first, slices[first].start, n, slices[n].start) for n in others]
    return found


# --- kernels --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kernel:
    """What a unit does for an op of a step: queue cycles are those of all its queues together."""

    label: str
    unit: str
    first: int
    end: int
    queue_cycles: int
    instructions: int
    issues: int
    sram_bytes: int
    step: str = ""


def unit_of(queue: str) -> str:
    """A family, as `mxm.lw`, or for links the port itself: `c2c.s:3`."""
    family = queue.partition(":")[0]
    return queue if family in ("c2c.s", "c2c.r") else family


def kernels_of(part: Schedule) -> dict[int, list[Kernel]]:
    """What the units of each member do in a schedule, from its own cycle 0 on."""
    found: dict[tuple[int, str, str], list[int]] = {}
    lanes = part.spec.lanes
    for label, member, queue, cycle, one in part.labelled():
        key = (member, label, unit_of(queue))
        mine = found.setdefault(key, [cycle, cycle, 0, 0, 0, 0])
        end = cycle + one.queue_cycles
        mine[0], mine[1] = min(mine[0], cycle), max(mine[1], end)
        mine[2] += one.queue_cycles
        mine[3] += 1
        mine[4] += one.count
        mine[5] += one.count * lanes if queue[:4] == "mem." else 0
    by_member: dict[int, list[Kernel]] = defaultdict(list)
    for (member, label, unit), (first, end, cycles, count, issues, size) in found.items():
        op = PREFIX.sub("", label)
        by_member[member].append(Kernel(op, unit, first, end, cycles, count, issues, size))
    return by_member


def _kernels(launch: Launch, wanted: set[int]) -> list[tuple[int, Kernel]]:
    """(chip, kernel) of all steps; what repeats is looked into once."""
    known: dict[Schedule, dict[int, list[Kernel]]] = {}
    found = []
    for step in launch.steps:
        for part, everyone in step.parts:
            if part not in known:
                known[part] = kernels_of(part)
            for members in everyone:
                for number, kernels in known[part].items():
                    chip = step.chip(members[number] if members else number)
                    if chip in wanted:
                        found += [(chip, _later(one, step)) for one in kernels]
    return found


def _later(kernel: Kernel, step: PlacedStep) -> Kernel:
    first, end = kernel.first + step.cycle, kernel.end + step.cycle
    name = kernel.label if step.layer is None else f"layer {step.layer} {kernel.label}"
    return replace(kernel, label=name, first=first, end=end, step=step.what)


def _in_lanes(launch: Launch, kernels: Sequence[tuple[int, Kernel]]) -> Iterator[Slice]:
    """A slice each, on the first lane of its unit where it meets no other."""
    free: dict[tuple[int, str], list[int]] = defaultdict(list)
    peers = ends_of(launch.cables)
    for chip, one in sorted(kernels, key=lambda k: (k[0], k[1].unit, k[1].first, k[1].end)):
        lanes = free[chip, one.unit]
        lane = next((n for n, end in enumerate(lanes) if end <= one.first), len(lanes))
        lanes[lane : lane + 1] = [one.end]
        args: dict[str, int | str] = {
            "step": one.step,
            "queue_cycles": one.queue_cycles,
            "instructions": one.instructions,
            "issues": one.issues,
        }
        port = one.unit.partition(":")[2]
        if port:
            args |= {"bytes": one.issues * launch.lanes}
            args |= {"peer": peers[chip, int(port)][0]} if (chip, int(port)) in peers else {}
        yield Slice(Track(chip, one.unit, lane), one.label, one.first, one.end, args)


# --- instructions ---------------------------------------------------------------------------------
def _instructions(launch: Launch, wanted: set[int]) -> Iterator[Slice]:
    """A slice for every instruction, with the op that it is for where a step says so."""
    labels = {(chip, queue, cycle): label for chip, label, queue, cycle in _labels(launch, wanted)}
    for chip, queue, cycle, one in launch.programs:
        if chip not in wanted:
            continue
        loops = [f"{n} every {interval}" for n, interval, _ in one.loops if n > 1]
        args: dict[str, int | str] = {
            "instruction": str(one),
            "cycle": cycle,
            "repeats": " x ".join(loops) or "1",
            "issues": one.count,
        }
        if (chip, queue, cycle) in labels:
            args["kernel"] = labels[chip, queue, cycle]
        if unit_of(queue) == queue:
            args["bytes"] = one.count * launch.lanes
        yield Slice(Track(chip, queue), one.op, cycle, cycle + one.span_cycles + 1, args)


def _labels(launch: Launch, wanted: set[int]) -> Iterator[tuple[int, str, str, int]]:
    known: dict[Schedule, list[tuple[str, int, str, int, Instruction]]] = {}
    for step in launch.steps:
        for part, everyone in step.parts:
            if part not in known:
                known[part] = list(part.labelled())
            for members in everyone:
                for label, number, queue, cycle, _ in known[part]:
                    chip = step.chip(members[number] if members else number)
                    if chip in wanted:
                        said = PREFIX.sub("", label)
                        named = said if step.layer is None else f"layer {step.layer} {said}"
                        yield chip, named, queue, step.cycle + cycle


# --- flows ----------------------------------------------------------------------------------------
def _sent(slices: Sequence[Slice], offset: int, ends: Ends) -> list[Flow]:
    """From each send to the receive that is there when its first vector arrives."""
    receives: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number, one in enumerate(slices):
        if one.track.unit.partition(":")[0] == "c2c.r":
            receives[one.track.chip, one.track.unit].append(number)
    found = []
    for number, one in enumerate(slices):
        family, _, port = one.track.unit.partition(":")
        if family != "c2c.s":
            continue
        peer, other, latency = ends[one.track.chip, int(port)]
        arrives = one.start + latency
        for target in receives.get((peer, f"c2c.r:{other}"), ()):
            if slices[target].start <= arrives < slices[target].end:
                found.append(Flow(offset + number, one.start, offset + target, arrives))
                break
    return found
