"""The highest scores of a row, all at once: each by its rank, the number of scores before it.

A score comes before another if it is higher, or as high in a lower lane. So every lane meets the
scores of all others: those of its superlane as the SXM exchanges its lanes, those of other
superlanes once these have been turned. The lane of rank r has a 1 in row r of what is found, and
a product with numbers of lanes puts its number in all lanes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chip.arrays import Array
from chip.kernels.lanes import LANES, SUPERLANE, LaneMap, reduce_lanes, total_of
from chip.kernels.linear import deliver
from chip.kernels.matmul import Pass, matmul
from chip.kernels.work import Laid, Work, targets
from chip.program import word_columns
from chip.schedule import Buffer, Chain, Flow, Loops, Rows, run
from chip.spec import EAST, WEST

LANE_NUMBERS = "lane numbers"  # a row of 0, 1, 2, ...
NUMBER_COLUMNS = "lane numbers, columns"  # the same as each column of a tile
LOWER = "lower lanes {}"  # rows (set of partners, turn): 1 where the partner is in a lower lane
FAR = 1024.0  # more than any lane, and than any rank
# Partners of a lane, by exclusive or; of each set all are lower or none is, in a superlane.
PARTNERS = ((0,), (1,), (2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15))
RANKED_VECTORS = 16  # of a run that is compared with four partners: more need too many ALUs


@dataclass(frozen=True)
class Race:
    """Scores of `count` lanes: rows (turn of superlanes, token), and a copy of the first turn's."""

    count: int
    turned: Buffer
    own: Buffer

    @staticmethod
    def of(work: Work, count: int, name: str = "race") -> "Race":
        """With nothing in it yet."""
        turned = work.scratch(f"{name}.turned", superlanes(count), "f32", EAST)
        return Race(count, turned, work.scratch(f"{name}.own", 1, "f32", WEST))


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


def bound(work: Work, chain: Chain, count: int, loops: Loops, at: int = 0) -> Flow:
    """Infinity in the first `count` lanes, and below all scores in the others."""
    number = Rows(work.shared(LANE_NUMBERS, 1, "f32", WEST), 0, (0, 0))
    beyond = chain.vxm("to_f32", chain.vxm("ge", number, float(count), loops=loops, at=at))
    return chain.vxm("mul", chain.vxm("sub", beyond, 0.5), -float("inf"))


def enter(work: Work, race: Race, chain: Chain, scores: Flow) -> None:
    """Write scores to a race; those of lanes beyond it are to be below all others."""
    chain.write(scores, Rows(race.turned))
    chain.write(chain.vxm("copy", scores), Rows(race.own))
    work.plan.place(chain)
    for turn, lanes in enumerate(turn_maps(race.count), 1):
        chain = work.chain("route: other superlanes")
        position = work.spec.edge_position("sxm", EAST)
        rows = chain.arrive(Rows(race.turned), position, 0, run(work.rows))
        moved = chain.sxm("permute", chain.maps.index(lanes), rows, EAST)
        chain.write(moved, Rows(race.turned, turn * work.rows))
        work.plan.place(chain)


def find(work: Work, race: Race, chosen: int, name: str = "race") -> Buffer:
    """Rows (slot, token), fp16: 1 in the lane of the score of that rank, 0 in others."""
    found = _found(work, chosen, name)
    sets = _sets(race.count)
    parts = [
        work.scratch(f"{name}.before{n}", superlanes(race.count), "u8", n % 2) for n in sets
    ]  # fmt: skip
    for n, part in zip(sets, parts, strict=True):
        for first, loops in _pieces(work.rows, superlanes(race.count)):
            _before(work, race, n, (first, loops), part)
    pace = work.spec.d_func("vxm.alu")
    for start in range(0, work.rows, pace):
        loops = run(min(pace, work.rows - start))
        chain = work.chain("route: ranks")
        rank = _rank(work, chain, race, parts, (start, loops))
        for slot in range(chosen):
            mine = chain.vxm("to_f16", chain.vxm("eq", rank, float(slot)))
            chain.write(mine, Rows(found, slot * work.rows + start))
            rank = chain.vxm("copy", rank) if slot < chosen - 1 else rank
        work.plan.place(chain)
    return found


def _found(work: Work, chosen: int, name: str = "race") -> Buffer:
    return work.scratch(f"{name}.found", chosen, "f16", EAST)


