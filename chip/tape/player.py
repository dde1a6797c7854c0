"""Plays the tapes of linked programs on one chip, and the Python steps between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.arrays import Array
from chip.isa import NUMPY_TYPES
from chip.jit import plays
from chip.jit.layout import Part, packed
from chip.linker import Block, Linked
from chip.linker.fragment import Fragment
from chip.linker.graph import State
from chip.linker.interpret import interpret
from chip.linker.node_ops import NodeOp, Receive, Send, neighbours
from chip.spec import ChipSpec
from chip.sram import GROUP, Sram
from chip.tape.tapes import Encoded, Integers, Shape, Tape

Bytes = npt.NDArray[np.uint8]


def _encoded(fragment: Fragment, spec: ChipSpec) -> Encoded:
    """The tapes of a fragment, made when first asked for; only then numba is imported."""
    if not fragment.made:
        from chip.tape.encode import encode

        fragment.made.append(encode(fragment, spec))
    (tapes,) = fragment.made
    assert isinstance(tapes, Encoded)
    return tapes


@dataclass
class _Bound:
    """A fragment of a program on this chip: its values, and what its records count from."""

    block: Block
    encoded: Encoded
    arena: Bytes
    bases: Integers
    shifts: Integers
    log: Integers
    values: list[Any]
    statistics: Integers


@dataclass
class _Play:
    """Tapes in a row: what the compiled code is given, and whose records they are."""

    parts: npt.NDArray[np.void]
    owners: list[tuple[_Bound, Tape]]


@dataclass
class _Call:
    """A node of a fragment that is interpreted; its value goes to a slot where a tape needs it."""

    bound: _Bound
    node: int
    op: NodeOp
    slot: Array | None


@dataclass
class _Segment:
    items: list[_Play | _Call] = field(default_factory=list)
    appends: list[tuple[_Bound, tuple[int, int, int]]] = field(default_factory=list)


class Player:
    """Runs segments on a chip's SRAM and accumulators. Bound to a program when first run."""

    def __init__(self, sram: Sram, accumulators: Sequence[Array], spec: ChipSpec) -> None:
        from chip.jit.play import play

        self._play = play
        self.sram, self.accumulators, self.spec = sram, accumulators, spec
        groups = -(-spec.slices // GROUP)
        self._stats = np.zeros(groups, np.int64)
        self._known: list[Integers] = []  # the same, each with more places behind them
        self._programs: dict[Linked, list[_Segment]] = {}
        self._scratch = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
        self._scratch_bytes = 64

    @staticmethod
    def encode(linked: Linked) -> None:
        """Make the tapes of a program before it is first run."""
        if plays(linked.spec.lanes):
            for blocks in linked.segments:
                for block in blocks:
                    _encoded(block.fragment, linked.spec)

    @staticmethod
    def interpreted_nodes(linked: Linked) -> int:
        """How many nodes of a program no record does: they run in NumPy in every launch.

        Packets are handed over in any case, and do not count.
        """
        blocks = [block for segment in linked.segments for block in segment]
        if not plays(linked.spec.lanes):
            return sum(len(block.nodes) for block in blocks)
        found = 0
        for block in blocks:
            nodes = block.fragment.steps
            items = _encoded(block.fragment, linked.spec).groups[block.part]
            steps = [nodes[item].op for item in items if not isinstance(item, Tape)]
            found += sum(not isinstance(op, Send | Receive) for op in steps)
        return found

    @property
    def interpreted(self) -> int:
        """Such nodes of all programs that have been run here."""
        return sum(map(self.interpreted_nodes, self._programs))

    def run(self, linked: Linked, segment: int, state: State) -> None:
        """Run a segment; raises what its steps raise."""
        if linked not in self._programs:
            self._programs[linked] = self._bind(linked)
        chosen = self._programs[linked][segment]
        for item in chosen.items:
            if isinstance(item, _Play):
                self._run(item, state)
            else:
                _step(item, state)
        for bound, (_, index, place) in chosen.appends:
            count, first = int(bound.log[place // 8]), place // 8 + 1
            words = sorted(set(bound.log[first : first + count].tolist()))
            state.scattered.append((index, 4 * GROUP, np.array(words)))

    def _run(self, item: _Play, state: State) -> None:
        size = self._scratch_bytes
        if len(self._scratch[0]) < size:
            self._scratch = np.empty(size, np.uint8), np.empty(size, np.uint8)
        part, record, late = self._play(item.parts, *self._scratch, self)
        if late:
            self._scratch = np.empty(size, np.uint8), np.empty(size, np.uint8)
        if part >= 0:
            bound, tape = item.owners[part]
            node = tape.owners[record]
            call = _Call(bound, node, bound.block.fragment.steps[node].op, None)
            _step(call, state)
            raise AssertionError("a record failed whose step does not")

    # --- binding ----------------------------------------------------------------------------
    def _bind(self, linked: Linked) -> list[_Segment]:
        """Addresses for all stretches of a program; one arena serves those that do not overlap."""
        last = {block.first: number for number, s in enumerate(linked.segments) for block in s}
        found, bound = [], dict[int, _Bound]()
        free: list[Bytes] = []
        for number, blocks in enumerate(linked.segments):
            segment = _Segment()
            for block in blocks:
                if block.first not in bound:
                    bound[block.first] = self._bound(block, free)
                mine = bound[block.first]
                self._add(segment, mine, block.part)
                if last[block.first] == number:
                    free.append(mine.arena)
            found.append(segment)
        return found

    def _bound(self, block: Block, free: list[Bytes]) -> _Bound:
        tapes = _encoded(block.fragment, self.spec)
        for number, arena in enumerate(free):
            if len(arena) >= tapes.arena_bytes:
                del free[number]
                break
        else:
            arena = np.zeros(max(64, tapes.arena_bytes), np.uint8)
        self._scratch_bytes = max(self._scratch_bytes, tapes.scratch_bytes)
        log = np.zeros(max(1, tapes.log_bytes // 8), np.int64)
        statistics = self._statistics(tapes)
        pointers = [tapes.constants.ctypes.data, arena.ctypes.data]
        groups = range(0, self.spec.slices, GROUP)
        pointers += [self.sram.group(first).ctypes.data for first in groups]
        pointers += [sums.ctypes.data for sums in self.accumulators]
        pointers.append(log.ctypes.data)
        for index, further in (place for places in tapes.places for place in places):
            pointers.append(self.sram.group(index).ctypes.data + further * self.spec.lanes * GROUP)
        values: list[Any] = [None] * block.values
        for node, (offset, shape) in tapes.views.items():
            values[node] = self._view(arena, offset, shape)
        shifts = np.array(block.shift, np.int64)
        bases = np.array(pointers, np.int64)
        return _Bound(block, tapes, arena, bases, shifts, log, values, statistics)

    def _statistics(self, tapes: Encoded) -> Integers:
        """Where what is known of weights is: of 16 neighbours by group, then of other places."""
        for group in tapes.weights:
            address = self.sram.statistics(neighbours(group * GROUP)).ctypes.data
            for known in (self._stats, *self._known):  # whoever writes there forgets them
                known[group] = address
        others = [self.sram.statistics(places).ctypes.data for places in tapes.places]
        if not others:
            return self._stats
        self._known.append(np.concatenate([self._stats, np.array(others, np.int64)]))
        return self._known[-1]

    def _view(self, arena: Bytes, offset: int, shape: Shape) -> Array:
        size = shape.bytes(self.spec.lanes)
        plain = arena[offset : offset + size].view(NUMPY_TYPES[shape.element])
        return plain.reshape(shape.rows, self.spec.lanes)

    def _add(self, segment: _Segment, bound: _Bound, part: int) -> None:
        encoded, steps = bound.encoded, bound.block.fragment.steps
        for item in encoded.groups[part]:
            if isinstance(item, Tape):
                self._join(segment, bound, item)
            else:
                slot = None
                if item in encoded.imports:
                    slot = self._view(bound.arena, *encoded.imports[item])
                segment.items.append(_Call(bound, item, steps[item].op, slot))
        segment.appends += [(bound, a) for a in encoded.appends if a[0] == part]

    def _join(self, segment: _Segment, bound: _Bound, tape: Tape) -> None:
        """Append a tape to those before it, if no step comes between."""
        row = packed(
            Part(
                records=tape.records.ctypes.data,
                bases=bound.bases.ctypes.data,
                statistics=bound.statistics.ctypes.data,
                shifts=bound.shifts.ctypes.data,
                tables=bound.encoded.tables.ctypes.data,
                count=len(tape.records),
                lanes=self.spec.lanes,
                tile_lanes=self.spec.superlane_lanes,
            )
        )
        items = segment.items
        if items and isinstance(items[-1], _Play):
            items[-1].parts = np.concatenate([items[-1].parts, row])
            items[-1].owners.append((bound, tape))
        else:
            items.append(_Play(row, [(bound, tape)]))


def _step(call: _Call, state: State) -> None:
    bound = call.bound
    state.values, state.first, state.shift = bound.values, bound.block.first, bound.block.shift
    interpret(call.op, call.node, state)
    value = bound.values[call.node]
    if call.slot is not None:
        call.slot[...] = value
    elif value is not None and np.may_share_memory(value, bound.arena):
        bound.values[call.node] = np.array(value)  # what it was made of will be overwritten
