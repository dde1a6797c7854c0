"""Cholesky factorisation of blocks of 320 rows on one chip: A = L L^T, fp16 products, fp32 sums.

A diagonal block is eliminated column by column, beside an identity that becomes L^-1. What the
rows below need of the pivot's row, one number each, is broadcast to all lanes by the MXM: a tile of
ones meets the row masked to one lane. Then products with L^-1 give the blocks of L below, as
A L^-T, and products of these the updates of the blocks to the right.
"""

from dataclasses import dataclass, field

from chip.isa import FORMATS
from chip.isa.mxm import PLANES, SET
from chip.kernels.columns import write_columns
from chip.kernels.matmul import Pass, hold, matmul
from chip.kernels.memory import MemoryMap
from chip.program import COLUMN_PAIRS, Region
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule, run, span
from chip.schedule.flows import Doing, Queue, Streams, stepped
from chip.spec import EAST, WEST, ChipSpec

_F16 = FORMATS.index("f16")
BOTH = tuple(range(PLANES))  # planes of a side hold one fp16 tile together


@dataclass
class Elimination:
    """L^-1 of the symmetric matrix in `d[0]`, into `inverse`: columns for the MXM of each side.

    `e[0]` holds the identity, both `masks` the same in fp16, `ones` a word of columns on each side.
    Rows alternate between two buffers, as a bank is not read and written in a cycle. The row that
    is next goes to a place of its own, so that it need not wait for those behind it.
    """

    memory: MemoryMap
    plan: Schedule
    size: int = 320
    d: list[Buffer] = field(init=False)
    e: list[Buffer] = field(init=False)
    inverse: dict[int, Buffer] = field(init=False)

    def __post_init__(self) -> None:
        memory, size = self.memory, self.size
        self.spec: ChipSpec = memory.spec
        self.d = [memory.rows(f"d{bank}", (EAST, 0, bank), size, "f32") for bank in (0, 1)]
        self.e = [memory.rows(f"e{bank}", (WEST, 0, bank), size, "f32") for bank in (0, 1)]
        self.row = memory.rows("row", (EAST, 1, 0), 1, "f32")
        self.right = memory.rows("right", (EAST, 1, 1), 1, "f32")
        # What a pivot leaves: for the next row alone, and for those below, in a bank of its own as
        # the rows below the pivot before may still be under way.
        near = memory.rows("u", (EAST, 1, 0), 1, "f32"), memory.rows("eu", (EAST, 1, 1), 1, "f32")
        self.near = (*near, memory.rows("half", (EAST, 1, 0), 1, "f16"))
        self.far = [
            (
                memory.rows(f"u{bank}", (EAST, 2, bank), 1, "f32"),
                memory.rows(f"eu{bank}", (WEST, 2, bank), 1, "f32"),
                memory.rows(f"half{bank}", (WEST, 1, bank), 1, "f16"),
            )
            for bank in (0, 1)
        ]
        self.far_masks = memory.rows("masks", (WEST, 1, 1), size, "f16", 1)
        self.near_masks = memory.outer_rows("near masks", EAST, size, 1)
        self.ones, self.inverse = {}, {}
        for side in (EAST, WEST):
            self.ones[side] = memory.columns(f"ones{side}", side, COLUMN_PAIRS)
            self.inverse[side] = memory.columns(f"inverse{side}", side, size)

    def place(self) -> None:
        """All columns, one after another, between tiles of ones that stay in the arrays."""
        for side in (EAST, WEST):
            chain = Chain(self.spec, "cholesky: ones")
            _load_ones(chain, side, self.ones[side])
            self.plan.place(chain)
        for column in range(self.size):
            self._pivot(column)
            if column + 1 < self.size:
                self._next(column)
            if column + 2 < self.size:
                self._below(column)

    def _pivot(self, j: int) -> None:
        """Row j over its pivot for the rows below, and row j of L^-1."""
        chain, once = Chain(self.spec, "cholesky: pivot"), run(1)
        first = Rows(self.d[0]), Rows(self.e[0])
        left, right = (Rows(self.row), Rows(self.right)) if j else first
        row = chain.vxm("to_f16", left, loops=once)
        outs = tuple(zip(self.near, self.far[j % 2], strict=True))
        _to_all(chain, row, outs[2])
        masked = chain.vxm("mul", row, Rows(self.near_masks, j))
        pivot = broadcast(chain, EAST, masked)
        over, root = chain.vxm("recip", pivot), chain.vxm("rsqrt", pivot)
        _to_all(chain, chain.vxm("mul", over, left), outs[0])
        over, root = chain.vxm("copy", over), chain.vxm("copy", root)
        arrived = chain.arrive(right, self.spec.vxm_position, over.cycle, once)
        _to_all(chain, chain.vxm("mul", over, arrived), outs[1])
        scaled, (word, pair) = chain.vxm("mul", root, arrived), divmod(j, COLUMN_PAIRS)
        for out in self.inverse.values():
            region = out.region
            column = Region(region.index + 2 * pair, region.address, region.words, "f16")
            chain.write(chain.vxm("to_f16", scaled), Rows(Buffer(out.name, column), word))
        self.plan.place(chain)

    def _next(self, j: int) -> None:
        """Row j + 1, the next pivot's, in both matrices."""
        chain, out = Chain(self.spec, "cholesky: next row"), (Rows(self.row), Rows(self.right))
        self._subtract(chain, j, EAST, range(j + 1, j + 2), out)

    def _below(self, j: int) -> None:
        """Rows from j + 2 on."""
        chain = Chain(self.spec, "cholesky: rows below")
        out = tuple(Rows(matrix[1 - j % 2], j + 2) for matrix in (self.d, self.e))
        self._subtract(chain, j, WEST, range(j + 2, self.size), out)

    def _subtract(
        self, chain: Chain, j: int, side: int, rows: range, out: tuple[Rows, ...]
    ) -> None:
        """Some rows less their number times row j over its pivot: near ones east, others west."""
        near, still = side == EAST, (0, 0)
        masks = Rows(self.near_masks if near else self.far_masks, rows.start)
        pivot, loops = (
            self.near if near else self.far[j % 2],
            run(len(rows), self.spec.abc_interval_fp16),
        )
        masked = chain.vxm("mul", Rows(pivot[2], 0, still), masks, loops=loops)
        number = broadcast(chain, side, masked)
        for matrix, over, target in zip((self.d, self.e), pivot, out, strict=False):
            product = chain.vxm("mul", number, Rows(over, 0, still))
            left = chain.vxm("sub", Rows(matrix[j % 2], masks.first), product)
            chain.write(left, target)
            number = chain.vxm("copy", number)  # ports are busy with the first matrix now
        self.plan.place(chain)


