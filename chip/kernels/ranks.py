"""The highest scores of a row, all at once: each by its rank, the number of scores before it.

A score comes before another if it is higher, or as high in a lower lane. So every lane meets the
scores of all others: those of its superlane as the SXM exchanges its lanes, those of other
superlanes once these have been turned. Few have met as sums, on their way from the array. The lane
of rank r has a 1 in row r of what is found, and a product with numbers of lanes puts its number in
all lanes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from chip.arrays import Array
from chip.kernels.lanes import LANES, SUPERLANE, LaneMap, reduce_lanes, total_of
from chip.kernels.linear import OnTheWay, Scaled, deliver
from chip.kernels.matmul import Pass, matmul
from chip.kernels.work import Laid, Work, targets
from chip.program import word_columns
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

LANE_NUMBERS = "lane numbers"  # a row of 0, 1, 2, ...
NUMBER_COLUMNS = "lane numbers, columns"  # the same as each column of a tile
LOWER = "lower lanes {}"  # rows (set of partners, turn): 1 where the partner is in a lower lane
FAR = 1024.0  # more than any lane, and than any rank
FEW_BEHIND = 128  # more than any rank among few, uint8
# Partners of a lane, by exclusive or; of each set all are lower or none is, in a superlane.
PARTNERS = ((0,), (1,), (2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15))
RANKED_VECTORS = 16  # of a run that is compared with four partners: more need too many ALUs


@dataclass(frozen=True)
class Race:
    """Scores of `count` lanes in each of some blocks: rows (block, turn of superlanes, token).

    There is a copy of those of the first turns: rows (block, token).
    """

    count: int
    blocks: int
    turned: Buffer
    own: Buffer
    name: str

    @staticmethod
    def of(work: Work, count: int, blocks: int = 1, name: str = "race") -> "Race":
        """With nothing in it yet."""
        turned = work.scratch(f"{name}.turned", blocks * superlanes(count), "f32", EAST)
        return Race(count, blocks, turned, work.scratch(f"{name}.own", blocks, "f32", WEST), name)

    @property
    def turns(self) -> int:
        """Turns of its superlanes."""
        return superlanes(self.count)

    def at_once(self, work: Work) -> bool:
        """Whether ALUs can compare all partners at a time, and all tokens one after another."""
        return few(self.count) and work.rows <= work.spec.d_func("vxm.alu")

    @property
    def sets(self) -> tuple[int, ...]:
        """The sets of partners among its lanes."""
        reach = 1 << max(1, (min(self.count, SUPERLANE) - 1).bit_length())
        sets = tuple(n for n, partners in enumerate(PARTNERS) if partners[0] < reach)
        return sets[self.turns == self.blocks == 1 :]  # none is its own partner

    def scores(self, block: int, rows: int) -> Rows:
        """Those of a block, for each slot of a token."""
        return Rows(self.own, block * rows, (0, 1))

    def before(self, work: Work, number: int) -> Buffer:
        """Rows (block, block of partners, turn, token): how many of a set come before each lane."""
        count = self.blocks**2 * self.turns
        return work.scratch(f"{self.name}.before{number}", count, "u8", number % 2)

    def found(self, work: Work, chosen: int) -> Buffer:
        """Rows (block, slot, token), fp16: 1 in the lane of the score of that rank, 0 in others."""
        return work.scratch(f"{self.name}.found", self.blocks * chosen, "f16", EAST)


def few(count: int) -> bool:
    """Whether streams carry the partners of so many scores, all of which are in the race."""
    return count in (2, 4, 8)


def superlanes(count: int) -> int:
    """Superlanes that so many lanes take."""
    return -(-count // SUPERLANE)


def turn_maps(count: int) -> tuple[LaneMap, ...]:
    """Lane maps that turn the superlanes of so many lanes, by one, by two, ..."""
    size = superlanes(count) * SUPERLANE
    rest = range(size, LANES)
    steps = range(SUPERLANE, size, SUPERLANE)
    return tuple((*((lane + step) % size for lane in range(size)), *rest) for step in steps)


def lower_lanes(count: int) -> Array:
    """Rows of `LOWER` for so many lanes."""
    size, lanes = superlanes(count), np.arange(LANES)
    found = np.zeros((len(PARTNERS), size, LANES), np.uint8)
    mine = lanes // SUPERLANE
    for number, partners in enumerate(PARTNERS):
        found[number, 0] = (lanes ^ partners[-1]) < lanes
        for turn in range(1, size):
            found[number, turn] = (mine < size) & ((mine + turn) % size < mine)
    return found.reshape(-1, LANES)


def bound(work: Work, chain: Chain, count: int, loops: Loops) -> Flow:
    """Infinity in the first `count` lanes, and below all scores in the others."""
    number = Rows(work.shared(LANE_NUMBERS, 1, "f32", WEST), 0, (0, 0))
    beyond = chain.vxm("to_f32", chain.vxm("ge", number, float(count), loops=loops))
    return chain.vxm("mul", chain.vxm("sub", beyond, 0.5), -float("inf"))


def enter(
    work: Work, race: Race, chain: Chain, scores: Flow, block: int = 0, token: int = 0
) -> None:
    """Write scores of a block, from a token on, to a race."""
    chain.write(scores, Rows(race.turned, block * race.turns * work.rows + token))
    chain.write(chain.vxm("copy", scores), Rows(race.own, block * work.rows + token))


def find(work: Work, race: Race, chosen: int) -> None:
    """Who is where among all that have entered a race."""
    for chain, rank, block, token in ranks(work, race):
        _note(work, race, chain, rank, (chosen, block, token))
        work.plan.place(chain)


def on_the_way(work: Work, count: int, chosen: int) -> OnTheWay | None:
    """What finds few scores on their way from the array, if it can those of all tokens."""
    race = Race.of(work, count)
    return partial(_raced, work, race, chosen) if race.at_once(work) else None


def _raced(
    work: Work, race: Race, chosen: int, chain: Chain, sums: Flow, side: int, token: int,
    scaled: Scaled | None,
) -> Flow:  # fmt: skip
    """As `find`, of few sums that have their partners as they pass the SXM of `side`.

    They are `scaled` and left for `pick`.
    """
    assert scaled is not None and token == 0
    for number in race.sets:
        race.before(work, number)  # more tokens ask for these
    partners = [partner for number in race.sets for partner in PARTNERS[number]]
    maps = [chain.maps.index(_partner_map(partner)) for partner in partners]
    others = scaled([chain.sxm("distribute", one, sums, side) for one in maps], maps)
    (own,) = scaled((sums,), ())
    chain.write(own, Rows(race.own))
    own = chain.wait(own, others[0].cycle)
    rank: Flow | None = None
    for number in race.sets:
        mine, others = others[: len(PARTNERS[number])], others[len(PARTNERS[number]) :]
        before = _come_before(work, race, chain, (mine, own), (number, 0))
        if rank is None:  # few come before any: a byte has room for them, and for one behind all
            beyond = _beyond(work, race, chain, before, work.spec.d_func("vxm.alu"))
            rank = chain.vxm("mul", beyond, FEW_BEHIND)
        rank = total_of(chain, [rank, before])
    assert rank is not None
    _note(work, race, chain, rank, (chosen, 0, 0))
    return own


def _note(work: Work, race: Race, chain: Chain, rank: Flow, which: tuple[int, int, int]) -> None:
    """Write who has the ranks of so many slots, of scores of a block from a token on."""
    chosen, block, token = which
    found = race.found(work, chosen)
    for slot in range(chosen):
        mine = chain.vxm("to_f16", chain.vxm("eq", rank, float(slot)))
        chain.write(mine, Rows(found, (block * chosen + slot) * work.rows + token))
        rank = chain.vxm("copy", rank) if slot < chosen - 1 else rank


def ranks(work: Work, race: Race) -> Iterator[tuple[Chain, Flow, int, int]]:
    """(chain, ranks, block, first token) of some scores each, to be placed."""
    for block in range(race.blocks):
        for turn, lanes in enumerate(turn_maps(race.count), 1):
            chain, at = work.chain("route: other superlanes"), block * race.turns
            position = work.spec.edge_position("sxm", EAST)
            first = Rows(race.turned, at * work.rows)
            rows = chain.arrive(first, position, 0, run(work.rows))
            moved = chain.sxm("permute", chain.maps.index(lanes), rows, EAST)
            chain.write(moved, Rows(race.turned, (at + turn) * work.rows))
            work.plan.place(chain)
    for block, other in product(range(race.blocks), repeat=2):
        for number in race.sets:
            for piece in _pieces(work.rows, race.turns):
                _before(work, race, number, (block, other), piece)
    pace = work.spec.d_func("vxm.alu")
    for block, token in product(range(race.blocks), range(0, work.rows, pace)):
        chain, loops = work.chain("route: ranks"), run(min(pace, work.rows - token))
        yield chain, _rank(work, chain, race, (block, token, loops)), block, token


def numbers_of(work: Work, race: Race, chosen: int, out: Laid) -> None:
    """Write the numbers of lanes that were found to all copies, (slot, token)."""
    assert race.blocks == 1
    weights = work.shared(NUMBER_COLUMNS, LANES, "f16", EAST, "columns")
    words, most = LANES // word_columns("f16"), work.spec.accumulator_depth // work.rows
    for first in range(0, chosen, most):
        count = min(most, chosen - first) * work.rows
        chain, rows = (
            work.chain("route: numbers"),
            Rows(race.found(work, chosen), first * work.rows),
        )
        (flow,) = matmul(chain, EAST, [Pass(weights, 0, 1, words, rows, count)])
        deliver(chain, flow, targets(work, out.copies, first))
        work.plan.place(chain)


def pick(
    work: Work, race: Race, chosen: int, values: Callable[[int], Rows],
    to: Callable[[int], Sequence[Rows]],
) -> None:  # fmt: skip
    """Write the values of the lanes that were found, of some rows for each block, in all lanes.

    They go `to` rows from a slot on. Values of other lanes are taken for less than any number.
    """
    rows, found = work.rows, race.found(work, chosen)
    pace = work.spec.d_func("vxm.alu")
    most = max(1, pace // rows) if race.blocks == 1 else 1
    for first in range(0, chosen, most):
        count = min(most, chosen - first)
        loops: Loops = ((count, rows), (rows, 1))
        chain = work.chain("route: score")
        best: Flow | None = None
        for block in range(race.blocks):
            at = Rows(found, (block * chosen + first) * rows, (rows, 1))
            mine = chain.vxm("to_f32", at, loops=loops, at=-(-rows // pace) * pace * block)
            limit = chain.vxm("mul", chain.vxm("sub", mine, 0.5), float("inf"))
            alone = chain.vxm("min", limit, values(block))
            best = alone if best is None else chain.vxm("max", chain.wait(best, alone.cycle), alone)
        assert best is not None
        top = reduce_lanes(chain, "max", best, "f32", spared=work.spec.streams)
        deliver(chain, top, to(first))
        work.plan.place(chain)


def _pieces(tokens: int, turns: int) -> Iterator[tuple[tuple[int, int], Loops]]:
    """((turn, token), loops) of runs of rows that are compared by a chain each."""
    few = min(tokens, RANKED_VECTORS)
    each = RANKED_VECTORS // few
    for turn in range(0, turns, each):
        for token in range(0, tokens, few):
            some = min(few, tokens - token)
            yield (turn, token), ((min(each, turns - turn), some), (some, 1))


def _before(
    work: Work, race: Race, number: int, blocks: tuple[int, int],
    piece: tuple[tuple[int, int], Loops],
) -> None:  # fmt: skip
    """How many scores of a set of partners in the other block come before that of each lane."""
    (turn, token), loops = piece
    (block, other), rows, spec, turns = blocks, work.rows, work.spec, race.turns
    chain = work.chain("route: before")
    position, vxm = spec.edge_position("sxm", EAST), spec.vxm_position
    first = (other * turns + turn) * rows + token
    value = chain.arrive(Rows(race.turned, first, (rows, 1)), position, 0, loops)
    exchanged = [_exchanged(chain, value, partner) for partner in PARTNERS[number]]
    cycle = exchanged[0].cycle + abs(exchanged[0].position - vxm)
    own = chain.arrive(Rows(race.own, block * rows + token, (0, 1)), vxm, cycle, loops)

    if block == other:
        found = _come_before(work, race, chain, (exchanged, own), (number, turn))
    else:
        found = _count(chain, "ge" if other < block else "gt", exchanged, own)
    at = ((block * race.blocks + other) * turns + turn) * rows + token
    chain.write(found, Rows(race.before(work, number), at, (rows, 1)))
    work.plan.place(chain)


def _exchanged(chain: Chain, value: Flow, partner: int) -> Flow:
    """Scores of partners, by the SXM."""
    return chain.sxm("distribute", chain.maps.index(_partner_map(partner)), value, EAST)


def _partner_map(partner: int) -> LaneMap:
    return tuple(lane ^ partner for lane in range(SUPERLANE))


def _count(chain: Chain, op: str, others: Sequence[Flow], own: Flow) -> Flow:
    return total_of(chain, [chain.vxm(op, one, own) for one in others])


def _come_before(
    work: Work, race: Race, chain: Chain, met: tuple[Sequence[Flow], Flow], which: tuple[int, int]
) -> Flow:
    """How many of a set of others, of a turn in the same block, come before one's own score."""
    (others, own), (number, turn), turns = met, which, race.turns
    higher, alike = _count(chain, "gt", others, own), _count(chain, "eq", others, own)
    lower = work.shared(LOWER.format(turns), len(PARTNERS) * turns, "u8", WEST)
    ties = chain.vxm("mul", alike, Rows(lower, number * turns + turn, (1, 0)))
    return total_of(chain, [higher, ties])


