"""What a kernel works with: a schedule to place chains on, and the buffers it asks for by name.

Kernels say what they need where they need it (`Request`); a memory answers with a buffer. So the
list of what a stage must hold is what its kernels have asked for, and stands nowhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from chip.kernels.layout import Layout
from chip.schedule import Buffer, Chain, Rows, Schedule
from chip.spec import ChipSpec

# What becomes of a buffer: used within a launch; written by the host before it, or read after it;
# in place before the first launch; kept from launch to launch, for each sequence slot or for all.
PART_ROWS = 64  # tokens: while one part streams, the loads of another find time
SCRATCH, INPUT, OUTPUT, CONSTANT, CACHE = "scratch", "input", "output", "constant", "cache"
KEPT, NETWORK = "kept", "network"  # of all slots; where what others send lands
# What stands before names of caches, behind the prefix, where those of the first and of the other
# layers of a kind lie in 16 slices of their own.
HALVES = ("early.", "late.")


@dataclass(frozen=True)
class Request:
    """A buffer that a kernel needs, at the side `side` of the VXM.

    `vectors` is for one layer, if `per_layer`. `one_bank` keeps each layer's in one bank. `apart`
    names buffers that may be read or written while this one is, beyond what a chain shows. Columns
    may be cut at some words, the first one among them, and then rest anywhere; those of as many
    matrices as there are `copies` are cut alike. Rows may go to both banks `in_turn`, if there is
    room for it. What is `spare` kernels can do without.
    """

    name: str
    vectors: int
    dtype: str
    side: int
    role: str = SCRATCH
    layout: str = "rows"
    per_layer: bool = False
    one_bank: bool = False
    apart: tuple[str, ...] = ()
    cuts: tuple[int, ...] = ()
    copies: int = 1
    in_turn: bool = False
    spare: bool = False

    def joined(self, other: "Request") -> "Request":
        """What both ask for, by the same name."""
        most, spare = max(self.vectors, other.vectors), self.spare and other.spare
        one, two = (replace(r, vectors=most, spare=spare) for r in (self, other))
        assert one == two, other
        return one


class Answers(Protocol):
    """Answers requests."""

    @property
    def spec(self) -> ChipSpec:
        """The chip."""

    def take(self, request: Request) -> Buffer:
        """The buffer of a request, which may be larger."""

    def offers(self, name: str) -> bool:
        """Whether there is room for what kernels can do without."""

    def of_slot(self, buffer: Buffer, slot: int) -> Buffer:
        """What another sequence slot has for a buffer of the first."""


@dataclass(frozen=True)
class Part:
    """A copy of a value in SRAM, of the blocks from `first` on, from a row of the buffer on."""

    buffer: Buffer
    first: int
    blocks: int
    row: int = 0


@dataclass(frozen=True)
class Work:
    """One launch's share of one chip: `rows` tokens that look at `blocks` x 320 tokens.

    Buffers are for launches of up to `most_rows` and `most_blocks`. `prefix` stands before the
    names of what a kind of layers has for itself, `half` behind it before those of caches; `maps`
    are the lane maps of its programs. Tokens are of one sequence slot, or each of one of as many
    `slots`; of `most_slots` at most.

    Where tokens look at each other both ways, they are worked on in parts of `part_rows` each, with
    scratch of their own, so that units work on one while another waits for what units give back.
    This may be the work on one `part` of the `whole`.
    """

    plan: Schedule
    memory: Answers
    member: int
    rows: int
    blocks: int
    most_rows: int
    most_blocks: int
    weights: str = "f16"
    prefix: str = ""
    maps: tuple[tuple[int, ...], ...] = ()
    slots: int = 1
    most_slots: int = 1
    part_rows: int = 0
    part: int = 0
    whole: "Work | None" = None
    half: str = ""
    some: range | None = None  # of the tokens, where each is worked on by itself

    @property
    def parts(self) -> tuple["Work", ...]:
        """The work on each part, or itself if there are none."""
        if not self.part_rows or self.whole:
            return (self,)
        each, starts = self.part_rows, range(0, self.rows, self.part_rows)
        most = min(each, self.most_rows)
        return tuple(
            replace(self, rows=min(each, self.rows - start), most_rows=most, part=n, whole=self)
            for n, start in enumerate(starts)
        )

    @property
    def tokens(self) -> range:
        """Those that are worked on one by one."""
        return range(self.rows) if self.some is None else self.some

    @property
    def first_row(self) -> int:
        """Tokens of the parts before."""
        return self.part * self.part_rows

    def chain(self, label: str) -> Chain:
        """A new chain on this chip."""
        return self.plan.chain(label, self.member, self.maps)

    @property
    def spec(self) -> ChipSpec:
        """The chip."""
        return self.plan.spec

    @property
    def int8(self) -> bool:
        """Whether matrices, and what meets them, are int8."""
        return self.weights == "i8"

    def scratch(
        self, name: str, blocks: int, dtype: str, side: int, context: bool = False
    ) -> Buffer:
        """Rows (block, token) for use within the launch; with `context`, for each context block.

        Those of parts are in both banks in turn.
        """
        times = (self.most_blocks, self.blocks) if context else (1, 1)
        most, in_turn = blocks * self.most_rows * times[0], self.whole is not None
        request = Request(self._own(name), most, dtype, side, in_turn=in_turn)
        return self.cut(self.memory.take(request), blocks * self.rows * times[1])

    def columns(self, name: str, vectors: int, side: int) -> Buffer:
        """fp16 columns for use within the launch: where there are parts, in one bank.

        Where caches lie in halves, they rest beside each.
        """
        name = self.prefix + self.half + name if self.half else self._own(name)
        where, one_bank = (SCRATCH, "columns"), self.part_rows > 0
        return self.memory.take(Request(name, vectors, "f16", side, *where, one_bank=one_bank))

    def _own(self, name: str) -> str:
        return f"{name}.part{self.part}" if self.part else name

    def constant(
        self, name: str, vectors: int, dtype: str, side: int, layout: str = "rows"
    ) -> Buffer:
        """What every layer of this kind has in place: weights, norms, biases, scales."""
        size, where = (vectors, dtype, side), (CONSTANT, layout, True)
        return self.memory.take(Request(self.prefix + name, *size, *where))

    def cache(self, name: str, vectors: int, side: int, one_bank: bool) -> Buffer:
        """fp16 columns that every layer of this kind keeps for each sequence slot."""
        where = (CACHE, "columns", True, one_bank)
        name = self.prefix + self.half + name
        return self.memory.take(Request(name, vectors, "f16", side, *where))

    def shared(
        self, name: str, vectors: int, dtype: str, side: int, layout: str = "rows",
        spare: bool = False,
    ) -> Buffer:  # fmt: skip
        """What a chip has in place once for all layers."""
        where = (CONSTANT, layout)
        return self.memory.take(Request(name, vectors, dtype, side, *where, spare=spare))

    def given(self, name: str, vectors: int, most: int, dtype: str, side: int) -> Buffer:
        """What the host writes before a launch."""
        return self.cut(self.memory.take(Request(name, most, dtype, side, INPUT)), vectors)

    @staticmethod
    def cut(buffer: Buffer, vectors: int) -> Buffer:
        """The first vectors of a buffer of rows."""
        words = -(-vectors // 2) if buffer.in_turn else vectors
        return replace(buffer, region=replace(buffer.region, vectors=words))

    def rows_of(self, parts: tuple[Part, ...], block: int) -> Rows:
        """The rows of a block of a value."""
        for part in parts:
            if part.first <= block < part.first + part.blocks:
                return Rows(part.buffer, part.row + (block - part.first) * self.rows)
        raise AssertionError(f"no part has block {block}")


# A factor for each row, fp32 in every lane: a buffer on each side, or none if there is no factor.
Steps = tuple[Buffer, ...]


@dataclass(frozen=True)
class Laid:
    """A value as kernels see it: its layout, and its copies, each of one or more parts.

    Copies of 16-bit integers are their upper halves, with the `low` ones beside each. Those in int8
    of a value in fp32 are rounded as it is made: `inverse` has rows that it is multiplied by.
    """

    layout: Layout
    copies: tuple[tuple[Part, ...], ...]
    low: tuple[tuple[Part, ...], ...] = ()
    inverse: Buffer | None = None

    def inverse_of(self, block: int) -> Rows | None:
        """What blocks from one on are multiplied by, row by row of as many tokens."""
        return None if self.inverse is None else Rows(self.inverse, block, (1, 0))

    @property
    def halves(self) -> tuple[tuple[Part, ...], ...]:
        """What is beside each copy: its lower halves, or nothing."""
        return self.low or ((),) * len(self.copies)


def common_runs(*copies: tuple[Part, ...]) -> Iterator[tuple[int, int]]:
    """(first block, count) of blocks that lie in one part of each of these copies of a value."""
    bounds = sorted({b for copy in copies for p in copy for b in (p.first, p.first + p.blocks)})
    for first, end in pairwise(bounds):
        yield first, end - first


def targets(work: Work, copies: Sequence[tuple[Part, ...]], block: int = 0) -> list[Rows]:
    """Where rows (block, token) from a block on go in each copy."""
    return [replace(work.rows_of(copy, block), steps=(work.rows, 1)) for copy in copies]
