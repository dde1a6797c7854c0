"""One launch as a Chrome trace: what Perfetto shows of every chip, instruction by instruction.

One microsecond of the trace is one cycle. A process is a chip, a thread is an instruction queue;
arrows join the Send and the Receive of a packet.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from chip.board import Cable
from chip.isa import lookup
from chip.own_spec import chip_of
from chip.program import Instruction, Program
from chip.spec import ChipSpec
from chip.wire import unpack
from cluster.compiler.lower import Lowered

Event = dict[str, Any]
Port = tuple[int, int]

UNITS = {
    "icu": "ICU",
    "mem.r": "MEM read",
    "mem.w": "MEM write",
    "vxm": "VXM ALU",
    "sxm": "SXM",
    "mxm.lw": "MXM load weights",
    "mxm.iw": "MXM install weights",
    "mxm.abc": "MXM activations",
    "mxm.acc": "MXM accumulate",
    "c2c.s": "C2C send",
    "c2c.r": "C2C receive",
}


def trace(lowered: Lowered, name: str, joined: Mapping[int, str]) -> bytes:
    """JSON of launch `name` of a model, from its decoded programs alone.

    `joined` says whose launch's program each chip runs in it.
    """
    programs = {chip: unpack(lowered.launches[p].programs[chip]) for chip, p in joined.items()}
    labels = {
        chip: f"stage {stage} rank {rank}"
        for stage, group in enumerate(lowered.placement)
        for rank, chip in enumerate(group)
    }
    titles = {chip: labels.get(chip, "transit") for chip in programs}
    return trace_programs(programs, titles, lowered.cables, name)


def trace_programs(
    programs: Mapping[int, Program],
    titles: Mapping[int, str],
    cables: tuple[Cable, ...],
    name: str,
) -> bytes:
    """JSON of one launch of programs, by chip; `titles` stand beside the chips' numbers."""
    events: list[Event] = []
    ends = []
    for chip, program in sorted(programs.items()):
        events += _names(chip, program, titles[chip])
        events += (_slice(chip, *placed) for placed in _instructions(program))
        ends.append(end_cycle(program, chip_of(program.spec)))
    events += _flows(programs, cables)
    about = {"launch": name, "end_cycle": max(ends), "unit": "1 us is 1 cycle"}
    body = {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}
    return json.dumps(body, separators=(",", ":")).encode()


def end_cycle(program: Program, spec: ChipSpec) -> int:
    """Cycle at which the last result has left the last tile, from the instructions alone."""
    ends = [0]
    for _, cycle, instruction in program.instructions():
        timing = lookup(instruction.op).timing
        delay = spec.d_func(timing) if timing else 0
        ends.append(cycle + instruction.span_cycles + delay + spec.superlanes)
    return program.start_cycle + max(ends)


def _instructions(program: Program) -> Iterator[tuple[str, int, Instruction]]:
    for queue, cycle, instruction in program.instructions():
        yield queue, program.start_cycle + cycle, instruction


def _names(chip: int, program: Program, label: str) -> Iterator[Event]:
    title = {"name": f"chip-{chip:03d} {label}"}
    yield {"ph": "M", "pid": chip, "name": "process_name", "args": title}
    for queue in program.queues:
        family, _, index = queue.partition(":")
        thread = {"name": f"{UNITS.get(family, family)} {index}".strip()}
        yield {"ph": "M", "pid": chip, "tid": _thread(queue), "name": "thread_name", "args": thread}


def _thread(queue: str) -> int:
    """A number per queue that sorts by unit, then by index."""
    family, _, index = queue.partition(":")
    return list(UNITS).index(family) * 1000 + int(index or 0)


def _slice(chip: int, queue: str, cycle: int, instruction: Instruction) -> Event:
    loops = [f"{n} every {interval}" for n, interval, _ in instruction.loops if n > 1]
    details = {"instruction": str(instruction), "cycle": cycle, "repeats": " x ".join(loops) or "1"}
    return {
        "ph": "X",
        "name": instruction.op,
        "pid": chip,
        "tid": _thread(queue),
        "ts": cycle,
        "dur": instruction.span_cycles + 1,
        "args": details,
    }


def _flows(programs: Mapping[int, Program], cables: tuple[Cable, ...]) -> Iterator[Event]:
    """An arrow per packet, from its Send to the Receive that starts when it arrives."""
    ends: dict[Port, tuple[Port, int]] = {}
    for cable in cables:
        near, far = (cable.chip, cable.port), (cable.other_chip, cable.other_port)
        ends[near], ends[far] = (far, cable.latency_cycles), (near, cable.latency_cycles)
    number = 0
    for chip, program in sorted(programs.items()):
        for queue, cycle, instruction in _instructions(program):
            if instruction.op == "c2c.send":
                (peer, port), latency = ends[chip, int(queue.partition(":")[2])]
                same = {"name": "packet", "cat": "c2c", "id": number}
                yield same | {"ph": "s", "pid": chip, "tid": _thread(queue), "ts": cycle}
                there = {"pid": peer, "tid": _thread(f"c2c.r:{port}"), "ts": cycle + latency}
                yield same | {"ph": "f", "bp": "e"} | there
                number += 1
