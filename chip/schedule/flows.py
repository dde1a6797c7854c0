"""What chains are made of: rows at rest, flows in flight, loops, and what is left to choose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chip.hashed import hashed_once
from chip.isa import Op
from chip.program import Region
from chip.spec import EAST, HEMISPHERES, WEST

Ints = npt.NDArray[np.int64]
Loops = tuple[tuple[int, int], tuple[int, int]]  # (count, interval), outer then inner
Key = tuple[str, int, int, str]  # of a unit of a chip: family, unit, plane or bank, buffer
Stepped = tuple[tuple[int, int, int], tuple[int, int, int]]  # with the step of an operand
ONCE: Loops = ((1, 1), (1, 1))


@hashed_once
@dataclass(frozen=True)
class Buffer:
    """Named vectors in the SRAM of every chip of a group.

    Rows are the vectors of a "rows" region, the words of a "columns" region. A buffer of
    `any_bank` stands for others like it elsewhere in its slices, perhaps in the other bank. One
    that rests where others rested `after` whom it comes is not written before they are done with.
    A `virtual` one has slices to itself, wherever it will rest: for trials. Columns may lie in
    `stretches`, where no 16 neighbouring slices hold them; the region is where the first begins.
    Odd rows may rest in the other bank, `in_turn` words further, as a bank serves one access a
    cycle: so those who read follow those who write, row by row. The region is that of the even.
    """

    name: str
    region: Region
    any_bank: bool = False
    after: tuple[str, ...] = ()
    virtual: bool = False
    stretches: "tuple[Stretch, ...]" = ()
    in_turn: int = 0

    def word(self, row: int) -> int:
        """The word of a row."""
        half, odd = divmod(row, 2) if self.in_turn else (row, 0)
        return self.region.address + half + odd * self.in_turn

    def quads(self, word: int) -> "tuple[tuple[Buffer, int], ...]":
        """Four slices each in which the word lies, as buffers of rows, and its row there."""
        mine = self.stretch(word)
        size = mine.words * mine.copies
        regions = (Region(index, at, size, "i32") for index, at in mine.places)
        return tuple((replace(self, region=region), word - mine.first) for region in regions)

    def stretch(self, word: int) -> "Stretch":
        """The one in which a word lies."""
        (mine,) = (s for s in self.stretches if s.first <= word < s.first + s.words)
        return mine


@dataclass(frozen=True)
class Stretch:
    """Words `first`.. of columns: each fourth of them in a quad of slices of its own.

    `places` are the first slice of each quad, and the address of word `first` there. Of so many
    `copies`, matrices of experts that are cut alike, each has its words behind those of the last.
    """

    first: int
    words: int
    places: tuple[tuple[int, int], ...]
    copies: int = 1


@dataclass(frozen=True)
class Rows:
    """A run of a buffer's rows: row `first` + i * steps[0] + j * steps[1] in iteration (i, j)."""

    buffer: Buffer
    first: int = 0
    steps: tuple[int, int] = (0, 1)

    def indices(self, loops: Loops) -> Ints:
        """Row of each iteration."""
        (n, _), (m, _) = loops
        return self.first + iteration_cycles(((n, self.steps[0]), (m, self.steps[1])))

    def behind(self, count: int) -> "Rows":
        """The run that begins so many rows further on."""
        return replace(self, first=self.first + count)

    def apart(self, loops: Loops) -> tuple[tuple[int, int], ...]:
        """(cycle, word) of each iteration, after those of the first."""
        found, first = iterations(loops, self.steps), self.buffer.word(self.first)
        if not self.buffer.in_turn:
            return found
        word, start = self.buffer.word, self.first
        return tuple((cycle, word(start + row) - first) for cycle, row in found)

    def turns(self, loops: Loops) -> "Iterator[tuple[int, tuple[int, ...], tuple[int, int]]]":
        """(cycles later, words, (count, interval)): these words in turn, each time the next ones.

        Rows of a buffer in both banks, which are one by one in the inner loop, go in pairs; one may
        be left.
        """
        (n, outer), (m, inner) = loops
        assert m == 1 or self.steps[1] == 1, f"rows of {self.buffer.name} are not one by one"
        for number in range(n):
            first, word = self.first + number * self.steps[0], self.buffer.word
            if m > 1:
                yield number * outer, (word(first), word(first + 1)), (m // 2, inner)
            if m % 2:
                yield number * outer + (m - 1) * inner, (word(first + m - 1),), (1, inner)


class Further(NamedTuple):
    """Where an access of a placed chain is: in which buffer, and how far on from the chain's."""

    buffer: Buffer
    rows: int = 0
    words: int = 0


@dataclass(slots=True)
class Need:
    """Something the scheduler chooses: a group of streams, an ALU or an SXM queue.

    Busy from `low` to `high` (exclusive): diagonals for streams, cycles for queues. Streams are
    busy in the `halves` of the chip that their values pass, those of the slices on either side.
    """

    member: int
    kind: str  # "stream", "vxm" or "sxm"
    side: int  # direction of the streams, hemisphere of the SXM
    width: int
    low: int
    high: int
    halves: set[int] = field(default_factory=set)

    def passes(self, family: str, unit: int, hemisphere_slices: int) -> None:
        """Note where an instruction drives or reads a stream: values pass all halves up to there.

        At the VXM values are read before others are driven there, so it is in the half that they
        come from or go to.
        """
        if self.kind != "stream" or len(self.halves) == len(HEMISPHERES) or family == "vxm":
            return
        if family.startswith("mem."):
            self.halves.add(unit // hemisphere_slices)
        elif family.startswith("c2c."):
            self.halves.update((EAST, WEST))
        else:
            self.halves.add(unit % len(HEMISPHERES))


class Streams(NamedTuple):
    """Those of a Need from number `plane` on, and the name of the value on them."""

    need: int
    name: int
    plane: int = 0


class Queue(NamedTuple):
    """Of a family: that of a unit, or the one that a Need chooses."""

    family: str
    unit: int
    need: int | None = None


class Doing(NamedTuple):
    """An instruction but for its loops: operands, of which a Need (need, offset) chooses some."""

    op: str
    args: list[int]
    needs: dict[int, tuple[int, int]]
    names: list[int]


def stepped(loops: Loops, steps: tuple[int, int] = (0, 0)) -> Stepped:
    """Loops whose iterations add `steps` to an operand."""
    (n, outer), (m, inner) = loops
    return (n, outer, steps[0]), (m, inner, steps[1])


@dataclass(slots=True, eq=False)
class Piece:
    """An instruction to be, on one unit or, a byte plane each, on neighbouring ones.

    `cycles` are those of `unit`, `unit` + 1, ... Queue and stream operands may name a Need by its
    number; plane i has a stream of the group that `spread` speaks of: an operand, a Need, and
    which stream the first has.
    If it is `apart`, there is an instruction for each of these (cycle, word), so much later and
    further on, and the loops are theirs. In memory it is part of the `access` of that number.
    """

    member: int
    family: str
    unit: int
    unit_need: int | None
    cycles: Sequence[int]
    op: str
    args: list[int]
    needs: dict[int, tuple[int, int]]  # operand -> (need, offset inside its group)
    names: list[int]
    loops: Stepped
    spread: tuple[int, int, int] | None = None
    apart: Sequence[tuple[int, int]] = ((0, 0),)
    access: int = 0


Taken = tuple[int, int, int | None]  # a first cycle, a length, a pattern of bits unless it is all


class Hold(NamedTuple):
    """Units that a chain takes at cycles which follow from its start, and not by choice.

    `unit` and the units after it, each so many cycles later than it as `offsets` says; of a slice
    `banks` as well, or alone if no `family` is named. What `buffer` names has units to itself.
    """

    member: int
    family: str
    unit: int
    plane: int = 0
    offsets: tuple[int, ...] = (0,)
    banks: tuple[int, ...] = ()
    buffer: str = ""

    def units(self) -> Iterator[tuple[Key, int]]:
        """Each of them, and how much later it is taken."""
        for number, offset in enumerate(self.offsets, self.unit):
            if self.family:
                yield (self.family, number, self.plane, self.buffer), offset
            for bank in self.banks:
                yield ("bank", number, bank, self.buffer), offset


@dataclass(slots=True)
class Extent:
    """What a chain does on one member: first issue, last result (exclusive), instructions."""

    first: int
    end: int
    instructions: int = 0


@dataclass(slots=True)
class Flow:
    """A value in flight: driven at `position` from `cycle` on, `loops` of vectors."""

    member: int
    dtype: str
    loops: Loops
    cycle: int
    position: int
    name: int
    need: int | None = None  # its streams; None while it is only an ALU result
    direction: int | None = None
    alu: int | None = None  # the Need of its ALU
    piece: Piece | None = None  # the VXM instruction, whose result may still get a stream


@dataclass(slots=True)
class Access:
    """Rows of a buffer touched in each iteration of `loops`, from cycle `early` to cycle `late`.

    Of rows touched `at_any_time` nobody knows when in between it is. `issues` are those of the
    byte planes, where these are far apart.
    """

    member: int
    rows: Rows
    loops: Loops
    early: int
    late: int
    writes: bool
    issues: Sequence[int] = ()
    at_any_time: bool = False
    once: bool = field(init=False)
    last_row: int = field(init=False)

    def __post_init__(self) -> None:
        (n, _), (m, _) = self.loops
        self.once = n == m == 1
        self.last_row = self.rows.first if self.once else row_span(self.rows, self.loops)[1]

    @property
    def buffer(self) -> Buffer:
        """The buffer."""
        return self.rows.buffer

    def indices(self, further: int) -> Ints:
        """Row of each iteration, so many rows further on."""
        return self.rows.indices(self.loops) + further

    def iterations(self, further: int) -> Iterator[tuple[int, int]]:
        """(cycle after the first, row so many rows further on) of each iteration."""
        first = self.rows.first + further
        if self.once:
            yield 0, first
            return
        for cycle, row in iterations(self.loops, self.rows.steps):
            yield cycle, first + row

    @property
    def first(self) -> Ints:
        """First cycle of each iteration."""
        return self._cycles + self.early

    @property
    def last(self) -> Ints:
        """Last cycle of each iteration."""
        return self._cycles + self.late

    @property
    def end(self) -> int:
        """The last cycle of all."""
        return self.late + (0 if self.at_any_time else span(self.loops) - 1)

    @property
    def _cycles(self) -> Ints:
        cycles = iteration_cycles(self.loops)
        return np.zeros_like(cycles) if self.at_any_time else cycles


def run(count: int, interval: int = 1) -> Loops:
    """Loops of `count` vectors, one every `interval` cycles."""
    return ((1, max(1, count * interval)), (count, interval))


def over(count: int, outer: int = 1) -> Loops:
    """Loops of `outer` times `count` vectors, one every cycle."""
    return ((outer, max(1, count)), (count, 1))


def span(loops: Loops) -> int:
    """Cycles from the first issue through the last."""
    (n, outer), (m, inner) = loops
    return (n - 1) * outer + (m - 1) * inner + 1


@lru_cache(maxsize=1024)
def pattern(loops: Loops) -> int:
    """The cycles of all iterations: bit n stands for the n-th cycle after the first issue."""
    found = 0
    for cycle in iteration_cycles(loops).tolist():
        found |= 1 << cycle
    return found


@lru_cache(maxsize=1024)
def iteration_cycles(loops: Loops) -> Ints:
    """Cycle of each iteration after the first issue; not to be written to."""
    (n, outer), (m, inner) = loops
    cycles: Ints = (np.arange(n)[:, None] * outer + np.arange(m)[None, :] * inner).ravel()
    cycles.flags.writeable = False
    return cycles


@lru_cache(maxsize=1024)
def iterations(loops: Loops, steps: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(cycle, row) of each iteration, after those of the first."""
    (n, _), (m, _) = loops
    words = iteration_cycles(((n, steps[0]), (m, steps[1])))
    return tuple(zip(iteration_cycles(loops).tolist(), words.tolist(), strict=True))


def row_span(rows: Rows, loops: Loops) -> tuple[int, int]:
    """Lowest and highest row of a run."""
    (n, _), (m, _) = loops
    low = high = rows.first
    for way in ((n - 1) * rows.steps[0], (m - 1) * rows.steps[1]):
        if way < 0:
            low += way
        else:
            high += way
    return low, high


def dtype_of(operands: Sequence[Flow | Rows | float], op: Op) -> str:
    """Element type of the first operand that has the op's own."""
    for index, operand in zip(op.sources, operands, strict=True):
        if not op.operands[index].dtype:
            if isinstance(operand, Flow):
                return operand.dtype
            if isinstance(operand, Rows):
                return operand.buffer.region.dtype
    return "f32"
