"""First pass: every instruction on the time axis of its chip, as arrays of what passes go by.

An `Issue` is one instruction by itself; it is made of the arrays where somebody looks at it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Generic, TypeVar, overload

import numpy as np

from chip.errors import HazardError, Misaligned, ProgramError, QueueConflict
from chip.isa import Op, lookup
from chip.isa.mxm import PLANES
from chip.program import WAITS, Flags, Instruction, Ints, Program, Queues, fetch_image
from chip.spec import EAST, WEST, ChipSpec

STORY_LINES = 4
Value = TypeVar("Value")
Place = tuple[str, int, int]  # queue family, unit, stream-register position


class lazy(Generic[Value]):
    """A property worked out once: `functools.cached_property` without its lock, which is slow."""

    def __init__(self, function: Callable[["Issue"], Value]) -> None:
        self.function = function

    def __get__(self, issue: "Issue", _owner: type) -> Value:
        value = issue.__dict__[self.function.__name__] = self.function(issue)
        return value


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

    @lazy
    def cycles(self) -> Ints:
        """Issue cycle of every iteration."""
        return self.cycle + _progression(self.instruction.loops, 1)

    @lazy
    def steps(self) -> Ints:
        """Value of the stepped operand (address, column or slot) in every iteration."""
        index = self.op.stepped
        assert index is not None
        return self.instruction.args[index] + _progression(self.instruction.loops, 2)

    @lazy
    def last_cycle(self) -> int:
        return self.cycle + self.instruction.span_cycles

    @lazy
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


@lru_cache(maxsize=4096)  # a model has some hundred different loops, and thousands of each
def _progression(loops: tuple[tuple[int, int, int], tuple[int, int, int]], column: int) -> Ints:
    """What all iterations add by a column of the loops: cycles or steps."""
    (outer, inner) = (np.arange(loop[0]) * loop[column] for loop in loops)
    return np.add.outer(outer, inner).ravel()


class Timeline(Sequence[Issue]):
    """All instructions of a program in order of issue, by cycle and queue.

    Arrays [issues] say where each is: `cycle`, `queue` (a number in `places`), `number` (in the
    program's listing), powered `lanes`; `images` are what Ifetches must find.
    """

    def __init__(self, program: Program, spec: ChipSpec) -> None:
        self.program, self.spec = program, spec
        self.queues = sorted(program.queues)
        self.places = [locate(queue, spec) for queue in self.queues]
        self.kinds = Kinds.of(program.listing, spec)
        columns, found = _on_queues(program, self.queues, spec)
        issued = np.flatnonzero(~program.listing.is_any(*WAITS)[columns[1]])
        order = issued[np.lexsort((columns[3, issued], columns[0, issued]))]
        self.cycle, self.number, self.lanes, self.queue = columns[:, order]
        self.images: dict[int, bytes] = {}
        if found:
            places = enumerate(order.tolist())
            self.images = {n: found[place] for n, place in places if place in found}
        self._issues: dict[int, Issue] = {}

    def __len__(self) -> int:
        return len(self.cycle)

    @overload
    def __getitem__(self, at: int) -> Issue: ...
    @overload
    def __getitem__(self, at: slice) -> list[Issue]: ...
    def __getitem__(self, at: int | slice) -> Issue | list[Issue]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        number = at % len(self)
        if number not in self._issues:
            self._issues[number] = self._issue(number, number, 0)
        return self._issues[number]

    def stretch(self, start: int, stop: int, cycle: int) -> list[Issue]:
        """Some of the instructions, numbered from 0 on, on a time axis that begins at `cycle`."""
        return [self._issue(at, at - start, cycle) for at in range(start, stop)]

    def _issue(self, at: int, number: int, since: int) -> Issue:
        queue = int(self.queue[at])
        instruction = self.program.listing.table[self.number[at]]
        op, (family, unit, position) = lookup(instruction.op), self.places[queue]
        return Issue(
            number,
            self.program.chip,
            self.queues[queue],
            "icu" if op.queue == "any" else family,
            unit,
            int(self.cycle[at]) - since,
            instruction,
            op,
            position,
            int(self.lanes[at]),
            self.images.get(at, b""),
        )

    # --- columns [issues] -------------------------------------------------------------------
    @cached_property
    def kind(self) -> Ints:
        """Its kind, a number in `kinds`."""
        numbers: Ints = self.kinds.kind[self.number]
        return numbers

    @cached_property
    def unit(self) -> Ints:
        """Its unit."""
        units: Ints = np.array([unit for _, unit, _ in self.places], np.int64)[self.queue]
        return units

    @cached_property
    def address(self) -> Ints:
        """First SRAM word it accesses; 0 for others."""
        words: Ints = self.kinds.address[self.number]
        return words

    @cached_property
    def low(self) -> Ints:
        """Lowest SRAM word it can touch."""
        return self.address + self.kinds.below[self.kind]

    @cached_property
    def high(self) -> Ints:
        """Highest SRAM word it can touch."""
        return self.address + self.kinds.above[self.kind]

    @cached_property
    def last(self) -> Ints:
        """Its last issue cycle."""
        cycles: Ints = self.cycle + self.kinds.span[self.kind]
        return cycles

    @cached_property
    def driven(self) -> Ints:
        """Cycle by which it has driven its last result."""
        return self.last + self.kinds.delay[self.kind]

    def have(self, *roles: str) -> Flags:
        """Whether its role is one of these."""
        flags: Flags = self.kinds.have(*roles)[self.kind]
        return flags


@dataclass(frozen=True, eq=False)
class Kinds:
    """Instructions that differ only in their SRAM address are of one kind.

    `kind` and `address` are of each in the program's listing; the other arrays are of each kind:
    how far below and above its address it reaches, from first to last issue, and from issue to
    result.
    """

    names: tuple[tuple[object, ...], ...]
    samples: tuple[Instruction, ...]
    ops: tuple[Op, ...]
    kind: Ints
    address: Ints
    below: Ints
    above: Ints
    span: Ints
    delay: Ints

    @classmethod
    def of(cls, listing: Queues, spec: ChipSpec) -> "Kinds":
        """The kinds of some instructions."""
        numbers: dict[tuple[object, ...], int] = {}
        samples: list[Instruction] = []
        kind, address = np.zeros((2, len(listing.table)), np.int64)
        for number, one in enumerate(listing.table):
            args, first = one.args, 0
            if lookup(one.op).in_memory:
                first, *_ = args
                args = args[1:]
            name = one.op, args, one.loops, one.names
            kind[number] = numbers.setdefault(name, len(numbers))
            address[number] = first
            if len(numbers) > len(samples):
                samples.append(one)
        ops = tuple(lookup(one.op) for one in samples)
        reach = [_reach(op, one) for op, one in zip(ops, samples, strict=True)]
        below, above = np.array(reach, np.int64).reshape(-1, 2).T
        span = np.array([one.span_cycles for one in samples], np.int64)
        delays = [spec.d_func(op.timing) if op.timing else 0 for op in ops]
        delay = np.array(delays, np.int64)
        return cls((*numbers,), (*samples,), ops, kind, address, below, above, span, delay)

    def have(self, *roles: str) -> Flags:
        """Whether the role of each kind is one of these."""
        return np.array([op.role in roles for op in self.ops], np.bool_)


def _reach(op: Op, instruction: Instruction) -> tuple[int, int]:
    """The least and the greatest word, from its address on, that an instruction can touch."""
    if not op.in_memory:
        return 0, 0
    if op.stepped is None:
        return 0, instruction.args[op.index("words")] - 1
    (n, _, outer), (m, _, inner) = instruction.loops
    far, near = (n - 1) * outer, (m - 1) * inner
    return min(0, far) + min(0, near), max(0, far) + max(0, near)


def timeline(program: Program, spec: ChipSpec) -> Timeline:
    """All instructions of a program in order of issue; raises on loops that collide."""
    issues = Timeline(program, spec)
    kinds = zip(issues.kinds.ops, issues.kinds.samples, strict=True)
    wrong = [_wrong(op, one, spec) for op, one in kinds]
    at = np.flatnonzero(np.array([rule is not None for rule in wrong], np.bool_)[issues.kind])
    for number in at[:1].tolist():
        rule = wrong[issues.kind[number]]
        assert rule is not None
        raise issues[number].hazard(*rule)
    return issues


def _wrong(
    op: Op, instruction: Instruction, spec: ChipSpec
) -> tuple[type[HazardError], str] | None:
    """What is wrong with an instruction by itself on such a chip."""
    (n, outer, _), (m, inner, _) = instruction.loops
    if op.requires and op.requires not in spec.mxm_types:
        known = ", ".join(spec.mxm_types)
        return Misaligned, f"chip {spec.name} has no {op.requires}, it has {known}"
    if n > 1 and (m - 1) * inner >= outer:
        return QueueConflict, "the inner loop runs into the next outer iteration"
    return None


def _on_queues(
    program: Program, queues: list[str], spec: ChipSpec
) -> tuple[Ints, dict[int, bytes]]:
    """Cycle, number in the listing, powered lanes and queue of all that queues hold; images.

    Images are by column.
    """
    listing = program.listing
    held = [listing.numbers[queue] for queue in queues]
    ends = np.cumsum([0, *map(len, held)])
    numbers, cycles = np.concatenate([np.zeros(0, np.int64), *held]), program.all_cycles(queues)
    lanes, queue = np.full(len(numbers), spec.lanes), np.repeat(np.arange(len(held)), np.diff(ends))
    images: dict[int, bytes] = {}
    special = listing.is_any("icu.config", "icu.ifetch")
    for at in np.flatnonzero(special[numbers]).tolist():
        one, mine = listing.table[numbers[at]], int(queue[at])
        if one.op == "icu.ifetch":
            place = at - int(ends[mine])
            images[at] = fetch_image(program.queues[queues[mine]], place, spec).tobytes()
        elif one.args[0] % spec.superlane_lanes or not 0 < one.args[0] <= spec.lanes:
            steps = f"{spec.superlane_lanes} to {spec.lanes} lanes, in steps of the first"
            text, cycle = str(one), int(cycles[at])
            raise Misaligned(program.chip, queues[mine], cycle, text, f"takes {steps}")
        else:
            lanes[at : ends[mine + 1]] = one.args[0]
    return np.stack([cycles, numbers, lanes, queue]), images


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
