"""First pass: the issue cycles, addresses and unit of every instruction, with the local hazards."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from chip.errors import (
    AddressError,
    BankConflict,
    ConstantWritten,
    HazardError,
    Misaligned,
    ProgramError,
    QueueConflict,
    RateExceeded,
)
from chip.isa import Op, lookup
from chip.isa.mxm import PLANES
from chip.program import WAITS, Instruction, Program, fetch_image
from chip.spec import EAST, WEST, ChipSpec

Ints = npt.NDArray[np.int64]
STORY_LINES = 4
Placed = tuple[int, str, Instruction, int, bytes]  # cycle, queue, its powered lanes, its image


@dataclass(frozen=True, eq=False)
class Issue:
    """One instruction on the time axis of its chip; cycles are relative to the program's start."""

    id: int
    chip: int
    queue: str
    family: str
    unit: int
    cycle: int
    instruction: Instruction
    op: Op
    position: int
    lanes: int  # that are powered
    image: bytes = b""  # what an Ifetch must find

    def _progression(self, first: int, column: int) -> Ints:
        (n, *outer), (m, *inner) = self.instruction.loops
        steps = np.arange(n)[:, None] * outer[column] + np.arange(m)[None, :] * inner[column]
        return first + steps.ravel()

    @cached_property
    def cycles(self) -> Ints:
        """Issue cycle of every iteration."""
        return self._progression(self.cycle, 0)

    @cached_property
    def steps(self) -> Ints:
        """Value of the stepped operand (address, column or slot) in every iteration."""
        index = self.op.stepped
        assert index is not None
        return self._progression(self.instruction.args[index], 1)

    @cached_property
    def last_cycle(self) -> int:
        return self.cycle + self.instruction.span_cycles

    @cached_property
    def words(self) -> tuple[int, int]:
        """Lowest and highest SRAM word a memory access can touch."""
        if self.op.stepped is None:
            base = self.arg("base")
            return base, base + self.arg("words") - 1
        (n, _, outer), (m, _, inner) = self.instruction.loops
        first = self.instruction.args[self.op.stepped]
        far, near = (n - 1) * outer, (m - 1) * inner
        return first + min(0, far) + min(0, near), first + max(0, far) + max(0, near)

    def arg(self, name: str) -> int:
        return self.instruction.args[self.op.index(name)]

    def line(self) -> str:
        """A line of a hazard's context."""
        return f"{self.queue} cycle {self.cycle}: {self.instruction}"

    def hazard(
        self,
        kind: type[HazardError],
        detail: str,
        cycle: int | None = None,
        story: tuple["Issue", ...] = (),
    ) -> HazardError:
        lines = tuple(issue.line() for issue in story[-STORY_LINES:])
        at = self.cycle if cycle is None else cycle
        return kind(self.chip, self.queue, at, str(self.instruction), detail, lines)


def timeline(program: Program, spec: ChipSpec) -> list[Issue]:
    """All instructions of a program in order of issue; raises on loops that collide."""
    places = {queue: locate(queue, spec) for queue in program.queues}
    placed: list[Placed] = []
    for queue in program.queues:
        placed += _on_queue(program, queue, spec)
    issues = []
    for number, (cycle, queue, instruction, lanes, image) in enumerate(
        sorted(placed, key=lambda item: item[:2])
    ):
        family, unit, position = places[queue]
        op = lookup(instruction.op)
        family = "icu" if op.queue == "any" else family
        issue = Issue(
            number,
            program.chip,
            queue,
            family,
            unit,
            cycle,
            instruction,
            op,
            position,
            lanes,
            image,
        )
        (n, outer, _), (m, inner, _) = instruction.loops
        if op.requires and op.requires not in spec.mxm_types:
            known = ", ".join(spec.mxm_types)
            raise issue.hazard(Misaligned, f"chip {spec.name} has no {op.requires}, it has {known}")
        if n > 1 and (m - 1) * inner >= outer:
            raise issue.hazard(QueueConflict, "the inner loop runs into the next outer iteration")
        issues.append(issue)
    return issues


def _on_queue(program: Program, queue: str, spec: ChipSpec) -> Iterator[Placed]:
    """What a queue issues, with its Configs and Ifetches seen to."""
    lanes = spec.lanes
    for at, (cycle, instruction) in enumerate(program.issues(queue)):
        image = b""
        if instruction.op == "icu.config":
            lanes = instruction.args[0]
            if lanes % spec.superlane_lanes or not 0 < lanes <= spec.lanes:
                steps = f"{spec.superlane_lanes} to {spec.lanes} lanes, in steps of the first"
                raise Misaligned(program.chip, queue, cycle, str(instruction), f"takes {steps}")
        elif instruction.op == "icu.ifetch":
            image = fetch_image(program.queues[queue], at, spec).tobytes()
        if instruction.op not in WAITS:
            yield cycle, queue, instruction, lanes, image


