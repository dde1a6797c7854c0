"""Products with matrices of experts, which are read by gathered addresses.

What a pass needs of all experts rests in one region of one bank: `words` words of expert 0, then of
expert 1, and so on. The address of word w is e * words + w, where e is data: the VXM works it out
while weights load, so any expert takes the same cycles, and k experts take those of k experts.
Where a bank has no room for the tiles of so many experts, a tile is loaded and met in pieces, each
of some of its columns: that takes no longer than loading it at once.

Where each expert has an x of its own that fills few lanes, as in wide groups, matrices of several
experts are side by side in the lanes of a tile: x is in those of its expert, and zero elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

from chip.kernels.lanes import KEEP, LANES
from chip.kernels.layout import Layout
from chip.kernels.linear import Matrix, deliver
from chip.kernels.matmul import Gathered, Pass, matmul
from chip.kernels.work import CONSTANT, Laid, Part, Request, Work
from chip.program import word_columns
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST, ChipSpec

COUNTED = "counted words"  # rows of 0, 1, 2, ... in all lanes


def side_by_side(inputs: Layout) -> int:
    """Experts whose x of this layout fit the lanes of a row."""
    return LANES // inputs.width if inputs.blocks == 1 else 1


@dataclass(frozen=True)
class Piece:
    """What a pass loads: `words` of `tiles` tiles of an input block, at array columns `column`..

    The `first` one of a run sets accumulators, the `last` one empties them.
    """

    block: int
    tiles: int
    words: int
    column: int
    first: bool
    last: bool


@dataclass(frozen=True)
class Experts:
    """`count` matrices like `matrix`, `chosen` of them for a token; each has an x if it `adds`.

    If `biased` each has biases, too.
    """

    matrix: Matrix
    count: int
    chosen: int
    adds: bool
    biased: bool = False

    @property
    def packed(self) -> int:
        """Experts in the lanes of a tile."""
        return min(self.count, side_by_side(self.matrix.inputs)) if self.adds else 1

    @property
    def groups(self) -> int:
        """Tiles that hold those of all experts."""
        return -(-self.count // self.packed)

    def limited(self, spec: ChipSpec) -> "Experts":
        """The same with runs of no more output blocks than a bank holds of all experts."""
        most = max(1, spec.bank_words // (self.groups * self.matrix.words))
        return replace(self, matrix=replace(self.matrix, limit=min(self.matrix.limit, most)))

    def passes(self, spec: ChipSpec) -> Iterator[Piece]:
        """What each pass loads, in order."""
        matrix, most = self.matrix, spec.bank_words // self.groups
        assert most, f"{self.groups} tiles are more than a bank has words"
        for _, count, column in matrix.runs:
            words, every = count * matrix.words, matrix.inputs.blocks
            pieces = -(-words // most)  # of one tile, if there are several
            cuts = [words * n // pieces for n in range(pieces + 1)]
            for block, (start, end) in product(range(every), pairwise(cuts)):
                at = column + start * word_columns(matrix.dtype)
                first, last = block == start == 0, (block, end) == (every - 1, words)
                yield Piece(block, count, end - start, at, first, last)

    def regions(self, spec: ChipSpec) -> tuple[int, ...]:
        """Words of an expert in each region; a pass has all of its words in one."""
        most, found = spec.bank_words // self.groups, [0]
        for piece in self.passes(spec):
            if found[-1] and found[-1] + piece.words > most:
                found.append(0)
            found[-1] += piece.words
        return tuple(found)

    def places(self, spec: ChipSpec) -> Iterator[tuple[int, int]]:
        """(region, first word) of each pass."""
        region, word, sizes = 0, 0, self.regions(spec)
        for piece in self.passes(spec):
            if word == sizes[region]:
                region, word = region + 1, 0
            yield region, word
            word += piece.words

    def buffers(self, work: Work) -> list[Buffer]:
        """The regions of a layer."""
        name, dtype, side = self.matrix.name, self.matrix.dtype, self.matrix.side
        where = (dtype, side, CONSTANT, "columns", True, True)
        each = self.groups * word_columns(dtype)
        return [
            work.memory.take(Request(f"{work.prefix}{name}.{number}", words * each, *where))
            for number, words in enumerate(self.regions(work.spec))
        ]


def expert_linear(
    work: Work, experts: Experts, x: tuple[Part, ...], choice: Laid,
    copies: Sequence[tuple[Part, ...]], step: Buffer | None,
) -> None:  # fmt: skip
    """Write the products of each token's experts (+ biases) to all copies, (slot, block, token).

    If each `adds`, x has blocks (slot, input block), and products are added up by their gates.
    """
    buffers, matrix, adds = experts.buffers(work), experts.matrix, experts.adds
    if not matrix.blocks:
        return
    counted = work.shared(COUNTED, max(experts.regions(work.spec)), "f32", EAST)
    scales = biases = None
    if step is not None:
        scales = _own_rows(work, experts, f"{matrix.name}.scale", choice)
    if experts.biased:
        biases = _own_rows(work, experts, f"{matrix.name}.bias", choice)
    sums = [
        work.scratch(f"{matrix.name}.sum{turn}", len(matrix.blocks), "f32", matrix.side)
        for turn in (0, 1)
    ]
    tiles = work.rows_of(choice.copies[0], 0)
    if experts.packed > 1:
        tiles, x = _in_own_lanes(work, experts, x, tiles)
    gates = _gates(work, experts, choice) if adds else None
    for token in range(work.rows):
        for slot in range(experts.chosen):
            chain = work.chain(f"experts {work.prefix}{matrix.name}")
            at = tiles.first + slot * work.rows + token
            number = replace(tiles, first=at, steps=(0, 0))
            first = slot * matrix.inputs.blocks if adds else 0
            gathered = Gathered(number, counted)
            passes = _passes(work, experts, buffers, gathered, x, (first, token))
            for flow, (start, _, _) in zip(
                matmul(chain, matrix.side, passes), matrix.runs, strict=True
            ):
                at = start - matrix.blocks.start
                own = (slot * work.rows + token) * len(matrix.blocks) + at
                if step is not None and scales is not None:
                    flow = chain.vxm("mul", chain.vxm("to_f32", flow), Rows(step, token, (0, 0)))
                    flow = chain.vxm("mul", flow, Rows(scales, own, (1, 0)))
                if biases is not None:
                    flow = chain.vxm("add", flow, Rows(biases, own, (1, 0)))
                if gates is None:
                    block = slot * matrix.outputs.blocks + start
                    _deliver(work, chain, flow, copies, block, token)
                    continue
                gate = Rows(gates, slot * work.rows + token, (0, 0))
                flow = chain.vxm("mul", flow, gate)
                if slot:
                    before = Rows(sums[1 - slot % 2], at * work.rows + token, (work.rows, 1))
                    flow = chain.vxm("add", flow, before)
                if slot < experts.chosen - 1:
                    here = Rows(sums[slot % 2], at * work.rows + token, (work.rows, 1))
                    chain.write(flow, here)
                else:
                    _deliver(work, chain, flow, copies, start, token)
            work.plan.place(chain)


def _in_own_lanes(
    work: Work, experts: Experts, x: tuple[Part, ...], numbers: Rows
) -> tuple[Rows, tuple[Part, ...]]:
    """Rows (slot, token) of the tile of each expert, and x in the lanes that it has in its tile."""
    matrix, count, each = experts.matrix, experts.chosen, experts.packed
    name, width, loops = matrix.name, matrix.inputs.width, run(count * work.rows)
    tiles = Rows(work.scratch(f"{name}.tile", count, "f32", WEST))
    lanes = Rows(work.scratch(f"{name}.lanes", count, "f32", EAST))
    moved = work.scratch(f"{name}.moved", count, matrix.dtype, matrix.side)
    owners = work.constant(f"{name}.owners", 1, "f32", EAST)
    chain = work.chain("experts: tile")  # the whole part of number / each: no half is rounded
    value = chain.vxm("mul", chain.vxm("add", numbers, 0.5, loops=loops), 1 / each)
    value = chain.vxm("to_u16", chain.vxm("sub", value, 0.5))
    chain.write(chain.vxm("to_f32", value), tiles)
    work.plan.place(chain)
    chain = work.chain("experts: lanes")
    first = chain.vxm("mul", tiles, float(each), loops=loops)
    own = chain.vxm("eq", chain.vxm("sub", numbers, first), Rows(owners, 0, (0, 0)))
    chain.write(chain.vxm("to_f32", own), lanes)
    work.plan.place(chain)
    chain = work.chain("experts: own lanes")
    value = chain.vxm("to_f32", work.rows_of(x, 0), loops=loops)
    there = 1  # places that x is in: twice as many each time
    while there < each:
        shifts = (0, there * width)
        value = chain.vxm("add", *(chain.sxm("shift_up", n, value, matrix.side) for n in shifts))
        there *= 2
    deliver(chain, chain.vxm("mul", value, lanes), [Rows(moved)])
    work.plan.place(chain)
    return tiles, (Part(moved, 0, count),)


def _gates(work: Work, experts: Experts, choice: Laid) -> Buffer:
    """Gates (slot, token) apart from the numbers, which are read at the same time."""
    matrix, count = experts.matrix, experts.chosen
    out = work.scratch(f"{matrix.name}.gates", count, "f32", 1 - matrix.side)
    chain, rows = work.chain("experts: gates"), work.rows_of(choice.copies[0], count)
    chain.write(chain.vxm("copy", rows, loops=run(count * work.rows)), Rows(out))
    work.plan.place(chain)
    return out


def _at(work: Work, choice: Laid, block: int, token: int) -> Rows:
    """A number of a token, in all lanes, as often as it is wanted."""
    rows = work.rows_of(choice.copies[0], block)
    return Rows(rows.buffer, rows.first + token, (0, 0))


def _deliver(
    work: Work, chain: Chain, flow: Flow, copies: Sequence[tuple[Part, ...]], block: int, token: int
) -> None:
    """Write the blocks of one token, from a block on, to each copy."""
    rows = [work.rows_of(copy, block) for copy in copies]
    deliver(chain, flow, [replace(r, first=r.first + token, steps=(work.rows, 1)) for r in rows])


def _passes(
    work: Work, experts: Experts, buffers: list[Buffer], gathered: Gathered,
    x: tuple[Part, ...], at: tuple[int, int],
) -> list[Pass]:  # fmt: skip
    """Passes with the x of a token, from a block of it on: `at` (block, token)."""
    first_block, token = at
    found, sizes = [], experts.regions(work.spec)
    pieces = zip(experts.passes(work.spec), experts.places(work.spec), strict=True)
    for piece, (region, word) in pieces:
        rows = work.rows_of(x, first_block + piece.block)
        rows = replace(rows, first=rows.first + token, steps=(0, 1))
        own = replace(gathered, words=sizes[region])
        words = piece.words // piece.tiles
        part = Pass(buffers[region], word, piece.tiles, words, rows, 1, piece.column,
                    first=piece.first, last=piece.last, gathered=own)  # fmt: skip
        found.append(part)
    return found


def _own_rows(work: Work, experts: Experts, name: str, choice: Laid) -> Buffer:
    """Rows (slot, token, block) of the chosen experts, of rows (expert, block) of them all.

    Addresses go outwards from the VXM and rows with them, which come back by way of the SXM.
    """
    blocks, side, spec = len(experts.matrix.blocks), experts.matrix.side, work.spec
    table = work.constant(name, experts.count * blocks, "f32", side)
    out = work.scratch(f"{name}.own", experts.chosen * blocks, "f32", 1 - side)
    counted = work.shared(COUNTED, blocks, "f32", EAST)
    rows = work.rows_of(choice.copies[0], 0)
    for first in range(experts.chosen * work.rows):
        loops: Loops = ((1, blocks), (blocks, 1))
        chain = work.chain("experts: rows")
        number = Rows(rows.buffer, rows.first + first, (0, 0))
        address = chain.addresses(number, blocks, Rows(counted), loops, 0)
        found = chain.gather(table, address, spec.edge_position("sxm", side), side)
        value = chain.sxm("distribute", KEEP, found, side)
        chain.write(chain.vxm("copy", value), Rows(out, first * blocks))
        work.plan.place(chain)
    return out