def _to_all(chain: Chain, value: Flow, out: tuple[Buffer, ...]) -> None:
    """Write a VXM result to single rows on any side."""
    for buffer in out:
        chain.write(chain.vxm("copy", value), Rows(buffer))


def broadcast(chain: Chain, side: int, value: Flow) -> Flow:
    """The sum over lanes of each fp16 row of a VXM result, in all lanes, fp32: a tile of ones."""
    spec, position = chain.spec, chain.spec.edge_position("mxm", side)
    chain.emit(value, side)
    assert value.need is not None
    start, loops = value.cycle + abs(position - value.position), value.loops
    at, needs = start + spec.d_func("mxm.abc"), {1: (value.need, 0)}
    chain.add(
        Queue("mxm.abc", side),
        [start],
        Doing("mxm.abc", [_F16, 0], needs, [value.name, 0]),
        stepped(loops),
    )
    out_at, inward = at + spec.d_func("mxm.acc"), WEST if side == EAST else EAST
    need = chain.stream(inward, 4, out_at - spec.along(inward, position), loops)
    name, needs = chain.name(), {3: (need, 0)}
    chain.add(
        Queue("mxm.acc", side),
        [at],
        Doing("mxm.acc", [_F16, SET, 0, 0], needs, [name]),
        stepped(loops),
    )
    length = span(loops) + spec.abc_interval_fp16 - 1
    hold(chain, "array", side, BOTH, start, start + length)
    hold(chain, "acc", side, BOTH, at, at + length)
    return Flow(chain.member, "f32", loops, out_at, position, name, need, inward)


def _load_ones(chain: Chain, side: int, ones: Buffer) -> None:
    """Install the one word of `ones` in all columns of a side."""
    spec, region, words = chain.spec, ones.region, chain.spec.lanes // COLUMN_PAIRS
    position, loops = spec.edge_position("mxm", side), run(words)
    need = chain.stream(side, spec.lw_streams, -spec.along(side, position), loops)
    name, delay = chain.name(), spec.d_func("mem.read")
    spots = map(spec.slice_position, range(region.index, region.index + spec.lw_streams))
    issues = [-abs(position - spot) - delay for spot in spots]
    chain.memory("mem.read", issues, Rows(ones, 0, (0, 0)), loops, Streams(need, name))
    lw, steps = [_F16, 0, 0], (0, COLUMN_PAIRS)
    chain.add(
        Queue("mxm.lw", side),
        [0],
        Doing("mxm.lw", lw, {2: (need, 0)}, [name]),
        stepped(loops, steps),
    )
    iw = [_F16, 0, words * COLUMN_PAIRS]
    chain.add(Queue("mxm.iw", side), [words], Doing("mxm.iw", iw, {}, []), stepped(run(1)))
    hold(chain, "buffer", side, BOTH, 0, words)
    hold(chain, "array", side, BOTH, words, words + 1)


def solve(
    plan: Schedule, side: int, half: Rows, inverse: Buffer, rows: Buffer, columns: Buffer
) -> None:
    """A block of L: fp16 rows of A times L^-T, as rows and as columns for the MXM of `side`."""
    chain = Chain(plan.spec, "cholesky: solve")
    value = chain.vxm("to_f16", _product(chain, side, inverse, half))
    chain.write(value, Rows(rows))
    write_columns(chain, chain.vxm("copy", value), columns)
    plan.place(chain)


def update(
    plan: Schedule, side: int, rows: Buffer, columns: Buffer, a: tuple[Buffer, Buffer]
) -> None:
    """a[1] = a[0] - rows . columns^T, fp32."""
    chain = Chain(plan.spec, "cholesky: update")
    product = _product(chain, side, columns, Rows(rows))
    chain.write(chain.vxm("sub", Rows(a[0]), product), Rows(a[1]))
    plan.place(chain)


def round_rows(plan: Schedule, a: Rows, out: Buffer) -> None:
    """out = fp16(a)."""
    chain = Chain(plan.spec, "cholesky: round")
    chain.write(chain.vxm("to_f16", a, loops=run(out.region.vectors)), Rows(out))
    plan.place(chain)


def _product(chain: Chain, side: int, weights: Buffer, rows: Rows) -> Flow:
    words, count = weights.region.words, rows.buffer.region.vectors
    part = Pass(weights, 0, 1, words, rows, count, slot_steps=(0, 0))
    (flow,) = matmul(chain, side, [part])
    return flow
