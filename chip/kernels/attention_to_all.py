"""Attention of encoders: all rows of a launch see each other, and nothing is kept in caches.

Where tokens are few, heads lie side by side: the keys of one head stand in other columns of a tile
than those of the next, each in the lanes of its own head, so that one row of queries meets several
heads at once, and one row has all their scores, powers and sums. K and V become such columns by a
product with the lanes of each head; the MXM transposes V. Parts of the tokens are queries by
themselves. Of a row of heads one half is on the arrays of each side: sums and values of both meet
in the VXM, where each has zeros in the lanes of the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from chip.kernels.attention import Heads, Projected
from chip.kernels.columns import IDENTITY, write_columns
from chip.kernels.lanes import (
    FEW_BESIDE,
    LANES,
    LaneMap,
    reduce_groups,
    reduce_lanes,
    rows_to_reduce,
    runs,
    spread,
)
from chip.kernels.layout import halves
from chip.kernels.linear import deliver
from chip.kernels.matmul import More, Pass, matmul
from chip.kernels.quantise import Peaks
from chip.kernels.weighted_values import SMALLEST_SUM
from chip.kernels.work import Laid, Work, targets
from chip.program import COLUMN_PAIRS
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

HEAD_LANES = "headmask{}.{}"  # by row of heads and side: a row for each, ones in its lanes
ONES = "ones{}.{}"  # by keys of a head and side: columns with ones in the lanes where these are
SUM_LANES = "sumlanes.{}"  # by side: a row of ones in the lanes of sums
MOST_TURNS = 4  # copies of sums that go to the lanes of a head
# By side, a row of what is added to scores: 0, or far less where nobody looks.
KEY_MASK = {EAST: "keymask.east", WEST: "keymask"}
SIDES = (EAST, WEST)
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

    def halves(self, row: int) -> dict[int, range]:
        """Which times of a row of heads are on each side; a single one is not on both."""
        first, second = (EAST, WEST) if row % 2 == 0 else (WEST, EAST)
        low, high = halves(self.times)
        return {first: low, second: high} if high else {first: low}


@dataclass(frozen=True)
class SumLanes:
    """Where sums of the powers of heads are, behind the heads of a row: `each` lanes of a head.

    They are `stride` lanes apart, and go to those of their head in `turns`.
    """

    heads: Heads
    stride: int
    turns: int

    @classmethod
    def of(cls, heads: Heads) -> "SumLanes":
        """The lanes that a row of heads leaves."""
        room = (LANES - heads.row_lanes) // heads.per_row // COLUMN_PAIRS * COLUMN_PAIRS
        stride = min(room, -(-heads.head_lanes // COLUMN_PAIRS) * COLUMN_PAIRS)
        fitting = (n for n in range(1, heads.head_lanes + 1) if heads.head_lanes % n == 0)
        turns = next((n for n in fitting if heads.head_lanes <= n * stride), heads.head_lanes)
        return cls(heads, stride, turns)

    @property
    def each(self) -> int:
        """Lanes of the sum of a head."""
        return self.heads.head_lanes // self.turns

    def first(self, head: int) -> int:
        """Its first lane."""
        return self.heads.row_lanes + head * self.stride

    @property
    def maps(self) -> tuple[LaneMap, ...]:
        """Lane maps that each bring the sums of all heads to some of their lanes."""
        found = []
        for turn in range(self.turns):
            lanes = [*range(LANES)]
            for head, lane in product(range(self.heads.per_row), range(self.each)):
                low = head * self.heads.head_lanes + turn * self.each + lane
                high = self.first(head) + lane
                lanes[low], lanes[high] = high, low
            found.append(tuple(lanes))
        return tuple(found)


def by_powers(heads: Heads) -> Heads:
    """Heads of which a power of two share a row, and leave lanes to their sums."""
    each = 1 << (heads.lanes // heads.head_lanes).bit_length() - 1
    while each > 1 and SumLanes.of(_so_many(heads, each)).turns > MOST_TURNS:
        each //= 2
    return _so_many(heads, each)


def _so_many(heads: Heads, each: int) -> Heads:
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
    ends = [
        _End(work, heads, beside, row, side, times)
        for row in range(heads.rows)
        for side, times in beside.halves(row).items()
    ]
    keys, values = [end.keys(parts) for end in ends], [end.values(parts) for end in ends]
    # What is placed first gets the arrays and ALUs: all that arrays make before the first maximum.
    scored = [
        (part, mine, *mine.scores(part.x.q, columns, scale))
        for part in parts
        for end, columns in zip(ends, keys, strict=True)
        for mine in (replace(end, work=part.work),)
    ]
    turned = {end.name: end.transposed(own) for end, own in zip(ends, values, strict=True)}
    tops = [mine.maximum(rounded) for _, mine, _, rounded in scored]
    mixed: dict[tuple[int, int], list[_Weighted]] = {}
    for (part, mine, kept, _), top in zip(scored, tops, strict=True):
        one = _Weighted(mine, mine.powers(kept, top), mine.ones(work), turned[mine.name])
        mixed.setdefault((part.work.part, mine.row), []).append(one)
    for (number, row), both in mixed.items():
        weighted_values(parts[number], row, both)


@dataclass(frozen=True)
class _End:
    """Of a row of heads those `times` that are on a side, for all tokens or a part of them.

    Rows of scores are (times, token).
    """

    work: Work
    heads: Heads
    beside: _Beside
    row: int
    side: int
    times: range

    @property
    def own(self) -> range:
        """Its heads in the row."""
        each = self.beside.heads
        return range(self.times.start * each, self.times.stop * each)

    @property
    def name(self) -> str:
        """Of what there is once for it."""
        return f"{self.row}.{self.side}"

    def keys(self, parts: Sequence[Placed]) -> Buffer:
        """K as columns (times, head, token), each in the lanes of its head."""
        work, beside = self.work, self.beside
        name, count = HEAD_LANES.format(self.row, self.side), len(self.own)
        mask = work.shared(name, self.heads.per_row, "f16", self.side)
        out = work.columns(f"K{self.name}", count * beside.lanes, self.side)
        for part in parts:
            mine = part.work
            chain = mine.chain("attention: lanes of K")
            loops: Loops = ((count, mine.rows), (mine.rows, 1))
            rows = replace(mine.rows_of(part.x.k.copies[self.side], self.row), steps=(0, 1))
            masked = chain.vxm("mul", rows, Rows(mask, self.own.start, (1, 0)), loops=loops)
            first, step = mine.first_row // COLUMN_PAIRS, beside.lanes // COLUMN_PAIRS
            write_columns(chain, masked, out, first, step)
            mine.plan.place(chain)
        return out

    def values(self, parts: Sequence[Placed]) -> Buffer:
        """V as columns of all tokens."""
        out = self.work.columns(f"V{self.name}", self.work.most_rows, self.side)
        for part in parts:
            mine = part.work
            chain = mine.chain("attention: columns of V")
            rows = mine.rows_of(part.x.v.copies[self.side], self.row)
            value = chain.vxm("copy", rows, loops=run(mine.rows))
            write_columns(chain, value, out, mine.first_row // COLUMN_PAIRS)
            mine.plan.place(chain)
        return out

    def transposed(self, values: Buffer) -> Buffer:
        """V as columns (head, element), each in the lanes of its head's tokens."""
        work, heads, beside, side = self.work, self.heads, self.beside, self.side
        count, words = heads.head_lanes, -(-work.rows // COLUMN_PAIRS)
        out = work.columns(f"VT{self.name}", len(self.own) * count, side)
        identity = work.shared(IDENTITY[side], heads.row_lanes, "f16", side)
        chain = work.chain("attention: transpose V")
        passes = [
            Pass(values, 0, 1, words, Rows(identity, head * count, (count, 1)), count,
                 head % beside.heads * beside.lanes, slot_steps=(0, 0))
            for head in self.own
        ]  # fmt: skip
        for number, flow in enumerate(matmul(chain, side, passes)):
            word = number * count // COLUMN_PAIRS
            write_columns(chain, chain.vxm("to_f16", flow), out, word)
        work.plan.place(chain)
        return out

    def _scratch(self, name: str, dtype: str, side: int) -> Buffer:
        """Rows of scores: for longer launches there are as many as heads."""
        work, most = self.work, max(1, self.heads.per_row // len(SIDES))
        whole = work.scratch(f"{name}.{self.name}", most, dtype, side)
        assert len(self.times) <= most
        return Work.cut(whole, len(self.times) * work.rows)

    def scores(self, q: Laid, keys: Buffer, scale: float) -> tuple[Buffer, list[Buffer]]:
        """q . K * scale + mask in fp32, and in fp16."""
        work, beside, side = self.work, self.beside, self.side
        mask = work.given(KEY_MASK[side], 1, 1, "f32", side)
        kept, top = self._scratch("scores", "f32", EAST + WEST - side), self._rounded()
        rows = replace(work.rows_of(q.copies[side], self.row), steps=(0, 1))
        chain = work.chain("attention: scores")
        every = [
            Pass(keys, n * beside.words, 1, beside.words, rows, work.rows, slot_steps=(0, 1))
            for n in range(len(self.times))
        ]
        for n, flow in enumerate(matmul(chain, side, every)):
            value = chain.vxm("add", chain.vxm("mul", flow, scale), Rows(mask, 0, (0, 0)))
            chain.write(value, Rows(kept, n * work.rows))
            chain.write(chain.vxm("to_f16", value), Rows(top[n]))
        work.plan.place(chain)
        return kept, top

    def _rounded(self) -> list[Buffer]:
        """A buffer for each time, so that maxima of one are looked for while others come."""
        most = max(1, self.heads.per_row // len(SIDES))
        names = [f"rounded{n}.{self.name}" for n in range(most)]
        return [self.work.scratch(name, 1, "f16", self.side) for name in names]

    def maximum(self, rounded: Sequence[Buffer]) -> Buffer:
        """The largest score of a head, in all its lanes."""
        work, beside, side = self.work, self.beside, self.side
        out = self._scratch("top", "f16", side)
        starts = runs(work.rows, "f16", FEW_BESIDE)
        for n, (start, length) in product(range(len(self.times)), starts):
            chain = work.chain("attention: maximum")
            if beside.heads > 1:
                value = rows_to_reduce(chain, Rows(rounded[n], start), length, side)
                top = reduce_groups(chain, "max", value, "f16", beside.lanes, side)
            else:
                value = chain.vxm("copy", Rows(rounded[n], start), loops=run(length), dtype="f16")
                top = reduce_lanes(chain, "max", value, "f16", side, hurry=True)
            chain.write(top, Rows(out, n * work.rows + start))
            work.plan.place(chain)
        return out

    def powers(self, kept: Buffer, top: Buffer) -> Buffer:
        """fp16(exp(scores - top))."""
        out, loops = (
            self._scratch("powers", "f16", self.side),
            run(len(self.times) * self.work.rows),
        )
        chain = self.work.chain("attention: exp")
        value = chain.vxm("sub", Rows(kept), chain.vxm("to_f32", Rows(top), loops=loops))
        deliver(chain, chain.vxm("exp", value), [Rows(out)])
        self.work.plan.place(chain)
        return out

    def ones(self, whole: Work) -> Buffer:
        """Columns that sum up the powers of each head."""
        width = SumLanes.of(self.heads).stride
        every = {
            tokens: self.work.shared(ONES.format(tokens, self.side),
                                     keys_in_lanes(tokens, self.heads)[0] * width,
                                     "f16", self.side, "columns")
            for tokens in (*SIDE_BY_SIDE, LANES)
            if tokens <= whole.most_rows or tokens == LANES
        }  # fmt: skip
        return every[self.beside.lanes if self.beside.heads > 1 else LANES]


@dataclass(frozen=True)
class _Weighted:
    """Powers of heads on a side, and what they multiply: the ones, and V transposed."""

    end: _End
    powers: Buffer
    ones: Buffer
    values: Buffer

    @property
    def passes(self) -> list[Pass]:
        """Passes that add up: heads side by side, each in columns of its own, and their sums."""
        end, work, sums = self.end, self.end.work, SumLanes.of(self.end.heads)
        count, last = end.beside.heads, len(end.times) - 1
        width, more = count * end.heads.head_lanes, count * sums.stride
        words = width // COLUMN_PAIRS
        return [
            Pass(self.values, n * words, 1, words, Rows(self.powers, n * work.rows), work.rows,
                 time * width, first=n == 0, last=n == last,
                 more=More(self.ones, more // COLUMN_PAIRS, sums.first(time * count)))
            for n, time in enumerate(end.times)
        ]  # fmt: skip


def weighted_values(part: Placed, row: int, both: Sequence[_Weighted]) -> None:
    """out = sum over tokens of powers x V, each head in its lanes, over the sum of its powers."""
    work, side, other = part.work, SIDES[row % 2], SIDES[1 - row % 2]
    sums = SumLanes.of(both[0].end.heads)
    found = work.scratch(f"weighted.{row}", 1, "f32", side)
    chain = work.chain("attention: weighted values")
    chain.write(_of_both(chain, [(one.end.side, one.passes) for one in both]), Rows(found))
    work.plan.place(chain)
    chain = work.chain("attention: over sums")
    total = chain.vxm("max", Rows(found), SMALLEST_SUM, loops=run(work.rows))
    only = Rows(work.shared(SUM_LANES.format(other), 1, "f32", other), 0, (0, 0))
    inverse = chain.vxm("mul", chain.vxm("recip", total), only)
    mixed = chain.vxm("mul", spread(chain, inverse, sums.maps, side), Rows(found))
    deliver(chain, mixed, targets(work, part.out.copies, row), part.out.inverse_of(row))
    if part.peaks:
        part.peaks.note(chain, mixed, row)
    work.plan.place(chain)


def _of_both(chain: Chain, products: Sequence[tuple[int, list[Pass]]]) -> Flow:
    """The sums of each side, added up: where one has a head's, the other has zeros."""
    flows = [flow for side, passes in products for flow in matmul(chain, side, passes)]
    return flows[0] if len(flows) == 1 else chain.vxm("add", *flows)
