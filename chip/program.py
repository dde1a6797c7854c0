"""A program: what each instruction queue of one chip holds, and the names of its memory regions.

Time is not written down in a program. A queue issues its instructions one after another, a
repeated instruction occupies its queue from its first to its last issue, `icu.nop N` waits, and
`icu.runtime_deskew t` stalls, and `icu.sync` until a Notify; so issue cycles follow from the
instructions alone (`Program.issues`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from chip.barrier import SYNC, issue_cycles, notices
from chip.errors import ProgramError
from chip.isa import FORMATS, WIDTHS, lookup
from chip.own_spec import chip_of
from chip.spec import ChipSpec

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
ONCE = (1, 1, 0)
DESKEW = "icu.runtime_deskew"
WAITS = ("icu.nop", DESKEW)  # their first operand says for how many cycles
COLUMN_PAIRS = 8  # fp16 columns a 16-slice group delivers per cycle
WEIGHT_SLICES = 2 * COLUMN_PAIRS
FETCH_BLOCK = 40  # instructions that a fetch brings: 640 B (assumption, recalled of ISCA20)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `args` in operand order; `loops` (count, interval, step), outer then inner.

    Iteration (i, j) issues i * interval_0 + j * interval_1 cycles after the first and adds
    i * step_0 + j * step_1 to the stepped operand. `names` are the debug names of the values it
    reads, in operand order, then of the value it drives; 0 is nameless.
    """

    op: str
    args: tuple[int, ...]
    loops: tuple[tuple[int, int, int], tuple[int, int, int]] = (ONCE, ONCE)
    names: tuple[int, ...] = ()

    @property
    def span_cycles(self) -> int:
        """Cycles from the first issue to the last."""
        (n, outer, _), (m, inner, _) = self.loops
        return (n - 1) * outer + (m - 1) * inner

    @property
    def queue_cycles(self) -> int:
        """Cycles for which it holds its queue."""
        return self.args[0] if self.op in WAITS else self.span_cycles + 1

    @property
    def count(self) -> int:
        return self.loops[0][0] * self.loops[1][0]

    def __str__(self) -> str:
        spec = lookup(self.op)
        text = [f"{o.name}={a}" for o, a in zip(spec.operands, self.args, strict=True)]
        text += [f"x{n}@{d}+{s}" for n, d, s in self.loops if n > 1]
        return " ".join([self.op, *text])