def locate(queue: str, spec: ChipSpec) -> tuple[str, int, int]:
    """(family, unit, stream-register position) of a queue name such as `mem.r:12`."""
    family, _, index = queue.partition(":")
    limits = {
        "mem.r": spec.slices,
        "mem.w": spec.slices,
        "vxm": spec.vxm_alus,
        "sxm": 2 * spec.sxm_queues,
        "mxm.lw": 2,
        "mxm.iw": 2,
        "mxm.abc": 2 * PLANES,
        "mxm.acc": 2 * PLANES,
        "c2c.s": spec.c2c_ports,
        "c2c.r": spec.c2c_ports,
    }
    known = family in limits and index.isdecimal() and str(int(index)) == index
    if not known or int(index) >= limits[family]:
        raise ProgramError(f"no queue {queue!r} on chip {spec.name}")
    unit = int(index)
    if family.startswith("mem"):
        return family, unit, spec.slice_position(unit)
    if family == "vxm":
        return family, unit, spec.vxm_position
    if family == "sxm":
        return family, unit, spec.edge_position("sxm", unit // spec.sxm_queues)
    if family.startswith("mxm"):
        return family, unit, spec.edge_position("mxm", unit % 2)
    return family, unit, spec.edge_position("c2c", WEST if unit % 2 else EAST)


def check_fetch(issues: list[Issue], spec: ChipSpec) -> None:
    """No more instructions start in a cycle than the chip fetches; repeats are fetched once."""
    limit = spec.fetch_bytes_per_cycle // spec.instruction_bytes
    cycles, counts = np.unique([issue.cycle for issue in issues], return_counts=True)
    crowded = np.flatnonzero(counts > limit)
    if len(crowded):
        cycle = int(cycles[crowded[0]])
        last = [issue for issue in issues if issue.cycle == cycle][-1]
        detail = f"{int(counts[crowded[0]])} instructions in a cycle, {limit} are fetched"
        raise last.hazard(RateExceeded, detail, cycle)


def check_memory(issues: list[Issue], program: Program, spec: ChipSpec) -> None:
    """Addresses in range, one bank port per cycle, constant regions never written."""
    constants = constant_ranges(program)
    by_slice: dict[int, list[Issue]] = {}
    for issue in issues:
        if not issue.op.in_memory:
            continue
        _check_range(issue, spec)
        if issue.op.writes_memory and issue.unit in constants:
            _check_not_constant(issue, constants[issue.unit])
        by_slice.setdefault(issue.unit, []).append(issue)
    for accesses in by_slice.values():
        _check_banks(accesses, spec)


def _check_range(issue: Issue, spec: ChipSpec) -> None:
    low, high = issue.words
    if low < 0 or high >= spec.slice_words or high < low:
        raise issue.hazard(AddressError, f"words {low}..{high} of a {spec.slice_words}-word slice")
    if issue.op.stepped is None and spec.bank(low) != spec.bank(high):
        raise issue.hazard(AddressError, f"region {low}..{high} lies in two banks")


def constant_ranges(program: Program) -> dict[int, list[tuple[int, int]]]:
    """slice -> [first word, end) of the program's constant regions."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for region in program.constants:
        for index in range(region.index, region.index + region.slices):
            ranges.setdefault(index, []).append((region.address, region.address + region.words))
    return ranges


def _check_not_constant(issue: Issue, ranges: list[tuple[int, int]]) -> None:
    low, high = issue.words
    for start, stop in ranges:
        if low < stop and start <= high:
            touched = range(low, high + 1) if issue.op.stepped is None else issue.steps
            hit = [int(w) for w in touched if start <= w < stop]
            if hit:
                raise issue.hazard(ConstantWritten, f"word {hit[0]} of slice {issue.unit}")


def _check_banks(accesses: list[Issue], spec: ChipSpec) -> None:
    """A slice serves a read and a write in one cycle only from opposite banks."""
    writes = [i for i in accesses if i.op.writes_memory]
    reads = _concurrent([i for i in accesses if i.op.reads_memory], writes)
    if not writes or not reads:
        return
    write_keys, write_of = _bank_keys(writes, spec)
    order = np.argsort(write_keys, kind="stable")
    write_keys, write_of = write_keys[order], write_of[order]
    read_keys, read_of = _bank_keys(reads, spec)
    at = np.minimum(np.searchsorted(write_keys, read_keys), len(write_keys) - 1)
    clash = np.flatnonzero(write_keys[at] == read_keys)
    if len(clash):
        key, reader = int(read_keys[clash[0]]), reads[read_of[clash[0]]]
        writer = writes[write_of[at[clash[0]]]]
        cycle, bank = divmod(key, spec.slice_banks)
        detail = f"slice {reader.unit} bank {bank} is written in the same cycle"
        raise reader.hazard(BankConflict, detail, cycle, (writer,))


def _concurrent(reads: list[Issue], writes: list[Issue]) -> list[Issue]:
    """The reads during which some write of the slice is under way; both are in order of issue."""
    if not writes:
        return []
    starts = np.array([i.cycle for i in writes])
    ends = np.maximum.accumulate([i.last_cycle for i in writes])
    before = np.searchsorted(starts, [i.last_cycle for i in reads], side="right")
    first = np.array([i.cycle for i in reads])
    under_way = (before > 0) & (ends[np.maximum(before - 1, 0)] >= first)
    return [reads[n] for n in np.flatnonzero(under_way)]


def _bank_keys(accesses: list[Issue], spec: ChipSpec) -> tuple[Ints, Ints]:
    keys, owners = [], []
    for number, issue in enumerate(accesses):
        fixed = issue.op.stepped is None
        where = np.full_like(issue.cycles, issue.arg("base")) if fixed else issue.steps
        keys.append(issue.cycles * spec.slice_banks + where // spec.bank_words)
        owners.append(np.full(len(where), number))
    return np.concatenate(keys), np.concatenate(owners)
