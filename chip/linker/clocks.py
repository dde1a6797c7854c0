"""The chip's clock: how a program starts, and that it re-aligns its counters where it must."""

from dataclasses import dataclass

import numpy as np

from chip.errors import DeskewMismatch, DeskewOverdue, DeskewOverlap, HazardError, OutOfStep
from chip.isa import lookup
from chip.linker.streams import drive_keys, read_keys
from chip.linker.timeline import Issue, Timeline
from chip.program import Instruction, Ints, Program
from chip.spec import ChipSpec

Deskews = tuple[tuple[int, int], ...]  # (cycle relative to the start, stall)


@dataclass(frozen=True)
class Startup:
    """A start sequence on the launch's time axis; (port, cycle) of the notices it exchanges."""

    aligned_cycle: int
    transmits: tuple[tuple[int, int], ...] = ()
    awaits: tuple[tuple[int, int], ...] = ()


def startup(program: Program, spec: ChipSpec, reach_cycles: int) -> Startup:
    """Recompute the start cycle of a program from its start sequence.

    `reach_cycles` is how long after its start it issues before its first Runtime deskew. Raises
    OutOfStep or DeskewOverdue. A program without a sequence is taken to be aligned at its start.
    """
    found = _startup(program, spec) if program.startup else Startup(program.start_cycle)
    limit = program.deskew_interval_cycles
    since = program.start_cycle - found.aligned_cycle + reach_cycles
    if limit and since > limit:
        detail = f"issues {since} cycles after its Deskew, the clocks allow {limit}"
        raise _refused(DeskewOverdue, program, program.start_cycle, detail)
    return found


def _startup(program: Program, spec: ChipSpec) -> Startup:
    cycle, aligned = 0, -1
    transmits: list[tuple[int, int]] = []
    awaits: list[tuple[int, int]] = []
    for instruction in program.startup:
        period, args, op = spec.hac_period_cycles, instruction.args, lookup(instruction.op)
        if op.steers == "deskew":
            cycle += op.function(cycle % period, period)
            aligned = cycle
        elif op.steers == "await":
            if args[1] < cycle:
                detail = f"the start comes at cycle {args[1]}, before the chip listens"
                raise _refused(OutOfStep, program, cycle, detail, instruction)
            cycle = op.function(args[1])
            awaits.append((args[0], args[1]))
        elif op.steers == "transmit":
            if cycle != aligned:
                detail = f"not at an epoch boundary, after a Deskew; the period is {period}"
                raise _refused(OutOfStep, program, cycle, detail, instruction)
            transmits += [(port, cycle) for port in op.function(*args)]
            cycle += 1
        elif op.steers == "wait":
            cycle += op.function(*args)
        else:
            raise _refused(OutOfStep, program, cycle, "has no place there", instruction)
    if aligned < 0 or cycle != program.start_cycle or cycle - aligned < spec.barrier_cycles:
        detail = (
            f"Deskew ends at cycle {aligned}, the sequence at {cycle}, the program starts at "
            f"{program.start_cycle}; the queues are released {spec.barrier_cycles} cycles after"
        )
        raise _refused(OutOfStep, program, cycle, detail)
    return Startup(aligned, tuple(transmits), tuple(awaits))


def _refused(
    kind: type[HazardError],
    program: Program,
    cycle: int,
    detail: str,
    instruction: Instruction | None = None,
) -> HazardError:
    text = str(instruction) if instruction else "start"
    return kind(program.chip, "icu", cycle, text, detail)


def check_deskews(issues: Timeline) -> tuple[Deskews, int]:
    """(the Runtime deskews, last issue cycle before the first of them).

    Raises DeskewMismatch, DeskewOverlap or DeskewOverdue.
    """
    deskews = _on_all_queues(issues.program)
    for cycle, _ in deskews:
        _check_quiet(issues, cycle)
    cycles = [cycle for cycle, _ in deskews]
    aligned = np.array([0, *(cycle + stall for cycle, stall in deskews)], np.int64)
    turn = np.searchsorted(cycles, issues.cycle, side="right")
    limit, since = issues.program.deskew_interval_cycles, issues.last - aligned[turn]
    if limit and len(late := np.flatnonzero(since > limit)):
        issue = issues[int(late[0])]
        detail = f"{int(since[late[0]])} cycles after the last deskew, the clocks allow {limit}"
        raise issue.hazard(DeskewOverdue, detail, issue.last_cycle)
    return deskews, int(issues.last[turn == 0].max(initial=0))


def _on_all_queues(program: Program) -> Deskews:
    common: Deskews | None = None
    for queue in program.queues:
        mine = program.deskews(queue)
        if common is None:
            common, first = mine, queue
        elif mine != common:
            cycle = min(c for c, _ in set(mine) ^ set(common))
            detail = f"queues {first} and {queue} do not stall alike"
            raise DeskewMismatch(program.chip, queue, cycle, "icu.runtime_deskew", detail)
    return common or ()


def _check_quiet(issues: Timeline, cycle: int) -> None:
    """Nothing issues, drives or waits to be read across the deskew at `cycle`."""
    first, ends, spec = issues.cycle, issues.driven, issues.spec
    number = int(np.searchsorted(first, cycle))
    under_way = np.flatnonzero(ends[:number] > cycle)
    if len(under_way):
        issue = issues[int(under_way[0])]
        detail = f"until cycle {int(ends[under_way[0]])}, the chip deskews at {cycle}"
        raise issue.hazard(DeskewOverlap, detail)
    near = np.flatnonzero(ends[:number] > cycle - spec.positions)
    after = issues[number : int(np.searchsorted(first, cycle + spec.positions))]
    old = _driven([issues[n] for n in near.tolist()], spec)
    new = _driven(after, spec)
    for issue in after:
        for channel, keys in read_keys(issue, spec):
            nearest = _below(old.get(channel), keys)
            crosses = nearest // spec.positions == keys // spec.positions
            if (crosses & (nearest > _below(new.get(channel), keys))).any():
                detail = f"what it reads was driven before the deskew at cycle {cycle}"
                raise issue.hazard(DeskewOverlap, detail)


def _driven(issues: list[Issue], spec: ChipSpec) -> dict[int, Ints]:
    """Sorted keys (diagonal, position) that issues drive, by channel."""
    found: dict[int, list[Ints]] = {}
    for issue in issues:
        for channel, keys in drive_keys(issue, spec):
            found.setdefault(channel, []).append(keys)
    return {channel: np.sort(np.concatenate(keys)) for channel, keys in found.items()}


def _below(driven: Ints | None, keys: Ints) -> Ints:
    """The greatest of `driven` below each key: the nearest driver upstream; else a very low one."""
    lowest = np.int64(np.iinfo(np.int64).min)
    if driven is None:
        return np.full_like(keys, lowest)
    at = np.searchsorted(driven, keys) - 1
    return np.where(at < 0, lowest, driven[np.maximum(at, 0)])