def _behind_all(work: Work, race: Race, chain: Chain, when: Flow) -> Flow:
    """What is added to ranks of lanes beyond the race; it is there when a value is."""
    pace = work.spec.d_func
    beyond = _beyond(work, race, chain, when, pace("vxm.alu") + pace("vxm.convert"))
    return chain.vxm("mul", chain.vxm("to_f32", beyond), FAR)


def _beyond(work: Work, race: Race, chain: Chain, when: Flow, early: int) -> Flow:
    """1 in lanes beyond the race, uint8, so many cycles before a value is there."""
    lane = Rows(work.shared(LANE_NUMBERS, 1, "f32", WEST), 0, (0, 0))
    begin = when.cycle - early - work.spec.d_func("vxm.alu")
    return chain.vxm("ge", lane, float(race.count), loops=when.loops, at=begin)


def _rank(work: Work, chain: Chain, race: Race, piece: tuple[int, int, Loops]) -> Flow:
    """All that comes before scores of a block, from a token on; lanes beyond it are behind all."""
    (block, token, loops), pace = piece, work.spec.d_func("vxm.alu")
    rank: Flow | None = None
    count = race.blocks * race.turns
    for turn in range(count):
        at = (block * count + turn) * work.rows + token
        some = [
            chain.arrive(Rows(race.before(work, n), at), work.spec.vxm_position, turn * pace, loops)
            for n in race.sets
        ]
        more = chain.vxm("to_f32", total_of(chain, some))
        rank = rank or _behind_all(work, race, chain, more)
        rank = chain.vxm("add", rank, more)
    assert rank is not None
    return rank