@dataclass(frozen=True, eq=False)
class Queues(Mapping[str, tuple[Instruction, ...]]):
    """What queues hold, each instruction once: for each queue the numbers of those in `table`."""

    table: tuple[Instruction, ...]
    numbers: Mapping[str, Ints]

    @classmethod
    def of(cls, queues: Mapping[str, tuple[Instruction, ...]]) -> "Queues":
        """The same queues, with equal instructions found."""
        table: dict[Instruction, int] = {}
        numbers = {
            name: np.array([table.setdefault(one, len(table)) for one in queue], np.int64)
            for name, queue in queues.items()
        }
        return cls(tuple(table), numbers)

    def __getitem__(self, name: str) -> tuple[Instruction, ...]:
        return tuple(map(self.table.__getitem__, self.numbers[name].tolist()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def queue_cycles(self) -> Ints:
        """Cycles for which each of the table holds its queue."""
        return np.array([one.queue_cycles for one in self.table], np.int64)

    @cached_property
    def blocks(self) -> dict[int, int]:
        """A hash of what each fetch brings, and how many instructions of it are no waits.

        Equal blocks have equal hashes in programs of one process.
        """
        mix = np.random.default_rng(0).integers(1, 2**63, FETCH_BLOCK, np.uint64) | np.uint64(1)
        words = (f"{one.op}{one.args}{one.loops}" for one in self.table)
        hashes = np.array([hash(word) & (2**64 - 1) for word in words], np.uint64)
        counted = ~self.is_any(*WAITS)
        found: dict[int, int] = {}
        for numbers in self.numbers.values():
            padding = -len(numbers) % FETCH_BLOCK
            some = np.pad(hashes[numbers], (0, padding)).reshape(-1, FETCH_BLOCK)
            counts = np.pad(counted[numbers], (0, padding)).reshape(-1, FETCH_BLOCK).sum(axis=1)
            keys = (some * mix).sum(axis=1, dtype=np.uint64)
            found.update(zip(keys.tolist(), counts.tolist(), strict=True))
        return found

    @cached_property
    def ops(self) -> tuple[tuple[str, ...], Ints]:
        """Mnemonics, and the number of each of the table in them."""
        names: dict[str, int] = {}
        numbers = [names.setdefault(one.op, len(names)) for one in self.table]
        return tuple(names), np.array(numbers, np.int64)

    def is_any(self, *ops: str) -> Flags:
        """Of each of the table, whether it is one of these ops."""
        names, numbers = self.ops
        return np.array([name in ops for name in names], np.bool_)[numbers]


@dataclass(frozen=True)
class Region:
    """Vectors at rest in SRAM.

    Layout "rows": vector i is word `address` + i of the slices `index`.., a byte plane each.
    Layout "columns" (MXM formats): vector i is word `address` + i // 8 of the slice pair
    `index` + 2 * (i % 8), as a 16-slice weight group delivers eight fp16 columns per cycle. Of a
    1-byte type it delivers sixteen: word `address` + i // 16 of slice `index` + i % 16.
    """

    index: int
    address: int
    vectors: int
    dtype: str
    layout: str = "rows"

    @property
    def words(self) -> int:
        return (
            self.vectors if self.layout == "rows" else -(-self.vectors // word_columns(self.dtype))
        )

    @property
    def slices(self) -> int:
        return WIDTHS[self.dtype] if self.layout == "rows" else WEIGHT_SLICES

    def check(self, slices: int, words: int) -> None:
        """Raise ProgramError unless the region lies inside a chip of `slices` x `words`."""
        known = self.dtype in WIDTHS and WIDTHS[self.dtype] < WEIGHT_SLICES
        if self.layout == "columns":
            known = self.dtype in FORMATS
        if not known or self.layout not in ("rows", "columns"):
            raise ProgramError(f"region with unknown type or layout: {self}")
        if self.index % min(self.slices, 4):
            raise ProgramError(f"region starts inside an aligned group of slices: {self}")
        inside = 0 <= self.index <= slices - self.slices and self.address >= 0
        if not inside or self.vectors < 0 or self.address + self.words > words:
            raise ProgramError(f"region outside the SRAM of {slices} x {words} words: {self}")


def word_columns(dtype: str) -> int:
    """Columns of an element type that a weight group of 16 slices delivers per cycle."""
    return WEIGHT_SLICES // WIDTHS[dtype]


@dataclass(frozen=True)
class Program:
    """What one chip does in one launch; starts at `start_cycle` of the cluster's time axis.

    Until then the queues are parked (Sync), and the `startup` sequence runs from cycle 0 of the
    launch on: it aligns the chip, hears and passes on the start, and releases the queues (Notify).
    No instruction issues more than `deskew_interval_cycles` after the last deskew; 0 is no limit.
    """

    chip: int
    spec: str
    start_cycle: int
    queues: Mapping[str, tuple[Instruction, ...]]
    maps: tuple[tuple[int, ...], ...] = ()
    inputs: dict[str, Region] = field(default_factory=dict)
    outputs: dict[str, Region] = field(default_factory=dict)
    constants: tuple[Region, ...] = ()
    startup: tuple[Instruction, ...] = ()
    deskew_interval_cycles: int = 0

    @cached_property
    def listing(self) -> Queues:
        """The queues with equal instructions found."""
        return self.queues if isinstance(self.queues, Queues) else Queues.of(self.queues)

    def instructions(self) -> Iterator[tuple[str, int, Instruction]]:
        """(queue, issue cycle relative to the start, instruction), without those that wait."""
        for queue in self.queues:
            for cycle, instruction in self.issues(queue):
                if instruction.op not in WAITS:
                    yield queue, cycle, instruction

    def issues(self, queue: str) -> Iterator[tuple[int, Instruction]]:
        """(first issue cycle relative to the start, instruction) of all that a queue holds."""
        return zip(self.cycles(queue).tolist(), self.queues[queue], strict=True)

    def cycles(self, queue: str) -> Ints:
        """First issue cycle, relative to the start, of all that a queue holds."""
        numbers, taken = self.listing.numbers[queue], self.listing.queue_cycles
        if self._parks[numbers].any():
            barrier = chip_of(self.spec).barrier_cycles
            placed = issue_cycles(self.queues[queue], self._notices, barrier)
            return np.array([cycle for cycle, _ in placed], np.int64)
        ends: Ints = np.cumsum(taken[numbers])
        return ends - taken[numbers]

    def all_cycles(self, queues: Sequence[str]) -> Ints:
        """`cycles` of several queues, one after another."""
        held = [self.listing.numbers[queue] for queue in queues]
        numbers = np.concatenate([np.zeros(0, np.int64), *held])
        if self._parks[numbers].any():
            return np.concatenate([self.cycles(queue) for queue in queues])
        taken, sizes = self.listing.queue_cycles[numbers], [len(one) for one in held]
        starts = np.cumsum(taken) - taken
        firsts = np.cumsum([0, *sizes])[:-1]
        begin = np.append(starts, 0)[firsts]  # an empty queue at the end has no first
        found: Ints = starts - np.repeat(begin, sizes)
        return found

    @cached_property
    def _parks(self) -> Flags:
        return self.listing.is_any(SYNC)

    @cached_property
    def _notices(self) -> tuple[int, ...]:
        return notices(self.chip, self.queues, chip_of(self.spec).barrier_cycles)

    @cached_property
    def _deskews(self) -> Flags:
        return self.listing.is_any(DESKEW)

    def deskews(self, queue: str) -> tuple[tuple[int, int], ...]:
        """(cycle relative to the start, stall) of a queue's Runtime deskews, in order."""
        numbers, table = self.listing.numbers[queue], self.listing.table
        at = np.flatnonzero(self._deskews[numbers])
        if not len(at):
            return ()
        stalls = (table[number].args[0] for number in numbers[at].tolist())
        return tuple(zip(self.cycles(queue)[at].tolist(), stalls, strict=True))


def fill_queue(placed: list[tuple[int, Instruction]], name: str) -> tuple[Instruction, ...]:
    """Turn (issue cycle, instruction) pairs into a queue, NOPs between; raise on an overlap."""
    filled: list[Instruction] = []
    free = 0
    for cycle, instruction in sorted(placed, key=lambda item: item[0]):
        if cycle < free:
            raise ProgramError(f"{instruction} at cycle {cycle} overlaps another", f"queue {name}")
        if cycle > free:
            filled.append(Instruction("icu.nop", (cycle - free,)))
        filled.append(instruction)
        free = cycle + instruction.queue_cycles
    return tuple(filled)


def fetch_image(queue: tuple[Instruction, ...], at: int, spec: ChipSpec) -> npt.NDArray[np.uint8]:
    """Vectors [n, lanes] that the Ifetch at index `at` of a queue must take off its stream.

    An instruction is 16 B wide (ISCA20), its encoding is not published. Ours is a fingerprint of
    its text, so that a queue that is fed other instructions than the linked ones notices.
    """
    size, fetch = spec.instruction_bytes, queue[at]
    room = fetch.count * spec.lanes // size
    words = [blake2b(str(i).encode(), digest_size=size).digest() for i in queue[at + 1 :][:room]]
    image = np.zeros(fetch.count * spec.lanes, np.uint8)
    image[: size * len(words)] = np.frombuffer(b"".join(words), np.uint8)
    return image.reshape(fetch.count, spec.lanes)
