"""One chip at work: SRAM, linked programs, and a launch run segment by segment."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from chip.errors import ChipError, ProgramError, ProgramsTooLarge
from chip.faults import Faults, Passing, audit
from chip.isa import NUMPY_TYPES, WIDTHS
from chip.isa.mxm import PLANES
from chip.jit import plays
from chip.linker import Linked, State, link
from chip.linker.interpret import interpret
from chip.program import Program, Region, word_columns
from chip.spec import GROQCHIP1, ChipSpec
from chip.sram import GROUP, Sram
from chip.state_digest import Written
from chip.tape import Player
from chip.text import ProgramText
from chip.wire import unpack

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Launch:
    """What a finished launch reports: executed cycles and all that it left behind."""

    end_cycle: int
    segment_end_cycles: tuple[int, ...]
    left: bytes = field(repr=False)  # packets, written SRAM and cycles
    corrected: int = 0  # words in which some consumer corrected a flipped bit

    @property
    def digest(self) -> bytes:
        """SHA-256 of what it left behind; taken when it is asked for."""
        return hashlib.sha256(self.left).digest()


class Chip:
    """One LPU. Plain and synchronous: give it programs, bytes and packets; it computes."""

    def __init__(self, number: int, spec: ChipSpec = GROQCHIP1) -> None:
        self.number, self.spec = number, spec
        self.sram = Sram(spec)
        self.faults = Faults()
        self.corrected = 0  # since the chip was made, as its status register counts
        self.programs: dict[str, Linked] = {}
        self.text = ProgramText()
        self.instructions_at_most = 0  # that rest in it; with those whose blocks nobody has counted
        self._uncounted: list[Program] = []
        depth = (spec.accumulator_depth, spec.lanes)
        self.accumulators = [np.zeros(depth, np.float32) for _ in range(2 * PLANES)]
        self._running: Linked | None = None
        self._state: State | None = None
        self._packets: list[tuple[int, bytes]] = []
        self._player: Player | None = None
        self._written: dict[Linked, Written] = {}
        self._values: dict[int, list[Any]] = {}

    def load(self, name: str, data: bytes, linked: Linked | None = None) -> Linked:
        """Link the program `data` under `name`; `linked` is its result where it is known.

        Raises ProgramError or HazardError, and ProgramsTooLarge when instructions fill the SRAM.
        """
        ready = linked or link(unpack(data))
        if ready.spec != self.spec:
            raise ProgramError(f"{name} is for chip {ready.spec.name}, this is {self.spec.name}")
        self._uncounted.append(ready.program)
        self.instructions_at_most += ready.instructions
        if self.instructions_at_most * self.spec.instruction_bytes > self.spec.sram_bytes:
            self._count_text()
        self.programs[name] = ready
        return ready

    def _count_text(self) -> None:
        for program in self._uncounted:
            self.text.add(program)
        self._uncounted.clear()
        self.instructions_at_most = self.text.instructions
        size = self.text.instructions * self.spec.instruction_bytes
        if size > self.spec.sram_bytes:
            raise ProgramsTooLarge(f"chip {self.number}: {size} B of instructions")

    @property
    def interpreted_nodes(self) -> int:
        """Nodes of the programs that have been run which are interpreted in each launch."""
        return self._player.interpreted if self._player else 0

    # --- host access ------------------------------------------------------------------------
    def write(self, region: Region, values: Array) -> None:
        """Store `values` [vectors, lanes] of the region's type; what was gathered is dropped."""
        dtype = NUMPY_TYPES[region.dtype]
        if values.shape != (region.vectors, self.spec.lanes) or values.dtype != dtype:
            raise ChipError(
                f"chip {self.number}: {values.shape} {values.dtype} does not fill {region}"
            )
        if self.faults:
            for index in range(region.index, region.index + region.slices):
                self.faults.overwrite(index, region.address, region.address + region.words - 1)
        if region.layout == "columns":
            self._write_columns(region, values)
        else:
            words = slice(region.address, region.address + region.words)
            self.sram.store(region.index, words, values)

    def read(self, region: Region) -> Array:
        """The vectors [vectors, lanes] of a "rows" region."""
        if self.faults:
            last = region.address + region.words - 1
            for index in range(region.index, region.index + region.slices):
                found = self.faults.consume(self.number, index, region.address, last)
                self.corrected += found
        planes = np.array(self._planes(region))
        return planes.view(NUMPY_TYPES[region.dtype])[..., 0]

    def contents(self, region: Region) -> bytes:
        """All words of a region of any layout, slice by slice."""
        last, found = region.address + region.words, []
        for index in range(region.index, region.index + region.slices):
            if self.faults:
                self.corrected += self.faults.consume(self.number, index, region.address, last - 1)
            found.append(self.sram.group(index)[region.address : last, :, index % GROUP].tobytes())
        return b"".join(found)

    def put(self, region: Region, data: bytes) -> None:
        """Make the words of a region what `contents` found in one as large."""
        words = slice(region.address, region.address + region.words)
        planes = np.frombuffer(data, np.uint8).reshape(region.slices, -1, self.spec.lanes)
        for index, plane in enumerate(planes, region.index):
            if self.faults:
                self.faults.overwrite(index, words.start, words.stop - 1)
            self.sram.store(index, words, plane)

    def _planes(self, region: Region) -> Array:
        first = region.index % GROUP
        words = slice(region.address, region.address + region.vectors)
        return self.sram.group(region.index)[words, :, first : first + WIDTHS[region.dtype]]

    def _write_columns(self, region: Region, values: Array) -> None:
        width, count = WIDTHS[region.dtype], word_columns(region.dtype)
        if len(values) < region.words * count:
            padded = np.zeros((region.words * count, self.spec.lanes), values.dtype)
            padded[: len(values)] = values
            values = padded
        columns = values.reshape(region.words, count, -1)
        words = slice(region.address, region.address + region.words)
        for number in range(count):
            self.sram.store(region.index + width * number, words, columns[:, number])

    # --- faults -----------------------------------------------------------------------------
    def flip(self, index: int, address: int, superlane: int, bit: int) -> None:
        """Flip a bit, data 0 to 127 or check 128 to 136, of a tile's word until it is written."""
        spec = self.spec
        sizes = (spec.slices, spec.slice_words, spec.superlanes)
        if not all(
            0 <= n < size for n, size in zip((index, address, superlane), sizes, strict=True)
        ):
            raise ChipError(
                f"chip {self.number}: no slice {index} address {address} superlane {superlane}"
            )
        self.faults.flip((index, address, superlane), bit)

    def flip_stream(self, place: Passing, bit: int) -> None:
        """Flip a bit of what passes a stream register in a cycle of the next launch."""
        self.faults.flip_passing(place, bit)

    # --- launches ---------------------------------------------------------------------------
    def begin(self, name: str) -> Linked:
        """Start a launch of program `name`."""
        try:
            self._running = self.programs[name]
        except KeyError:
            known = ", ".join(self.programs) or "none"
            raise ProgramError(
                f"chip {self.number} has no program {name!r}; it has {known}"
            ) from None
        if self.faults or not plays(self.spec.lanes):
            self._player = None
        elif self._player is None:
            self._player = Player(self.sram, self.accumulators, self.spec)
        self._state = State(self.sram, [], self.accumulators)
        self._values = {}
        self._packets = []
        self.sram.indirect = [] if self.faults else None
        return self._running

    def run(self, segment: int, packets: dict[int, Array]) -> dict[int, Array]:
        """Run one segment on the packets it receives, by issue id; returns those it sends."""
        if self._running is None or self._state is None:
            raise ChipError(f"chip {self.number}: no launch has begun")
        state = self._state
        state.received, state.sent = packets, {}
        with np.errstate(all="ignore"):  # infinities and NaNs are values like others
            if self._player is not None:
                self._player.run(self._running, segment, state)
            else:
                self._interpret(segment, state)
        self._packets += [(issue, sent.tobytes()) for issue, sent in state.sent.items()]
        return state.sent

    def _interpret(self, segment: int, state: State) -> None:
        assert self._running is not None
        for block in self._running.segments[segment]:
            state.values = self._values.setdefault(block.first, [None] * block.values)
            state.first, state.shift = block.first, block.shift
            for number, op in block.nodes:
                interpret(op, number, state)
            if segment == len(self._running.segments) - 1:
                del self._values[block.first]  # nobody comes back to this stretch

    def finish(self) -> Launch:
        """End the launch: its cycles, and a copy of packets and written SRAM.

        Raises EccError if some word with two flipped bits was consumed.
        """
        linked, state = self._running, self._state
        if linked is None or state is None:
            raise ChipError(f"chip {self.number}: no launch has begun")
        corrected = 0
        if self.faults and self.sram.indirect is not None:
            corrected = audit(linked.program, self.spec, self.faults, self.sram.indirect)
            self.corrected += corrected
        packets = [packet for _, packet in sorted(self._packets)]
        cycles = linked.segment_end_cycles
        if linked not in self._written:
            self._written[linked] = Written(self.sram, linked.written)
        left = self._written[linked].left_behind(packets, state.scattered, cycles)
        self._running = self._state = None
        self._values = {}
        return Launch(linked.end_cycle, cycles, left, corrected)
