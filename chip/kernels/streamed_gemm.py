"""A block of C while slabs of K stream through a chip: C += A B, fp16 with fp32 sums.

The product of a slab is that of `Gemm`. Its sums are added to those of the slabs before, which
rest in the second outer group of 16 slices, in turn in either bank, as a bank serves one access.
"""

from chip.kernels.gemm import Gemm
from chip.kernels.memory import INNER_SLICES, SramFull
from chip.kernels.sram_map import QUAD
from chip.program import WEIGHT_SLICES, Region
from chip.schedule import Buffer, Chain, Rows, run
from chip.spec import EAST, WEST

WIDE = WEIGHT_SLICES // QUAD  # fp32 vectors side by side in an outer group


class StreamedGemm(Gemm):
    """[m x k] . [k x n] added to `before`, by names of blocks of C; the sums are in `after`.

    Raises SramFull where this slab, the next one and all sums have no room together.
    """

    def __post_init__(self) -> None:
        self.before: dict[str, Buffer] = {}
        self.after: dict[str, Buffer] = {}
        self._used = {side: [0] * WIDE for side in (EAST, WEST)}
        super().__post_init__()
        for side in (EAST, WEST):
            self._room_for_next(side)

    def _room_for_next(self, side: int) -> None:
        """The next slab arrives while this one is multiplied."""
        vectors = self.memory[f"B{side}"].region.vectors
        self.memory.columns(f"next.B{side}", side, vectors, groups=(0,))
        for name in [n for n in self.memory.buffers if n.startswith(f"A{side}.")]:
            region = self.memory[name].region
            slot = region.index % self.spec.hemisphere_slices
            place = (side, slot // QUAD, region.address // self.spec.bank_words)
            pair = slot % QUAD // 2
            self.memory.rows(f"next.{name}", place, region.vectors, "f16", pair)

    def _use(self, side: int, made: Buffer) -> None:
        """Add a block's sums to those before."""
        bank_words, used, count = self.spec.bank_words, self._used[side], made.region.vectors
        group = used.index(min(used))
        if used[group] + count > bank_words:
            bytes_each = QUAD * self.spec.lanes
            free = (bank_words - used[group]) * bytes_each
            raise SramFull(f"sums of {made.name}", count * bytes_each, free)
        first = side * self.spec.hemisphere_slices + INNER_SLICES + WEIGHT_SLICES
        for sums, bank in ((self.before, 0), (self.after, bank_words)):
            region = Region(first + QUAD * group, bank + used[group], count, "f32")
            sums[made.name] = Buffer(f"{made.name}@{bank}", region)
        used[group] += count
        chain = Chain(self.spec, "add")
        total = chain.vxm("add", Rows(made), Rows(self.before[made.name]), loops=run(count))
        chain.write(total, Rows(self.after[made.name]))
        self.plan.place(chain)
