"""Lane maps, and reductions over lanes as rounds of rearrange (SXM) and combine (VXM).

A round sends a value to the SXM, which returns copies in which lanes have changed places, and adds
them up (or takes the largest). The way there and back is most of its time. So short runs of vectors
take as many copies in a round as streams carry, from the SXMs of both sides: all 320 lanes in two
rounds. Long runs are bound by ALUs and take four copies at a time. Both give the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from chip.isa import WIDTHS
from chip.schedule import Chain, Flow, Rows, run
from chip.schedule.flows import span
from chip.spec import EAST, WEST

LANES, SUPERLANE = 320, 16
ODD_FACTORS = (3, 5, 7)  # of groups of lanes: as many parts can be added in every order
# Copies of a round of a short run, of a long one in a hurry, and of a long one.
MOST_PARTNERS, MORE_PARTNERS, FEW_PARTNERS = 16, 8, 4
MOST_COPIES = 20  # of a round, with its parts
RUN_LIMIT = 64  # vectors per chain: a longer run would need other streams in every round
HURRIED_STREAMS = 16  # of each direction: others are at work, too
FEW_BESIDE = 16  # vectors in short runs where other parts of a launch are at work beside them
SHORT_RUN_BYTES = 16  # a lane's, of a run that may have as many copies as there are streams for

LaneMap = tuple[int, ...]
Combine = Callable[..., Flow]


@dataclass(frozen=True)
class _Round:
    """Lane maps [part][partner]: a lane and its partners make a part of what is to be combined."""

    maps: tuple[tuple[LaneMap, ...], ...]

    @property
    def unit(self) -> str:
        """The SXM instruction: maps of one superlane are quicker."""
        return "distribute" if len(self.maps[0][0]) == SUPERLANE else "permute"


@dataclass(frozen=True)
class _Reduction:
    """What combines groups of `size` lanes, by which SXM, and if all get the same bits."""

    op: str
    dtype: str
    size: int
    side: int
    alike: bool
    hurry: bool = False
    spared: int = 0


def group_maps(size: int) -> tuple[LaneMap, ...]:
    """Lane maps that `reduce_groups` needs for groups of `size` lanes."""
    return _maps(size, MOST_PARTNERS, FEW_PARTNERS)


def hurried_maps(size: int) -> tuple[LaneMap, ...]:
    """Those that it needs beside them for long runs in a hurry."""
    return _maps(size, MORE_PARTNERS)


def _maps(size: int, *most: int) -> tuple[LaneMap, ...]:
    rounds = [one for partners in most for one in _rounds(size, partners)]
    return tuple(dict.fromkeys(lanes for one in rounds for part in one.maps for lanes in part))


def runs(count: int, dtype: str, few: int = RUN_LIMIT) -> Iterator[tuple[int, int]]:
    """(first, count) of runs of vectors that are best reduced by a chain each.

    Up to `few` vectors go in short runs.
    """
    most = SHORT_RUN_BYTES // WIDTHS[dtype] if count <= few else RUN_LIMIT
    for start in range(0, count, most):
        yield start, min(most, count - start)


def rows_to_reduce(chain: Chain, rows: Rows, count: int, side: int) -> Flow:
    """Rows to be reduced by the SXM of a side: long runs go to it and not by the VXM first."""
    dtype = rows.buffer.region.dtype
    if count * WIDTHS[dtype] <= SHORT_RUN_BYTES:
        return chain.vxm("copy", rows, loops=run(count), dtype=dtype)
    return chain.arrive(rows, chain.spec.edge_position("sxm", side), 0, run(count))


def reduce_lanes(
    chain: Chain, op: str, value: Flow, dtype: str, side: int = EAST, hurry: bool = False,
    spared: int = 0,
) -> Flow:  # fmt: skip
    """Combine all lanes of a VXM result with `op`; every lane of the result holds the total.

    `side` is the SXM that a long run keeps to, unless it is in a `hurry`: then it takes fewer
    rounds of more copies. A short one leaves streams that are `spared` to others; if these are all
    of them, it goes as a long one does. Sums differ by their order from lane to lane.
    """
    return _reduce(chain, value, _Reduction(op, dtype, LANES, side, False, hurry, spared))


def reduce_groups(
    chain: Chain, op: str, value: Flow, dtype: str, size: int = LANES, side: int = EAST,
    hurry: bool = False,
) -> Flow:  # fmt: skip
    """Combine the lanes of each group of `size` neighbours, with the same bits in all of them.

    Lanes are paired by exclusive or, so that partners add the same numbers. That leaves the odd
    parts of `size`: lanes begin at different ones, and the largest of these sums is taken.
    """
    return _reduce(chain, value, _Reduction(op, dtype, size, side, op != "max", hurry))


def spread(chain: Chain, value: Flow, maps: Sequence[LaneMap], side: int) -> Flow:
    """The sum of a VXM result as each of these lane maps leaves it."""
    copies = [chain.sxm("permute", chain.maps.index(lanes), value, side) for lanes in maps]
    return _tree(copies, _combiner(chain, "add", value.dtype))


def total_of(chain: Chain, values: Sequence[Flow]) -> Flow:
    """The sum of values of one type; earlier ones wait for later ones."""
    return _tree(values, _combiner(chain, "add", values[0].dtype))


def reducible(size: int) -> bool:
    """Whether `reduce_groups` can combine groups of `size` lanes."""
    for factor in (2, *ODD_FACTORS):
        while size % factor == 0:
            size //= factor
    return size == 1


def _reduce(chain: Chain, value: Flow, how: _Reduction) -> Flow:
    side, short = how.side, span(value.loops) * WIDTHS[how.dtype] <= SHORT_RUN_BYTES
    short &= how.spared < chain.spec.streams
    long_partners = MORE_PARTNERS if how.hurry else FEW_PARTNERS
    for one in _rounds(how.size, MOST_PARTNERS if short else long_partners):
        numbers = [chain.maps.index(lanes) for part in one.maps for lanes in part]
        if short:
            streams = chain.spec.streams - how.spared
            copies = _from_both_sides(chain, one.unit, numbers, value, side, streams)
        elif how.hurry:
            copies = _from_both_sides(chain, one.unit, numbers, value, side, HURRIED_STREAMS)
        else:
            copies = [chain.sxm(one.unit, n, value, side) for n in numbers]
        partners = len(one.maps[0])
        add = _combiner(chain, how.op, how.dtype)
        starts = range(0, len(copies), partners)
        parts = [_tree(copies[start : start + partners], add) for start in starts]
        if not how.alike or len(parts) == 1:
            value = _tree(parts, add)
            continue
        if short:
            begun = [_tree(parts[n:] + parts[:n], add) for n in range(len(parts))]
        else:
            total = _tree(parts, add)
            begun = [chain.sxm(one.unit, numbers[start], total, side) for start in starts]
        value = _tree(begun, _combiner(chain, "max", how.dtype))
    return value


def _from_both_sides(
    chain: Chain, unit: str, numbers: Sequence[int], value: Flow, side: int, streams: int
) -> list[Flow]:
    """Rearranged copies, as many at a time from each side as streams and SXM queues carry."""
    each = min(streams // WIDTHS[value.dtype], chain.spec.sxm_queues)
    copies: list[Flow] = []
    for start in range(0, len(numbers), each):
        turn = start // each
        if turn:  # to the other side at the same time, to the same one behind it
            value = chain.twin(value) if turn % 2 else chain.vxm("copy", value)
        way = EAST + WEST - side if turn % 2 else side
        copies += [chain.sxm(unit, n, value, way) for n in numbers[start : start + each]]
    return copies


def _combiner(chain: Chain, op: str, dtype: str) -> Combine:
    """Combines two flows; the earlier one waits in ALUs. The same two are combined once."""
    made: dict[tuple[int, ...], Flow] = {}

    def arrival(value: Flow) -> int:
        return value.cycle + abs(value.position - chain.spec.vxm_position)

    def once(op: str, *values: Flow) -> Flow:
        key = tuple(value.name for value in values)
        if key not in made:
            made[key] = chain.vxm(op, *values, dtype=dtype)
        return made[key]

    def combine(*values: Flow) -> Flow:
        last, met = max(map(arrival, values)), []
        for value in values:
            while arrival(value) < last:
                value = once("copy", value)
            met.append(value)
        return once(op, *met)

    return combine


def _tree(values: Sequence[Flow], combine: Combine) -> Flow:
    """Combine neighbours, what comes of neighbours, and so on; an odd one waits."""
    while len(values) > 1:
        pairs = [combine(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = [*pairs, *values[len(values) - len(values) % 2 :]]
    return values[0]


@cache
def _rounds(size: int, most: int) -> tuple[_Round, ...]:
    """The rounds that combine groups of `size` lanes, by up to so many copies each."""
    power = size & -size
    odd, rest = [], size // power
    for factor in ODD_FACTORS:
        while rest % factor == 0:
            rest //= factor
            odd.append(factor)
    assert rest == 1, f"{size} lanes are not reducible"
    found, step, left = [], 1, size // power
    while step < power:
        partners = min(most, power // step)
        xors = [step * n for n in range(partners)]
        step *= partners
        parts = 1
        if most > FEW_PARTNERS and step == power and odd and partners * odd[0] <= MOST_COPIES:
            parts = odd.pop(0)
            left //= parts
        found.append(_round(size, xors, [power * left * n for n in range(parts)]))
    for parts in odd:
        left //= parts
        found.append(_round(size, [0], [power * left * n for n in range(parts)]))
    return tuple(found)


def _round(size: int, xors: Sequence[int], turns: Sequence[int]) -> _Round:
    inside = len(turns) == 1 and max(xors) < SUPERLANE and (size % SUPERLANE == 0)
    if inside:
        return _Round((tuple(tuple(lane ^ xor for lane in range(SUPERLANE)) for xor in xors),))
    return _Round(tuple(tuple(_partners(size, turn, xor) for xor in xors) for turn in turns))


def _partners(size: int, turn: int, xor: int) -> LaneMap:
    """The partner of each lane, in its group; lanes of no whole group keep themselves."""
    whole = LANES - LANES % size
    starts = (lane - lane % size for lane in range(whole))
    found = (start + ((lane - start + turn) % size ^ xor) for lane, start in enumerate(starts))
    return (*found, *range(whole, LANES))


MAPS = group_maps(LANES)  # of every decoder program
KEEP, SWAP = (MAPS.index(tuple(lane ^ xor for lane in range(SUPERLANE))) for xor in (0, 1))
