"""Attention of encoders: all rows of a launch see each other, and nothing is kept in caches.

Where tokens are few, heads lie side by side: the keys of one head stand in other columns of a tile
than those of the next, each in the lanes of its own head, so that one row of queries meets several
heads at once, and one row has all their scores, powers and sums. K and V become such columns by a
product with the lanes of each head; the MXM transposes V. Parts of the tokens are queries by
themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from chip.kernels.attention import SMALLEST_SUM, Heads, Projected
from chip.kernels.columns import IDENTITY, write_columns
from chip.kernels.lanes import FEW_BESIDE, LANES, reduce_groups, reduce_lanes, runs
from chip.kernels.linear import deliver
from chip.kernels.matmul import Pass, matmul
from chip.kernels.quantise import Peaks
from chip.kernels.work import Laid, Work, targets
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Loops, Rows, run
from chip.spec import EAST, WEST

HEAD_LANES = "headmask{}"  # by row of heads: a row for each, with ones in its lanes
ONES = "ones{}"  # by keys of a head: columns with ones in the lanes where these are
KEY_MASK = "keymask"  # a row of what is added to scores: 0, or far less where nobody looks
Rounded = tuple[Buffer, ...]  # scores in fp16
SIDE_BY_SIDE = (32, 64, 128)  # tokens of launches whose heads lie side by side


@dataclass(frozen=True)
class Placed:
    """A part of the tokens: its work, what it has projected, and what becomes of it."""

    work: Work
    x: Projected
    out: Laid
    peaks: Peaks | None


@dataclass(frozen=True)
class _Beside:
    """How many `heads` lie side by side, `lanes` apart, and how often in a row."""

    heads: int
    lanes: int
    times: int

    @property
    def words(self) -> int:
        """Of columns of the keys of heads side by side."""
        return self.heads * self.lanes // COLUMN_PAIRS


def by_powers(heads: Heads) -> Heads:
    """Heads of which a power of two share a row."""
    each = 1 << (heads.lanes // heads.head_lanes).bit_length() - 1
    return replace(heads, lanes=each * heads.head_lanes)


def keys_in_lanes(tokens: int, heads: Heads) -> tuple[int, int]:
    """(heads, lanes from one to the next) of a row of scores over so many tokens."""
    if tokens not in SIDE_BY_SIDE:
        return 1, LANES
    return min(by_powers(heads).per_row, 1 << (LANES // tokens).bit_length() - 1), tokens


def attention_to_all(work: Work, heads: Heads, scale: float, parts: Sequence[Placed]) -> None:
    """out = softmax(scale * q . K) V over the rows of the launch, all of which see each other."""
    heads = by_powers(heads)
    count, lanes = keys_in_lanes(work.rows, heads)
    beside = _Beside(count, min(lanes, work.rows), heads.per_row // count)
    keys, values = _keys(work, heads, beside, parts), _values(work, heads, parts)
    turned = [_transposed(work, heads, beside, own, row) for row, own in enumerate(values)]
    mask = work.given(KEY_MASK, 1, 1, "f32", WEST)
    rows = [[_Row(part.work, heads, beside, n) for n in range(heads.rows)] for part in parts]
    scored = []  # of all parts first: arrays have nothing else to do while maxima are found
    for part, mine in zip(parts, rows, strict=True):
        for row in mine:
            kept, rounded = row.scores(part.x.q, keys[row.row], mask, scale)
            scored.append((part, row, kept, row.maximum(rounded)))
    for part, row, kept, top in scored:
        powers = row.powers(kept, top)
        sums = row.normalisers(powers[EAST], work)
        row.weighted_values(powers[WEST], turned[row.row], sums, part)


def _keys(work: Work, heads: Heads, beside: _Beside, parts: Sequence[Placed]) -> list[Buffer]:
    """K by row of heads: columns (times, head, token), each in the lanes of its head."""
    masks = [
        work.shared(HEAD_LANES.format(row), heads.per_row, "f16", EAST) for row in range(heads.rows)
    ]
    each = beside.heads * beside.lanes * beside.times
    out = [work.columns(f"K{row}", each, EAST) for row in range(heads.rows)]
    for part in parts:
        mine = part.work
        for row, buffer in enumerate(out):
            chain = mine.chain("attention: lanes of K")
            loops: Loops = ((heads.per_row, mine.rows), (mine.rows, 1))
            rows = replace(mine.rows_of(part.x.k.copies[0], row), steps=(0, 1))
            masked = chain.vxm("mul", rows, Rows(masks[row], 0, (1, 0)), loops=loops)
            first, step = mine.first_row // COLUMN_PAIRS, beside.lanes // COLUMN_PAIRS
            write_columns(chain, masked, buffer, first, step)
            mine.plan.place(chain)
    return out


def _values(work: Work, heads: Heads, parts: Sequence[Placed]) -> list[Buffer]:
    """V by row of heads: columns of all tokens."""
    out = [work.columns(f"V{row}", work.most_rows, WEST) for row in range(heads.rows)]
    for part in parts:
        mine = part.work
        for row, buffer in enumerate(out):
            chain = mine.chain("attention: columns of V")
            rows = mine.rows_of(part.x.v.copies[0], row)
            value = chain.vxm("copy", rows, loops=run(mine.rows))
            write_columns(chain, value, buffer, mine.first_row // COLUMN_PAIRS)
            mine.plan.place(chain)
    return out


def _transposed(work: Work, heads: Heads, beside: _Beside, values: Buffer, row: int) -> Buffer:
    """V of a row of heads: columns (head, element), each in the lanes of its head's tokens."""
    out = work.columns(f"VT{row}", heads.row_lanes, WEST)
    identity = work.shared(IDENTITY[WEST], heads.row_lanes, "f16", WEST)
    count, words = heads.head_lanes, -(-work.rows // COLUMN_PAIRS)
    chain = work.chain("attention: transpose V")
    passes = [
        Pass(values, 0, 1, words, Rows(identity, head * count, (count, 1)), count,
             head % beside.heads * beside.lanes, slot_steps=(0, 0))
        for head in range(heads.per_row)
    ]  # fmt: skip
    for head, flow in enumerate(matmul(chain, WEST, passes)):
        word = head * count // COLUMN_PAIRS
        write_columns(chain, chain.vxm("to_f16", flow), out, word)
    work.plan.place(chain)
    return out


@dataclass(frozen=True)
class _Row:
    """A row of heads, for a part of the tokens: rows of scores are (times, token)."""

    work: Work
    heads: Heads
    beside: _Beside
    row: int

    def _scratch(self, name: str, dtype: str, side: int) -> Buffer:
        """Rows of scores: for longer launches there are as many as heads."""
        work = self.work
        most = self.heads.per_row * work.most_rows
        whole = work.scratch(f"{name}.{self.row}", self.heads.per_row, dtype, side)
        assert self.beside.times * work.rows <= most
        return Work.cut(whole, self.beside.times * work.rows)

    def scores(self, q: Laid, keys: Buffer, mask: Buffer, scale: float) -> tuple[Buffer, Rounded]:
        """q . K * scale + mask in fp32, and in fp16."""
        work, beside = self.work, self.beside
        kept, top = self._scratch("scores", "f32", WEST), self._rounded()
        rows = replace(work.rows_of(q.copies[0], self.row), steps=(0, 1))
        chain = work.chain("attention: scores")
        every = [
            Pass(keys, n * beside.words, 1, beside.words, rows, work.rows, slot_steps=(0, 1))
            for n in range(beside.times)
        ]
        for n, flow in enumerate(matmul(chain, EAST, every)):
            value = chain.vxm("add", chain.vxm("mul", flow, scale), Rows(mask, 0, (0, 0)))
            chain.write(value, Rows(kept, n * work.rows))
            chain.write(chain.vxm("to_f16", value), Rows(top[n]))
        work.plan.place(chain)
        return kept, top

    def _rounded(self) -> Rounded:
        """A buffer for each time, so that maxima of one are looked for while others come."""
        work, names = self.work, (f"rounded{n}.{self.row}" for n in range(self.heads.per_row))
        return tuple(work.scratch(name, 1, "f16", EAST) for name in names)

    def maximum(self, rounded: Rounded) -> Buffer:
        """The largest score of a head, in all its lanes."""
        work, beside = self.work, self.beside
        out = self._scratch("top", "f16", EAST)
        for n, (start, length) in product(range(beside.times), runs(work.rows, "f16", FEW_BESIDE)):
            chain, side = work.chain("attention: maximum"), (n + self.row) % 2
            value = chain.vxm("copy", Rows(rounded[n], start), loops=run(length), dtype="f16")
            if beside.heads > 1:
                top = reduce_groups(chain, "max", value, "f16", beside.lanes, side, hurry=True)
            else:
                top = reduce_lanes(chain, "max", value, "f16", side, hurry=True)
            chain.write(top, Rows(out, n * work.rows + start))
            work.plan.place(chain)
        return out

    def powers(self, kept: Buffer, top: Buffer) -> tuple[Buffer, Buffer]:
        """fp16(exp(scores - top)), on both sides of the chip."""
        out = self._scratch("powers0", "f16", EAST), self._scratch("powers1", "f16", WEST)
        chain, loops = self.work.chain("attention: exp"), run(self.beside.times * self.work.rows)
        value = chain.vxm("sub", Rows(kept), chain.vxm("to_f32", Rows(top), loops=loops))
        deliver(chain, chain.vxm("exp", value), [Rows(buffer) for buffer in out])
        self.work.plan.place(chain)
        return out

    def normalisers(self, powers: Buffer, whole: Work) -> Buffer:
        """[token] = 1 / sum of the powers of a head, in the lanes of each head of the row."""
        work, beside, width = self.work, self.beside, self.heads.head_lanes
        ones = {
            tokens: work.shared(ONES.format(tokens), keys_in_lanes(tokens, self.heads)[0] * width,
                                "f16", EAST, "columns")
            for tokens in (*SIDE_BY_SIDE, LANES)
            if tokens <= whole.most_rows or tokens == LANES
        }  # fmt: skip
        own = ones[beside.lanes if beside.heads > 1 else LANES]
        out = work.scratch(f"sums.{self.row}", 1, "f32", EAST)
        chain = work.chain("attention: sums")
        (flow,) = matmul(chain, EAST, self._passes(powers, own, 0))
        total = chain.vxm("max", flow, SMALLEST_SUM)
        chain.write(chain.vxm("recip", total), Rows(out))
        work.plan.place(chain)
        return out

    def weighted_values(self, powers: Buffer, values: Buffer, sums: Buffer, part: Placed) -> None:
        """out = sum over tokens of powers x V, each head in its lanes, times the normalisers."""
        work = self.work
        words = self.beside.heads * self.heads.head_lanes // COLUMN_PAIRS
        chain = work.chain("attention: weighted values")
        (flow,) = matmul(chain, WEST, self._passes(powers, values, words))
        mixed = chain.vxm("mul", flow, Rows(sums))
        deliver(chain, mixed, targets(work, part.out.copies, self.row))
        if part.peaks:
            part.peaks.note(chain, mixed, self.row)
        work.plan.place(chain)

    def _passes(self, powers: Buffer, columns: Buffer, step: int) -> list[Pass]:
        """Passes that add up: heads side by side, each in columns of its own."""
        work, beside = self.work, self.beside
        width, last = beside.heads * self.heads.head_lanes, beside.times - 1
        return [
            Pass(columns, n * step, 1, width // COLUMN_PAIRS, Rows(powers, n * work.rows),
                 work.rows, n * width, first=n == 0, last=n == last)
            for n in range(beside.times)
        ]  # fmt: skip
