"""Lane maps, and reductions over lanes as rounds of rotate (SXM) and combine (VXM)."""

from functools import cache

from chip.schedule import Chain, Flow
from chip.spec import EAST

LANES = 320
ROUNDS = ((80, 4), (20, 4), (5, 4), (1, 5))  # (stride, copies): after them every lane has the total
SWAP, KEEP = 0, 1  # indices into MAPS
_SHIFTS = tuple(sorted({stride * copy for stride, copies in ROUNDS for copy in range(copies)}))

# Lane maps of every decoder program: partner swap and identity inside a superlane, rotations.
MAPS: tuple[tuple[int, ...], ...] = (
    tuple(lane ^ 1 for lane in range(16)),
    tuple(range(16)),
    *(tuple((lane + shift) % LANES for lane in range(LANES)) for shift in _SHIFTS),
)
# Rounds of `reduce_alike`: what a lane takes from, as (SXM instruction, the source of each lane).
_INSIDE = [[[lane ^ step * copy for lane in range(16)] for copy in range(4)] for step in (1, 4)]
_ACROSS = [[lane ^ 16 * copy for lane in range(LANES)] for copy in range(4)]
_AROUND = [[(lane + 64 * copy) % LANES for lane in range(LANES)] for copy in range(5)]
_ALIKE = (("distribute", _INSIDE[0]), ("distribute", _INSIDE[1]), ("permute", _ACROSS),
          ("permute", _AROUND))  # fmt: skip
# Lane maps of an int8 decoder: those above, and those of these rounds.
MAPS_INT8 = (*MAPS, *dict.fromkeys(tuple(lanes) for _, maps in _ALIKE for lanes in maps))
RUN_LIMIT = 64  # vectors per chain: a longer run would need other streams in every round


def reduce_lanes(chain: Chain, op: str, value: Flow, dtype: str, side: int = EAST) -> Flow:
    """Combine all lanes of a VXM result with `op`; every lane of the result holds the total.

    Each round drives the value to the SXM of `side`, which returns rotated copies that are combined
    in a tree: 16 groups of 20 lanes, then of 5, then single lanes.
    """
    for stride, copies in ROUNDS:
        chain.emit(value, side)
        rotated = [
            chain.sxm("permute", 2 + _SHIFTS.index(stride * copy), value, side)
            for copy in range(copies)
        ]
        value = _tree(chain, op, rotated, dtype)
    return value


def reduce_alike(chain: Chain, op: str, value: Flow, dtype: str) -> Flow:
    """Combine all lanes as `reduce_lanes`, with the same bits in every lane for a sum of floats.

    Lanes are paired by exclusive or, so that partners add the same numbers. That leaves the fives
    in which 320 is no power of two: lanes begin at different ones, and the largest sum is taken.
    """
    for unit, maps in _ALIKE:
        value = _around(chain, op, value, dtype, unit, maps)
    return value if op == "max" else _around(chain, "max", value, dtype, *_ALIKE[-1])


def group_maps(size: int) -> tuple[tuple[int, ...], ...]:
    """Lane maps that `reduce_groups` needs for groups of `size` lanes."""
    return tuple(dict.fromkeys(lanes for maps in _group_rounds(size) for lanes in maps))


def reduce_groups(chain: Chain, op: str, value: Flow, dtype: str, size: int) -> Flow:
    """Combine the lanes of each group of `size` neighbours, with the same bits in all of them.

    As in `reduce_alike`: powers of two pair lanes by exclusive or; what is left goes round, and of
    sums that begin at different lanes the largest is taken.
    """
    rounds = _group_rounds(size)
    for number, maps in enumerate(rounds):
        chain.emit(value, EAST)
        numbers = [chain.maps.index(lanes) for lanes in maps]
        how = "max" if number and maps is rounds[number - 1] else op
        value = _tree(chain, how, [chain.sxm("permute", n, value, EAST) for n in numbers], dtype)
    return value


@cache
def _group_rounds(size: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The lane maps of each round; the last one stands twice where sums differ by their order."""
    power = size & -size
    found, step = [], 1
    while step < power:
        copies = 4 if step * 4 <= power else 2
        found.append(tuple(_paired(size, step * copy) for copy in range(copies)))
        step *= copies
    if power < size:
        last = tuple(_turned(size, power * copy) for copy in range(size // power))
        found += [last, last]
    return tuple(found)


def _paired(size: int, step: int) -> tuple[int, ...]:
    return tuple(_inside(size, lane, lane % size ^ step) for lane in range(LANES))


def _turned(size: int, step: int) -> tuple[int, ...]:
    return tuple(_inside(size, lane, (lane % size + step) % size) for lane in range(LANES))


def _inside(size: int, lane: int, other: int) -> int:
    """Lane `other` of the group of a lane; lanes of no whole group keep themselves."""
    start = lane - lane % size
    return start + other if start + size <= LANES else lane


def _around(
    chain: Chain, op: str, value: Flow, dtype: str, unit: str, maps: list[list[int]]
) -> Flow:
    chain.emit(value, EAST)
    numbers = [MAPS_INT8.index(tuple(lanes)) for lanes in maps]
    return _tree(chain, op, [chain.sxm(unit, n, value, EAST) for n in numbers], dtype)


def _tree(chain: Chain, op: str, values: list[Flow], dtype: str) -> Flow:
    """Combine pairwise; an odd one out waits in an ALU."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        level = [chain.vxm(op, a, b, dtype=dtype) for a, b in pairs]
        if len(values) % 2:
            level.append(chain.vxm("copy", values[-1], dtype=dtype))
        values = level
    return values[0]