def number(work: Work, found: Buffer, chosen: int, out: Laid) -> None:
    """Write the numbers of lanes that were found to all copies, (slot, token)."""
    weights = work.shared(NUMBER_COLUMNS, LANES, "f16", EAST, "columns")
    words, most = LANES // word_columns("f16"), work.spec.accumulator_depth // work.rows
    for first in range(0, chosen, most):
        count = min(most, chosen - first) * work.rows
        chain, rows = work.chain("route: numbers"), Rows(found, first * work.rows)
        (flow,) = matmul(chain, EAST, [Pass(weights, 0, 1, words, rows, count)])
        deliver(chain, flow, targets(work, out.copies, first))
        work.plan.place(chain)


def pick(work: Work, race: Race, chosen: int, out: Buffer) -> None:
    """Rows (slot, token): the score in the lane that was found, in all lanes.

    All others are taken for less than any number.
    """
    rows, found = work.rows, _found(work, chosen)
    most = max(1, work.spec.d_func("vxm.alu") // rows)  # in short runs, if they can be
    for first in range(0, chosen, most):
        count = min(most, chosen - first)
        loops: Loops = ((count, rows), (rows, 1))
        chain = work.chain("route: score")
        mine = chain.vxm("to_f32", Rows(found, first * rows, (rows, 1)), loops=loops)
        limit = chain.vxm("mul", chain.vxm("sub", mine, 0.5), float("inf"))
        alone = chain.vxm("min", limit, Rows(race.own, 0, (0, 1)))
        top = reduce_lanes(chain, "max", alone, "f32", beside=True)
        chain.write(top, Rows(out, first * rows, (rows, 1)))
        work.plan.place(chain)


def _sets(count: int) -> list[int]:
    """The sets of partners among so many lanes."""
    lanes = range(min(count, SUPERLANE))
    sets = [n for n, partners in enumerate(PARTNERS) if partners[0] < 1 << lanes[-1].bit_length()]
    return sets if count > SUPERLANE else [n for n in sets if n]  # none is its own partner


def _pieces(tokens: int, turns: int) -> Iterator[tuple[tuple[int, int], Loops]]:
    """((turn, token), loops) of runs of rows that are compared by a chain each."""
    few = min(tokens, RANKED_VECTORS)
    each = RANKED_VECTORS // few
    for turn in range(0, turns, each):
        for token in range(0, tokens, few):
            some = min(few, tokens - token)
            yield (turn, token), ((min(each, turns - turn), some), (some, 1))


def _before(
    work: Work, race: Race, number: int, piece: tuple[tuple[int, int], Loops], out: Buffer
) -> None:
    """How many scores of a set of partners come before that of each lane."""
    (turn, token), loops = piece
    rows, spec, partners = work.rows, work.spec, PARTNERS[number]
    first = turn * rows + token
    chain = work.chain("route: before")
    position = spec.edge_position("sxm", EAST)
    value = chain.arrive(Rows(race.turned, first, (rows, 1)), position, 0, loops)
    exchanged = [
        chain.sxm("distribute", chain.maps.index(tuple(n ^ p for n in range(SUPERLANE))), value, EAST)
        for p in partners
    ]
    vxm, one = spec.vxm_position, exchanged[0]
    own = chain.arrive(
        Rows(race.own, token, (0, 1)), vxm, one.cycle + abs(one.position - vxm), loops
    )  # fmt: skip
    higher = total_of(chain, [chain.vxm("gt", other, own) for other in exchanged])
    alike = total_of(chain, [chain.vxm("eq", other, own) for other in exchanged])
    turns = superlanes(race.count)
    lower = work.shared(LOWER.format(turns), len(PARTNERS) * turns, "u8", WEST)
    ties = chain.vxm("mul", alike, Rows(lower, number * turns + turn, (1, 0)))
    both = total_of(chain, [higher, ties])
    chain.write(both, Rows(out, first, (rows, 1)))
    work.plan.place(chain)


def _rank(
    work: Work, chain: Chain, race: Race, parts: list[Buffer], piece: tuple[int, Loops]
) -> Flow:
    """All that comes before a score; lanes beyond the race are behind it."""
    (start, loops), pace = piece, work.spec.d_func("vxm.alu")
    rank: Flow | None = None
    for turn in range(superlanes(race.count)):
        at = turn * work.rows + start
        some = [
            chain.arrive(Rows(part, at), work.spec.vxm_position, turn * pace, loops)
            for part in parts
        ]
        more = chain.vxm("to_f32", total_of(chain, some))
        if rank is None:
            lane = Rows(work.shared(LANE_NUMBERS, 1, "f32", WEST), 0, (0, 0))
            begin = more.cycle - 2 * pace - work.spec.d_func("vxm.convert")
            beyond = chain.vxm("ge", lane, float(race.count), loops=loops, at=begin)
            rank = chain.vxm("mul", chain.vxm("to_f32", beyond), FAR)
        rank = chain.vxm("add", rank, more)
    assert rank is not None
    return rank
