"""Products with a weight matrix at rest: its layout as columns, and the chain that multiplies.

A matrix enters the arrays of one side, as runs of output blocks whose sums fit the accumulators.
With int8 weights rows are int8 with a step for each token; sums are scaled back by it and by the
scale of each output channel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, product

from chip.isa import FORMATS
from chip.isa.mxm import PLANES
from chip.kernels.integers16 import LowHalves, gap_cycles, joined
from chip.kernels.layout import Layout
from chip.kernels.matmul import Pass, matmul
from chip.kernels.work import CONSTANT, Part, Request, Steps, Work
from chip.program import word_columns
from chip.schedule import Buffer, Chain, Flow, Rows
from chip.spec import EAST, WEST

Scaled = Callable[[Sequence[Flow], Sequence[int]], Sequence[Flow]]
# Of sums, at a side, from a token on; what scales copies, if they must be scaled before.
OnTheWay = Callable[[Chain, Flow, int, int, Scaled | None], Flow]
Made = tuple[list[Pass], list[int]]  # passes, and the first block of each whose sums leave
_ROUND = {"f16": "to_f16", "i8": "to_i8", "u16": "to_u16"}


@dataclass(frozen=True)
class Tile:
    """What a pass loads for input block `block`: words for each of `outputs`, at array `column`.

    These are ranges of rows of the matrix, one for each output block; `inputs` are its columns,
    which meet the lanes from `lane` on. Products are set or added (`first`) and leave if `last`.
    """

    block: int
    outputs: tuple[range, ...]
    words: int
    column: int
    inputs: range
    lane: int
    first: bool
    last: bool


@dataclass(frozen=True)
class Matrix:
    """Output blocks `blocks` of a weight matrix, at the array of `side`.

    At most `limit` blocks have their sums in the accumulators at a time. Column data order: run,
    input block, output block, `words` words of columns: 8 of fp16, 16 of int8. It may take only
    some input blocks, `taken`: those of another matrix are the rest, on the other side.
    """

    name: str
    side: int
    inputs: Layout
    outputs: Layout
    blocks: range
    limit: int
    dtype: str = "f16"
    taken: range | None = None

    @property
    def input_blocks(self) -> range:
        """The input blocks that it takes."""
        return range(self.inputs.blocks) if self.taken is None else self.taken

    @property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """(first block, count, column) of each run."""
        return self.outputs.runs(self.blocks, self.limit)

    @property
    def words(self) -> int:
        """Words of columns of an output block."""
        return self.outputs.width // word_columns(self.dtype)

    @property
    def vectors(self) -> int:
        """Columns in all."""
        return len(self.input_blocks) * len(self.blocks) * self.words * word_columns(self.dtype)

    @property
    def tiles(self) -> Iterator[Tile]:
        """What each pass loads, in order."""
        mine = self.input_blocks
        for start, count, column in self.runs:
            spans = self.outputs.spans[start : start + count]
            outputs = tuple(range(span.first, span.first + span.count) for span in spans)
            for block in mine:
                inside = self.inputs.spans[block]
                inputs = range(inside.first, inside.first + inside.count)
                yield Tile(block, outputs, self.words, column, inputs, inside.column,
                           block == mine[0], block == mine[-1])  # fmt: skip

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Words before which columns may be cut: where the tile of an output block begins."""
        words = [tile.words for tile in self.tiles for _ in tile.outputs]
        return tuple(accumulate(words[:-1], initial=0))

    def __post_init__(self) -> None:
        assert self.dtype in FORMATS


