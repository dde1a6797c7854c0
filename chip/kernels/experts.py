"""Products with matrices of experts, which are read by gathered addresses.

The matrices of all experts rest in one region: `words` words of expert 0, then of expert 1, and so
on. The address of word w is e * words + w, where e is data: the VXM works it out while weights
load, so any expert takes the same cycles, and k experts take those of k experts. Where they are
cut, to rest anywhere, each stretch is such a region, and so is each fourth of its words.

Where each expert has an x of its own that fills few lanes, as in wide groups, matrices of several
experts are side by side in the lanes of a tile: x is in those of its expert, and zero elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from chip.kernels.integers16 import LowHalves, gap_cycles, joined
from chip.kernels.lanes import KEEP, LANES, total_of
from chip.kernels.layout import Layout
from chip.kernels.linear import (
    Made,
    Matrix,
    at_stretches,
    deliver,
    each_run,
    tile_passes,
    weights_of,
)
from chip.kernels.matmul import Gathered, Pass, matmul
from chip.kernels.work import Part, Work
from chip.program import word_columns
from chip.schedule import Buffer, Chain, Flow, Rows, over, run
from chip.schedule.indirect import addresses, gather
from chip.spec import EAST, WEST

SUMMED_CYCLES = 40  # from a sum to the next one that adds it, by way of SRAM, as most are placed
SCALE, BIAS = "scale", "bias"  # of output channels
MOST_SHIFTS = 4  # of a row at a time: each is four streams
# Rows of 0, 1, 2, ... in all lanes, on either side: what is added up has its own, so that either
# may lie where matrices of the other do.
COUNTED = tuple(f"counted words {side}{sums}" for sums in ("", ", sums") for side in (EAST, WEST))


def side_by_side(inputs: Layout) -> int:
    """Experts whose x of this layout fit the lanes of a row."""
    return LANES // inputs.width if inputs.blocks == 1 else 1


@dataclass(frozen=True)
class Choice:
    """Rows (slot, token) of numbers of experts, uint16, and of their gates, both in all lanes.

    Numbers are read all the time while a matrix is loaded, so that each has its own.
    """

    numbers: Rows
    gates: Rows | None


@dataclass(frozen=True)
class Experts:
    """`count` matrices like `matrix`, `chosen` of them for a token; each has an x if it `adds`.

    If `biased` each has biases, too. `low` are the lower halves of an x of 16 bits.
    """

    matrix: Matrix
    count: int
    chosen: int
    adds: bool
    biased: bool = False
    low: tuple[Part, ...] = ()

    @property
    def packed(self) -> int:
        """Experts in the lanes of a tile."""
        return min(self.count, side_by_side(self.matrix.inputs)) if self.adds else 1

    @property
    def groups(self) -> int:
        """Tiles that hold those of all experts."""
        return -(-self.count // self.packed)

    @property
    def words(self) -> int:
        """Words of 16 slices that all of them take."""
        return self.groups * self.matrix.vectors // word_columns(self.matrix.dtype)

    def counted(self, work: Work) -> Buffer:
        """Rows that count the words of the longest pass.

        They are on the other side: its own is to be free for weights, but for what must be there.
        """
        matrix, side = self.matrix, 1 - self.matrix.side
        words = max(count for _, count, _ in matrix.runs) * matrix.words
        return work.shared(COUNTED[2 * self.adds + side], words, "u16", side)


def expert_linear(
    work: Work, experts: Experts, x: tuple[Part, ...], choice: Choice,
    copies: Sequence[tuple[Part, ...]], step: Buffer | None,
) -> Iterator[list[Chain]]:  # fmt: skip
    """Chains that write the products of each token's experts (+ biases) to all copies, (slot,
    block, token): those of an expert, to be placed before the next one's.

    If each `adds`, x has blocks (slot, input block), and products are added up by their gates.
    """
    matrix, adds = experts.matrix, experts.adds
    if not matrix.blocks:
        return
    weights = weights_of(work, matrix, experts.groups)
    counted = experts.counted(work)
    scales = None if step is None else _own(work, experts, SCALE)
    biases = _own(work, experts, BIAS) if experts.biased else None
    sums: Buffer | None = None
    if adds and experts.chosen > 1:
        sums = work.scratch(f"{matrix.name}.sums", len(matrix.blocks), "f32", 1 - matrix.side)
    tiles, low = choice.numbers, experts.low
    if experts.packed > 1:
        tiles, (x, low) = _in_own_lanes(work, experts, (x, low), tiles)
    gap = gap_cycles(work.spec, 1)
    # Sums of some blocks leave before others are begun: so many that all experts follow each other.
    together = -(-SUMMED_CYCLES // (matrix.words * len(matrix.input_blocks)))
    turns = max(1, len(matrix.blocks) // together)

    def products(slot: int, token: int) -> Made:
        """The passes of an expert, and the first output block of each whose sums leave."""
        number = replace(tiles, first=tiles.first + slot * work.rows + token, steps=(0, 0))
        first = slot * matrix.inputs.blocks if adds else 0

        def rows(block: int, x: tuple[Part, ...] = x) -> Rows:
            return work.rows_of(x, first + block).behind(token)

        gathered = Gathered(number, counted, experts.words // experts.groups)
        whole = Pass(weights, 0, 0, 0, number, 1, gathered=gathered)
        other = partial(rows, x=low)
        if low:
            whole = replace(whole, low=LowHalves(other(0), gap))
        return tile_passes(matrix, whole, rows, at_stretches, other)

    def chain_of(slot: int, token: int, made: Made) -> Chain:
        """Some of them, and what becomes of their sums."""
        chain = work.chain(f"experts {work.prefix}{matrix.name}")
        passes, starts = made
        for flow, start in zip(matmul(chain, matrix.side, passes), starts, strict=True):
            at = start - matrix.blocks.start
            own = (slot * work.rows + token) * len(matrix.blocks) + at
            if step is not None and scales is not None:
                flow = joined(chain, flow, gap, False) if low else chain.vxm("to_f32", flow)
                flow = chain.vxm("mul", flow, Rows(step, token, (0, 0)))
                flow = chain.vxm("mul", flow, Rows(scales, own, (1, 0)))
            if biases is not None:
                flow = chain.vxm("add", flow, Rows(biases, own, (1, 0)))
            if choice.gates is None:
                block = slot * matrix.outputs.blocks + start
                _deliver(work, chain, flow, copies, block, token)
                continue
            gate = choice.gates.behind(slot * work.rows + token)
            flow = chain.vxm("mul", flow, replace(gate, steps=(0, 0)))
            here = Rows(sums, at * work.rows + token, (work.rows, 1)) if sums else None
            if slot and here:  # one block of a chain, which so reads it before it writes it
                flow = chain.vxm("add", flow, here)
            if here and slot < experts.chosen - 1:
                chain.write(flow, here)
            else:
                _deliver(work, chain, flow, copies, start, token)
        return chain

    for token in work.tokens:
        every = [products(slot, token) for slot in range(experts.chosen)]
        if not adds:
            yield from ([chain_of(slot, token, made)] for slot, made in enumerate(every))
            continue
        runs = [list(each_run(*made)) for made in every]
        ends = [n * len(runs[0]) // turns for n in range(turns + 1)]
        for first, end in pairwise(ends):
            for slot, mine in enumerate(runs):
                yield [chain_of(slot, token, made) for made in mine[first:end]]


def _in_own_lanes(
    work: Work, experts: Experts, halves: tuple[tuple[Part, ...], ...], numbers: Rows
) -> tuple[Rows, tuple[tuple[Part, ...], ...]]:
    """Rows (slot, token) of the tile of each expert, and x in the lanes that it has in its tile.

    These are the `halves` of x, of which the lower one may be none.
    """
    matrix, count, each = experts.matrix, experts.chosen, experts.packed
    name, width, loops = matrix.name, matrix.inputs.width, run(count * work.rows)
    tiles = Rows(work.scratch(f"{name}.tile", count, "u16", 1 - matrix.side))
    lanes = Rows(work.scratch(f"{name}.lanes", count, "f32", EAST))
    owners = work.constant(f"{name}.owners", 1, "f32", EAST)
    chain = work.chain("experts: tile")  # the whole part of number / each: no half is rounded
    value = chain.vxm("to_f32", numbers, loops=loops)
    value = chain.vxm("mul", chain.vxm("add", value, 0.5), 1 / each)
    chain.write(chain.vxm("to_u16", chain.vxm("sub", value, 0.5)), tiles)
    work.plan.place(chain)
    chain = work.chain("experts: lanes")
    first = chain.vxm("mul", tiles, each, loops=loops)
    place = chain.vxm("to_f32", chain.vxm("sub", numbers, first))
    own = chain.vxm("eq", place, Rows(owners, 0, (0, 0)))
    chain.write(chain.vxm("to_f32", own), lanes)
    work.plan.place(chain)
    found: list[tuple[Part, ...]] = []
    for x, half in zip(halves, ("", ".low"), strict=True):
        if not x:
            found.append(())
            continue
        moved = work.scratch(f"{name}.moved{half}", count, matrix.dtype, matrix.side)
        chain = work.chain("experts: own lanes")
        value = chain.vxm("to_f32", work.rows_of(x, 0), loops=loops)
        there = 1  # places that x is in, from the first on
        while there < each:
            shifts = range(0, min(each, MOST_SHIFTS * there) * width, there * width)
            copies = [chain.sxm("shift_up", n, value, matrix.side) for n in shifts]
            value = total_of(chain, copies)
            there *= len(shifts)
        value = chain.vxm("mul", value, lanes)
        chain.write(chain.vxm("to_i8" if matrix.dtype == "i8" else "to_f16", value), Rows(moved))
        work.plan.place(chain)
        found.append((Part(moved, 0, count),))
    return tiles, tuple(found)


def _deliver(
    work: Work, chain: Chain, flow: Flow, copies: Sequence[tuple[Part, ...]], block: int, token: int
) -> None:
    """Write the blocks of one token, from a block on, to each copy."""
    rows = [work.rows_of(copy, block) for copy in copies]
    deliver(chain, flow, [replace(r, first=r.first + token, steps=(work.rows, 1)) for r in rows])


def expert_rows(work: Work, experts: Experts, numbers: Rows, scaled: bool) -> None:
    """Rows (slot, token, block) of the chosen experts, of rows (expert, block) of them all.

    These are their scales, if they are `scaled`, and their biases, if they have some. Addresses go
    outwards from the VXM and rows with them, which come back by way of the SXM.
    """
    matrix, spec = experts.matrix, work.spec
    blocks, side = len(matrix.blocks), matrix.side
    for what in (SCALE,) * scaled + (BIAS,) * experts.biased if blocks else ():
        table = work.constant(f"{matrix.name}.{what}", experts.count * blocks, "f32", side)
        counted = work.shared(COUNTED[2 * experts.adds + 1 - side], blocks, "u16", 1 - side)
        loops = over(blocks, experts.chosen * work.rows)
        chain = work.chain("experts: rows")
        each = replace(numbers, steps=(1, 0))
        address = addresses(chain, each, blocks, Rows(counted), loops, 0)
        found = gather(chain, ((table, 0),), address, spec.edge_position("sxm", side), side)
        value = chain.sxm("distribute", KEEP, found, side)
        chain.write(chain.vxm("copy", value), Rows(_own(work, experts, what), 0, (blocks, 1)))
        work.plan.place(chain)


def _own(work: Work, experts: Experts, what: str) -> Buffer:
    """Rows of the chosen experts."""
    matrix = experts.matrix
    name, count = f"{matrix.name}.{what}.own", experts.chosen * len(matrix.blocks)
    return work.scratch(name, count, "f32", 1 - matrix.side)
