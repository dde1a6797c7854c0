"""Fifth pass: instructions become nodes, each one NumPy operation over all its iterations.

A node's value is an array [iterations, lanes] of the type the instruction drives. Reads become
nodes on demand, in the shape their consumer wants: byte planes in neighbouring slices that feed
one operand are read as one typed array, and likewise written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from chip.arrays import Array, DType
from chip.isa import FORMATS, IMMEDIATE, NUMPY_TYPES, STACKS, SUMS, WIDTHS, immediate
from chip.linker.fetch import (
    Cast,
    Fetch,
    Layer,
    Merge,
    Plane,
    Scalar,
    Stack,
    Take,
    as_slice,
    take,
)
from chip.linker.memory import Constants
from chip.linker.node_ops import NodeOp, Read
from chip.linker.streams import PRODUCT, Feed, Feeds
from chip.linker.timeline import Issue
from chip.linker.weights import Tiles
from chip.own_spec import chip_of
from chip.program import Ints, Program
from chip.sram import GROUP, Sram


@dataclass
class State:
    """What the nodes of a program work on.

    Nodes are shared by equal fragments of a program (see `linker.windows`): `shift[i]` words is
    how far this fragment's issue `first` + i lies from the address its node was made for.
    """

    sram: Sram
    values: list[Array]
    accumulators: list[npt.NDArray[np.float32]]  # of each plane; its int32 sums are a view
    received: dict[int, Array] = field(default_factory=dict)
    sent: dict[int, Array] = field(default_factory=dict)
    shift: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    first: int = 0
    # (first slice, slices, words) of every indirect write so far
    scattered: list[tuple[int, int, Ints]] = field(default_factory=list)


@dataclass(frozen=True)
class Node:
    """What a node does, the nodes and issues it stands for, and when its first one issues."""

    start: int
    issues: tuple[int, ...]
    needs: set[int]
    op: NodeOp


class Graph:
    """Nodes of one program, built from its issues and their feeds."""

    def __init__(
        self,
        program: Program,
        constants: Constants,
        issues: list[Issue],
        feeds: Feeds,
        tiles: dict[int, Tiles],
        build: "Build",
    ) -> None:
        self.spec, self.issues, self.feeds = chip_of(program.spec), issues, feeds
        self.tiles, self.build = tiles, build
        self.nodes: list[Node] = []
        self.node_of: dict[int, int] = {}
        self.maps = [np.array(entries, np.int64) for entries in program.maps]
        self._reads: dict[object, int] = {}
        self.constant_reads: list[tuple[int, int, int, int]] = []  # issue, slice, first, last word
        self.together: list[tuple[int, ...]] = []  # issues whose addresses must move alike
        self._constants = constants

    def add(self, issues: Sequence[Issue], needs: set[int], op: NodeOp) -> int:
        """Append a node; its number."""
        ids = tuple(issue.id for issue in issues)
        self.nodes.append(Node(min(i.cycle for i in issues), ids, needs, op))
        return len(self.nodes) - 1

    # --- operands ---------------------------------------------------------------------------
    def operand(self, issue: Issue, index: int) -> tuple[Fetch, set[int]]:
        """How to get a source operand as a typed array, and the nodes it comes from."""
        op, args = issue.op, issue.instruction.args
        if index != PRODUCT and args[index] == IMMEDIATE:
            scalar = immediate(args[op.index("imm")], op.element(index, args))
            return Scalar(scalar), set()
        feeds = self.feeds[issue.id, index]
        element = made_by(issue) if index == PRODUCT else op.element(index, args)
        return self.fetch(feeds, element)

    def fetch(self, feeds: list[Feed], element: str) -> tuple[Fetch, set[int]]:
        """Array [iterations, lanes] of `element` from one feed per byte stream."""
        dtype = NUMPY_TYPES[element]
        if self._are_whole(feeds, element):
            return self._merge(feeds[0], dtype, self._element_of)
        read = self.typed_read(feeds, element)
        if read is not None:
            return Take(read), {read}
        merged = self._merged_reads(feeds, element)
        if merged is not None:
            return merged
        planes = [self.byte_plane(feed) for feed in feeds]
        needs = set().union(*(needs for _, needs in planes))
        if len(planes) == 1:
            plane = planes[0][0]
            return (plane if element == "u8" else Cast(plane, dtype)), needs
        fetches = tuple(fetch for fetch, _ in planes)
        return Stack(fetches, None if element in STACKS else dtype), needs

    def _are_whole(self, feeds: list[Feed], element: str) -> bool:
        """Whether whole elements arrive: all byte planes of one iteration of one producer."""
        first = feeds[0]
        if element in STACKS:
            return False
        for producer in first.owners:
            issue = self.issues[producer]
            if issue.op.role == "read" or made_by(issue) != element:
                return False
        return all(feed.carries(byte) and feed.is_in_step(first) for byte, feed in enumerate(feeds))

    def byte_plane(self, feed: Feed) -> tuple[Fetch, set[int]]:
        """Array [iterations, lanes] of bytes, from one or several producers."""
        return self._merge(feed, NUMPY_TYPES["u8"], self._bytes_of)

    def _merge(
        self,
        feed: Feed,
        dtype: DType,
        part_of: Callable[[Issue, Ints, int], tuple[Fetch, int]],
    ) -> tuple[Fetch, set[int]]:
        """Array [iterations, lanes] from `part_of` each producer, its iterations and byte plane."""
        producer = feed.single()
        if producer is not None:
            fetch, node = part_of(self.issues[producer], feed.iterations, int(feed.byte[0]))
            return fetch, {node}
        parts: list[tuple[Ints, Fetch]] = []
        needs: set[int] = set()
        for producer in feed.owners:
            at = np.flatnonzero(feed.producers == producer)
            byte = int(feed.byte[at[0]])
            fetch, node = part_of(self.issues[producer], feed.iterations[at], byte)
            parts.append((at, fetch))
            needs.add(node)
        shape = (len(feed.producers), self.spec.lanes)
        return Merge(tuple(parts), shape, dtype), needs

    def _element_of(self, issue: Issue, iterations: Ints, _byte: int) -> tuple[Fetch, int]:
        node = self.node(issue)
        return take(node, iterations, issue.instruction.count), node

    def _bytes_of(self, issue: Issue, iterations: Ints, byte: int) -> tuple[Fetch, int]:
        node = self.node(issue)
        source = take(node, iterations, issue.instruction.count)
        index = issue.op.driven
        assert index is not None
        made = issue.op.element(index, issue.instruction.args)
        width = WIDTHS[made]
        if width == 1:
            return Cast(source, NUMPY_TYPES["u8"]), node
        return Layer(source, byte) if made in STACKS else Plane(source, byte, width), node

    # --- reads ------------------------------------------------------------------------------
    def typed_read(self, feeds: list[Feed], element: str, rows: int = 0) -> int | None:
        """Node that reads an operand's byte planes as one typed array; None if they do not fit.

        `rows` limits it to the first iterations.
        """
        members = self._typed_members(feeds, element)
        if members is None:
            return None
        words = members[0].steps[feeds[0].iterations][: rows or None]
        return self.read_rows(members, members[0].unit, words, element)

    def _typed_members(self, feeds: list[Feed], element: str) -> list[Issue] | None:
        """The reads behind the feeds of an operand, if they are of neighbouring slices, aligned."""
        members = self.read_members(feeds)
        width = WIDTHS[element]
        if members is None or width > GROUP or members[0].unit % width:
            return None
        beside = all(m.unit == members[0].unit + byte for byte, m in enumerate(members))
        return members if beside else None

    def _merged_reads(self, feeds: list[Feed], element: str) -> tuple[Fetch, set[int]] | None:
        """An operand whose iterations several reads bring, those of all byte planes in step.

        None where some of it is no typed read.
        """
        if len(feeds) < 2 or element in STACKS:
            return None
        first = feeds[0].producers
        places = [np.flatnonzero(first == producer) for producer in feeds[0].owners]
        parts = [[feed.at(at) for feed in feeds] for at in places]
        members = [self._typed_members(part, element) for part in parts]
        reads = [
            self.read_rows(mine, mine[0].unit, mine[0].steps[part[0].iterations], element)
            for part, mine in zip(parts, members, strict=True)
            if mine is not None and None not in members
        ]
        if len(reads) < len(parts):
            return None
        found = tuple(zip(places, map(Take, reads), strict=True))
        return Merge(found, (len(first), self.spec.lanes), NUMPY_TYPES[element]), set(reads)

    def read_members(self, feeds: list[Feed]) -> list[Issue] | None:
        """The mem.read behind each feed, if all read the same words in step."""
        members = []
        for feed in feeds:
            producer = feed.single()
            if producer is None or self.issues[producer].op.role != "read":
                return None
            members.append(self.issues[producer])
        first, pattern = members[0], feeds[0].pattern
        where = first.instruction.args[0], first.instruction.loops
        words = first.steps[feeds[0].iterations]
        for member, feed in zip(members, feeds, strict=True):
            one = member.instruction
            if (one.args[0], one.loops) == where and feed.pattern == pattern:
                continue
            if not np.array_equal(member.steps[feed.iterations], words):
                return None
        return members

    def read_rows(self, members: list[Issue], index: int, words: Ints, element: str) -> int:
        key = (tuple(m.id for m in members), words.tobytes(), element)
        if key not in self._reads:
            constant = self.is_constant(members[0], index, words, WIDTHS[element])
            constant = constant and isinstance(as_slice(words), slice)
            op = Read(index, words, element, members[0].id, constant)
            self._reads[key] = self.add(members, set(), op)
            self.together.append(key[0])
        return self._reads[key]

    def is_constant(self, issue: Issue, index: int, words: Ints, slices: int) -> bool:
        """Whether, in each of some slices, these words lie in one constant region."""
        low, high = int(words.min()), int(words.max())
        span = np.arange(index, index + slices)
        ends = np.full(slices, low), np.full(slices, high)
        constant = bool(self._constants.hold(span, *ends).all())
        if constant:
            self.constant_reads += [(issue.id, one, low, high) for one in span.tolist()]
        return constant

    def node(self, issue: Issue) -> int:
        """The node that produces an issue's value (for a read: its byte plane)."""
        if issue.id not in self.node_of:
            if issue.op.role == "read":
                self.node_of[issue.id] = self.read_rows([issue], issue.unit, issue.steps, "u8")
            else:
                self.node_of[issue.id] = self.build(self, issue)
        return self.node_of[issue.id]


Build = Callable[[Graph, Issue], int]  # makes the node of an issue


def made_by(issue: Issue) -> str:
    """Element type of what an issue drives; an ABC's products have that of their sums."""
    index = issue.op.driven
    if index is None:
        return SUMS[FORMATS[issue.arg("format")]]
    return issue.op.element(index, issue.instruction.args)