@dataclass(frozen=True)
class HeadMatrix(Matrix):
    """Matrices of `heads` heads: an output block has products of its heads' inputs only."""

    heads: int = 1

    @property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """Each block by itself."""
        return tuple((block, 1, self.outputs.spans[block].column) for block in self.blocks)

    @property
    def vectors(self) -> int:
        """Columns in all."""
        return sum(tile.words for tile in self.tiles) * word_columns(self.dtype)

    @property
    def tiles(self) -> Iterator[Tile]:
        """Each head of each output block, for each input block that has some of it."""
        group = word_columns(self.dtype)
        out, inner = (layout.total // self.heads for layout in (self.outputs, self.inputs))
        for number in self.blocks:
            (whole,) = self.outputs.pieces(number, range(self.outputs.total))
            heads = range(whole.first // out, -(-(whole.first + whole.count) // out))
            tiles = []
            for head in heads:
                (to,) = self.outputs.pieces(number, range(head * out, (head + 1) * out))
                mine = range(head * inner, (head + 1) * inner)
                words = -(-to.count // group)
                rows = (range(to.first, to.first + to.count),)
                for block in range(self.inputs.blocks):
                    for own in self.inputs.pieces(block, mine):
                        first = own.first - mine.start
                        inputs = range(first, first + own.count)
                        tiles.append(
                            Tile(block, rows, words, to.column, inputs, own.column, False, False)
                        )
            ends = range(len(tiles))
            for tile, at in zip(tiles, ends, strict=True):
                yield replace(tile, first=at == 0, last=at == ends[-1])


def deliver(chain: Chain, flow: Flow, targets: Sequence[Rows], inverse: Rows | None = None) -> None:
    """Write a flow to each of these rows, rounded to their type; int8 is what `inverse` makes it.

    What leaves the MXM passes all slices; what comes from the VXM goes one way, copies another.
    """
    sent: dict[tuple[str, int], Flow] = {}
    scaled: Flow | None = None
    for rows in targets:
        region = rows.buffer.region
        way = region.dtype, region.index // chain.spec.hemisphere_slices
        if way not in sent:
            if region.dtype == "i8":
                assert inverse is not None, f"{rows.buffer.name} has no steps"
                scaled = scaled or chain.vxm("mul", flow, inverse)
                sent[way] = chain.vxm(_ROUND[region.dtype], scaled)
            elif region.dtype != flow.dtype:
                sent[way] = chain.vxm(_ROUND[region.dtype], flow)
            elif flow.alu is not None and flow in sent.values():
                sent[way] = chain.vxm("copy", flow)
            else:
                sent[way] = flow
        chain.write(sent[way], rows)


@dataclass(frozen=True)
class Finish:
    """What becomes of sums before they are written.

    `steps` are factors of rows, those of int8 or of a norm; there may be a bias, and a change
    `on_the_way` from the array of a side. Of sums that are `raced` so many copies go there, each to
    be scaled, that scales come from the other side.
    """

    steps: Steps = ()
    biased: bool = False
    on_the_way: OnTheWay | None = None
    raced: bool = False


def linear(
    work: Work,
    matrix: Matrix,
    x: tuple[Part, ...],
    copies: Sequence[tuple[Part, ...]],
    finish: Finish,
    low: tuple[Part, ...] = (),
) -> None:
    """Write matrix x rows of `x` (+ bias) to all copies, (output block, token).

    `low` are the lower halves of rows of 16 bits. The chain's label names the matrix.
    """
    passes, starts = _passes(work, matrix, x, low)
    if not matrix.blocks:
        return
    halves, base = passes[0].low, matrix.blocks.start
    groups = halves.groups(work.rows) if halves else range(1)
    for some, theirs in each_run(passes, starts) if work.whole else [(passes, starts)]:
        chain = work.chain(f"matmul {work.prefix}{matrix.name}")
        flows = matmul(chain, matrix.side, some)
        for flow, (start, token) in zip(flows, product(theirs, groups), strict=True):
            scaled = _Scaled(work, chain, matrix, finish, (start - base, token), halves)
            _finish(scaled, flow, copies, finish)
        work.plan.place(chain)


def linear_of_both(
    work: Work,
    halves: Sequence[Matrix],
    x: Sequence[tuple[Part, ...]],
    copies: Sequence[tuple[Part, ...]],
    finish: Finish,
) -> None:
    """As `linear`, of an output block whose int8 input blocks are shared out over both sides.

    Sums meet in the VXM: int32 ones, in any order.
    """
    products = [_passes(work, half, rows) for half, rows in zip(halves, x, strict=True)]
    each = [passes for passes, _ in products]
    most = max(map(len, each))
    chain = work.chain(f"matmul {work.prefix}{halves[0].name}")
    flows = []
    for half, passes in zip(halves, each, strict=True):  # their last sums leave at the same time
        late = (most - len(passes)) * passes[0].period_cycles(work.spec)
        flows += matmul(chain, half.side, passes, late)
    scaled = _Scaled(work, chain, halves[0], finish, (0, 0))
    _finish(scaled, chain.vxm("add", *flows), copies, finish)
    work.plan.place(chain)


def _passes(
    work: Work, matrix: Matrix, x: tuple[Part, ...], low: tuple[Part, ...] = ()
) -> tuple[list[Pass], list[int]]:
    """The passes of a matrix, and the first output block of each whose sums leave."""
    first = Pass(weights_of(work, matrix), 0, 0, 0, work.rows_of(x, 0), work.rows)

    def rows(block: int) -> Rows:
        return work.rows_of(x, block)

    cut = partial(_one_by_one, work) if work.whole else at_stretches
    if low:
        halves = LowHalves(work.rows_of(low, 0), gap_cycles(work.spec, work.rows))
        first, cut = replace(first, low=halves), _where_sums_leave
    return tile_passes(matrix, first, rows, cut, partial(work.rows_of, low))


def each_run(passes: Sequence[Pass], starts: Sequence[int]) -> Iterator[Made]:
    """Each run of output blocks by itself, as others are at work beside it."""
    ends = [number + 1 for number, one in enumerate(passes) if one.last]
    for low, high, start in zip([0, *ends], ends, starts, strict=False):
        yield list(passes[low:high]), [start]


def _finish(
    scaled: "_Scaled", flow: Flow, copies: Sequence[tuple[Part, ...]], finish: Finish
) -> None:
    """What becomes of the sums of some output blocks and tokens."""
    work, chain, matrix, (row, token) = scaled.work, scaled.chain, scaled.matrix, scaled.at
    before = finish.raced or matrix.dtype != "f16"  # scales of channels must meet these
    if finish.on_the_way is not None:
        how = scaled if before else None
        flow = finish.on_the_way(chain, flow, matrix.side, token, how)
    if finish.on_the_way is None or not before:
        (flow,) = scaled((flow,), ())
    if finish.biased:
        where = len(matrix.blocks), "f32", _side_of_rows(work, matrix)
        bias = work.constant(f"{matrix.name}.bias", *where)
        flow = chain.vxm("add", flow, Rows(bias, row, (1, 0)))
    to = [work.rows_of(copy, matrix.blocks.start + row).behind(token) for copy in copies]
    deliver(chain, flow, [replace(rows, steps=(work.rows, 1)) for rows in to])


def weights_of(work: Work, matrix: Matrix, copies: int = 1) -> Buffer:
    """Where a matrix rests in each layer of its kind, or as many `copies` that are cut alike."""
    size = copies * matrix.vectors, matrix.dtype, matrix.side, CONSTANT, "columns", True
    name = work.prefix + matrix.name
    return work.memory.take(Request(name, *size, cuts=matrix.cuts, copies=copies))


def tile_passes(
    matrix: Matrix, whole: Pass, rows: Callable[[int], Rows],
    cut: Callable[[Pass], Iterator[Pass]], low: Callable[[int], Rows] | None = None,
) -> tuple[list[Pass], list[int]]:  # fmt: skip
    """The passes, and the first output block of each whose sums leave.

    They are like the `whole`, with the rows of each input block, or both halves of them, and are
    `cut` as they must be.
    """
    passes: list[Pass] = []
    starts, word, runs = [], 0, iter(matrix.runs)
    for tile in matrix.tiles:
        part = replace(
            whole, word=word, tiles=len(tile.outputs), words=tile.words, column=tile.column,
            activations=replace(rows(tile.block), steps=(0, 1)), first=tile.first, last=tile.last,
        )  # fmt: skip
        if part.low and low:
            mine_low = replace(low(tile.block), steps=(0, 1))
            part = replace(part, low=replace(part.low, rows=mine_low))
        mine = [*cut(part)]
        if tile.last:
            start, _, _ = next(runs)
            starts += [start + (one.word - word) // tile.words for one in mine]
        passes += mine
        word += part.tiles * tile.words
    return passes, starts


def _one_by_one(work: Work, part: Pass) -> Iterator[Pass]:
    """Tile by tile, of int8 on one plane: loads of another part's find time between them.

    At an even pace, so that who writes rows to both banks in turn is not met in one of them.
    """
    if work.int8:
        pace = max(work.part_rows + 2, PLANES * part.words)
        part = replace(part, plane=work.part % PLANES, least_cycles=pace)
    for tile in range(part.tiles):
        yield replace(part, word=part.word + tile * part.words, tiles=1, slot=tile * part.count)


def at_stretches(part: Pass) -> Iterator[Pass]:
    """A pass in as many as its words lie in stretches."""
    stretches, end = part.weights.stretches, part.word + part.tiles * part.words
    if not stretches:
        yield part
    for one in stretches:
        low, high = max(one.first, part.word), min(one.first + one.words, end)
        if low < high:
            slot, tiles = (low - part.word) // part.words * part.sums, (high - low) // part.words
            yield replace(part, word=low, tiles=tiles, slot=slot)


def _where_sums_leave(part: Pass) -> Iterator[Pass]:
    """Tile by tile, of several tokens with two halves, as sums of both must meet."""
    for some in at_stretches(part):
        each = 1 if part.last and part.count > 1 else some.tiles
        for tile in range(0, some.tiles, each):
            slot = some.slot + tile * some.sums
            yield replace(some, word=some.word + tile * some.words, tiles=each, slot=slot)


def _side_of_rows(work: Work, matrix: Matrix) -> int:
    """Where what sums meet rests: its own side is full where parts of tokens have rows each."""
    return EAST + WEST - matrix.side if work.whole else matrix.side


@dataclass(frozen=True)
class _Scaled:
    """fp32 of sums: times the token's step, and of int32 ones times the output channels' scales.

    Fixed steps are in the weights.

    These are sums of output blocks and tokens from those `at` on, of `low` halves, too, if there
    are any. Such that have gone by lane maps of the SXM meet scales that have gone by them too.
    """

    work: Work
    chain: Chain
    matrix: Matrix
    finish: Finish
    at: tuple[int, int]
    low: LowHalves | None = None

    def __call__(self, sums: Sequence[Flow], maps: Sequence[int]) -> Sequence[Flow]:
        work, chain, matrix = self.work, self.chain, self.matrix
        spec, side, (row, token) = work.spec, matrix.side, self.at
        if not self.finish.steps and matrix.dtype == "f16":
            return sums
        if self.low:
            gap, by_group = self.low.gap_cycles, work.rows > 1
            sums = [joined(chain, flow, gap, by_group) for flow in sums]
        elif matrix.dtype != "f16":
            sums = [chain.vxm("to_f32", flow) for flow in sums]
        loops, position = sums[0].loops, spec.vxm_position
        if self.finish.steps:
            cycle = sums[0].cycle + abs(position - sums[0].position)
            steps = Rows(self.finish.steps[side], token, (0, 1))
            step = chain.arrive(steps, position, cycle, loops)
            sums = [chain.vxm("mul", flow, step) for flow in sums]
        if matrix.dtype == "f16":
            return sums
        far = EAST + WEST - side if self.finish.raced else side
        rest = far if self.finish.raced else _side_of_rows(work, matrix)
        buffer = work.constant(f"{matrix.name}.scale", len(matrix.blocks), "f32", rest)
        rows = Rows(buffer, row, (1, 0))
        if not maps:
            return [chain.vxm("mul", flow, rows) for flow in sums]
        edge = spec.edge_position("sxm", far)
        passes = sums[0].cycle - abs(edge - position) - spec.d_func("sxm.distribute")
        scales = chain.arrive(rows, edge, passes, loops)
        moved = [chain.sxm("distribute", number, scales, far) for number in maps]
        return [chain.vxm("mul", flow, scale) for flow, scale in zip(sums, moved, strict=True)]
