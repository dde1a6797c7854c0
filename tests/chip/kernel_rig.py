"""One chip, a memory map and a schedule: put data in, place kernels, run, read the result.

Everything goes through the wire format and the linker, and the cycles are checked.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.core import Chip
from chip.isa import NUMPY_TYPES
from chip.kernels.lanes import MAPS
from chip.kernels.layout import Blocks
from chip.kernels.memory import MemoryMap
from chip.own_spec import identity
from chip.program import Program, Region
from chip.schedule import Buffer, Schedule
from chip.spec import EAST, TINY, WEST, ChipSpec
from chip.wire import pack

Array = npt.NDArray[Any]
SIDES = (EAST, WEST)
HALF_ULP = 2.0**-11  # of fp16, relative


class KernelRig:
    """Kernels for chip 0, which see buffers of `memory`."""

    def __init__(self, spec: ChipSpec = TINY, maps: tuple[tuple[int, ...], ...] = MAPS) -> None:
        self.spec, self.memory, self.plan = spec, MemoryMap(spec), Schedule(spec)
        self.chip, self.maps = Chip(0, spec), maps
        self.constants: tuple[Region, ...] = ()

    def rows(
        self, name: str, place: tuple[int, int, int], values: Array, dtype: str = "f32"
    ) -> Buffer:
        """A buffer in the inner slices that holds `values` [vectors, up to 320]."""
        return self.put(self.memory.rows(name, place, len(values), dtype), values)

    def room(
        self, name: str, place: tuple[int, int, int], vectors: int, dtype: str = "f32"
    ) -> Buffer:
        """A buffer full of what a kernel must not rely on."""
        rubbish = np.full((vectors, self.spec.lanes), 7)
        return self.rows(name, place, rubbish, dtype)

    def columns(self, name: str, side: int, values: Array, dtype: str = "f16") -> Buffer:
        """Columns [columns, up to 320] in the outer slices."""
        return self.put(self.memory.columns(name, side, len(values), dtype=dtype), values)

    def put(self, buffer: Buffer, values: Array) -> Buffer:
        """Write `values` to a buffer, zero in the lanes beyond them."""
        padded = np.zeros((len(values), self.spec.lanes), NUMPY_TYPES[buffer.region.dtype])
        padded[:, : values.shape[1]] = values
        self.chip.write(buffer.region, padded)
        return buffer

    def run(self) -> None:
        """Run what has been placed; scheduled and executed cycles must be equal."""
        bare = Program(0, identity(self.spec), 0, {}, self.maps, constants=self.constants)
        program = self.plan.program(0, bare)
        linked = self.chip.load("it", pack(program))
        assert linked.end_cycle == self.plan.end_cycle
        self.chip.begin("it")
        for segment in range(len(linked.segments)):
            self.chip.run(segment, {})
        assert self.chip.finish().end_cycle == self.plan.end_cycle

    def read(self, buffer: Buffer) -> Array:
        """The vectors of a "rows" buffer."""
        return self.chip.read(buffer.region)

    def read_columns(self, buffer: Buffer) -> Array:
        """The columns [words * 8, 320] of a "columns" buffer."""
        region = buffer.region
        words = slice(region.address, region.address + region.words)
        pairs = [
            self.chip.sram.typed(region.index + 2 * pair, NUMPY_TYPES["f16"])[words]
            for pair in range(8)
        ]
        return np.stack(pairs, axis=1).reshape(region.words * 8, self.spec.lanes)


def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random numbers around zero."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def fp16(values: Array) -> npt.NDArray[np.float32]:
    """Values rounded to fp16, as float32."""
    return values.astype(np.float16).astype(np.float32)


def by_block(values: Array, cut: Blocks) -> Array:
    """[tokens, total] as rows (block, token)."""
    tokens = len(values)
    padded = np.zeros((tokens, cut.count * cut.width), values.dtype)
    padded[:, : cut.total] = values
    return padded.reshape(tokens, cut.count, cut.width).swapaxes(0, 1).reshape(-1, cut.width)


def from_blocks(rows: Array, cut: Blocks, tokens: int) -> Array:
    """Rows (block, token) as [tokens, total]."""
    parts = rows[:, : cut.width].reshape(cut.count, tokens, cut.width)
    return parts.swapaxes(0, 1).reshape(tokens, -1)[:, : cut.total]
