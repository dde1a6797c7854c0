"""C = A B on one chip, fp16 with fp32 sums: both hemispheres share the rows of A.

B rests on both sides, so that no output block is left over on one of them. Rows of A go through in
runs of at most `accumulator_depth`; a run meets every block of K before the next block of N.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from chip.kernels.layout import blocks
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import MemoryMap
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Chain, Rows, Schedule
from chip.spec import EAST, WEST, ChipSpec

PLACES = ((1, 0), (1, 1), (0, 0), (0, 1))  # (group, bank) of results, in turn


@dataclass
class Gemm:
    """[m x k] . [k x n]: memory map, and the schedule of the whole product."""

    spec: ChipSpec
    m: int
    k: int
    n: int
    memory: MemoryMap = field(init=False)
    plan: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.memory, self.plan = MemoryMap(self.spec), Schedule(self.spec)
        self.inputs, self.outputs = blocks(self.k), blocks(self.n)
        for side in (EAST, WEST):
            self._map(side)
            self._multiply(side)

    def rows(self, side: int) -> range:
        """Rows of A that a side works on."""
        half = -(-self.m // 2)
        return range(half) if side == EAST else range(half, self.m)

    def runs(self, side: int) -> list[tuple[int, int]]:
        """(first row of the side, rows) of each run, as even as can be."""
        count = len(self.rows(side))
        parts = -(-count // self.spec.accumulator_depth)
        cuts = [count * n // parts for n in range(parts + 1)]
        return [(a, b - a) for a, b in pairwise(cuts)]

    @property
    def useful_products(self) -> int:
        """Products that the result needs, without padding."""
        return self.m * self.k * self.n

    def _map(self, side: int) -> None:
        columns = self.inputs.count * self.outputs.count * self.outputs.width
        self.memory.columns(f"B{side}", side, columns)
        for run, (_, count) in enumerate(self.runs(side)):
            for block in range(self.inputs.count):
                turn = run * self.inputs.count + block
                place = (side, 2, turn % 2)
                self.memory.rows(f"A{side}.{run}.{block}", place, count, "f16", turn // 2 % 2)

    def _multiply(self, side: int) -> None:
        """Chains of one run and one output block each."""
        words = self.outputs.width // COLUMN_PAIRS
        weights = self.memory[f"B{side}"]
        room = dict.fromkeys(PLACES, self.spec.bank_words)
        for run, (_, count) in enumerate(self.runs(side)):
            for out in range(self.outputs.count):
                chain = Chain(self.spec, "matmul")
                passes = []
                for block in range(self.inputs.count):
                    word = (block * self.outputs.count + out) * words
                    rows = Rows(self.memory[f"A{side}.{run}.{block}"], 0, (0, 1))
                    first, last = block == 0, block == self.inputs.count - 1
                    passes.append(
                        Pass(weights, word, 1, words, rows, count, first=first, last=last)
                    )
                (flow,) = matmul(chain, side, passes)
                made = self._room(side, run, out, count, room)
                chain.write(flow, Rows(made))
                self.plan.place(chain)
                self._use(side, made)

    def _use(self, side: int, made: Buffer) -> None:
        """What follows on a block of sums that is made."""

    def _room(
        self, side: int, run: int, out: int, count: int, room: dict[tuple[int, int], int]
    ) -> Buffer:
        place = max(PLACES, key=lambda where: room[where])
        room[place] -= count
        return self.memory.rows(f"C{side}.{run}.{out}", (side, *place), count, "f32")
