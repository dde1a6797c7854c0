"""LLVM vector code for the fp16 columns of an SRAM word.

A word of a weight group lies in four arrays, one per four slices: lane after lane, four bytes of
each: two fp16 columns. They are read where they rest. Lanes come from `lane` on; all but counts are
addresses, and a place is those of the four parts.
"""

from collections.abc import Callable
from itertools import product

from llvmlite import ir  # type: ignore[import-untyped]

from chip.jit.layout import GRAIN, Untyped
from chip.jit.memory import INT, VOID, emitted, types
from chip.jit.vectors import (
    CONTRACT,
    DOUBLE,
    FLOAT,
    FLOAT64_LANES,
    I16,
    I32,
    I64,
    PARTS,
    half_to_float,
    halved,
    load,
    numbers,
    over_lanes,
    places,
    plus,
    prefetch,
    store,
)

PLACE = types.UniTuple(INT, PARTS)
SHIFTED = FLOAT64_LANES == 8  # how float64 is made: see _doubles
_SCALE = 2.0 ** (1023 - 127)
_KEPT_BITS = -(1 << 63) | (1 << 60) - (1 << 29)  # sign, exponent and mantissa of shifted fp32 bits
_WIDE = ir.VectorType(DOUBLE, FLOAT64_LANES)
_HALVES = range(FLOAT64_LANES), range(FLOAT64_LANES, 2 * FLOAT64_LANES)


def columns16(rows: int, is_wide: bool) -> Callable[..., None]:
    """A function: 8 float64 sums for each of `rows` rows of x with a word's columns.

    f(place, lane, x, stride, lanes, sums): bytes from row to row of x. `is_wide` columns are those
    of `widen_part`.
    """
    chains = 2 if SHIFTED or rows == 1 else 1  # of sums: without SHIFTED, one is enough
    lane_bytes = 16 if is_wide else 4

    @emitted(VOID, PLACE, INT, INT, INT, INT, INT)
    def sums(_context: Untyped, builder: Untyped, args: Untyped) -> None:
        parts = places(builder, args[0], builder.mul(args[1], I64(lane_bytes)))
        x_start = plus(builder, args[2], args[1], 8)

        def step(lane: Untyped, totals: list[Untyped]) -> None:
            for first in range(0, GRAIN, FLOAT64_LANES):
                x = plus(builder, x_start, builder.add(lane, I64(first)), 8)
                at = [plus(builder, x, args[3], row) for row in range(rows)]
                factors = [_factors(builder, load(builder, one, _WIDE)) for one in at]
                for part in range(PARTS):
                    pair = _pair(builder, parts[part], lane, first, is_wide)
                    for row, half in product(range(rows), range(2)):
                        total = totals[(row * PARTS + part) * chains + half % chains]
                        one = builder.fmul(pair[half], factors[row][half], flags=CONTRACT)
                        held = builder.load(total)
                        builder.store(builder.fadd(held, one, flags=CONTRACT), total)

        totals = over_lanes(builder, args[4], step, (_WIDE, rows * PARTS * chains))
        for number in range(rows * PARTS):
            pair = _sums_of_pair(builder, totals[number * chains : (number + 1) * chains])
            store(builder, builder.add(args[5], I64(16 * number)), pair)

    return sums


def _pair(
    builder: Untyped, part: Untyped, lane: Untyped, first: int, is_wide: bool
) -> list[Untyped]:
    """Two float64 vectors: both columns of a part in as many lanes as a vector has."""
    if is_wide:
        at = builder.add(plus(builder, part, lane, 16), I64(16 * first))
        step = 8 * FLOAT64_LANES
        return [load(builder, builder.add(at, I64(step * half)), _WIDE) for half in range(2)]
    at = builder.add(plus(builder, part, lane, 4), I64(4 * first))
    if first == 0:
        prefetch(builder, at, 2)
    halves = load(builder, at, ir.VectorType(I16, 2 * FLOAT64_LANES))
    return _doubles(builder, half_to_float(builder, halves))


def _doubles(builder: Untyped, floats: Untyped) -> list[Untyped]:
    """An fp32 vector of lanes with two columns each as two float64 vectors.

    Where 64 bits have arithmetic shifts, a column each, divided by `_SCALE`: fp32 bits at the place
    of float64's are the number times 2**-896, exactly, and quicker there than a conversion.
    Elsewhere half of the lanes each.
    """
    if not SHIFTED:
        return [
            builder.fpext(builder.shuffle_vector(floats, floats, numbers(half)), _WIDE)
            for half in _HALVES
        ]
    bits = ir.VectorType(I64, FLOAT64_LANES)
    left, right, kept = (ir.Constant(bits, [n] * FLOAT64_LANES) for n in (32, 3, _KEPT_BITS))
    odd = builder.bitcast(floats, bits)
    shifted = [builder.ashr(one, right) for one in (builder.shl(odd, left), odd)]
    return [builder.bitcast(builder.and_(one, kept), _WIDE) for one in shifted]


def _factors(builder: Untyped, x: Untyped) -> list[Untyped]:
    """The x that meet the two vectors of `_doubles`."""
    if SHIFTED:
        return [x, x]
    return [builder.shuffle_vector(x, x, numbers(n // 2 for n in half)) for half in _HALVES]


def _sums_of_pair(builder: Untyped, totals: list[Untyped]) -> Untyped:
    """The sums of both columns, of what has been made with the two vectors of `_doubles`."""
    first, second = totals[0], totals[-1]
    if not SHIFTED:
        total = first if len(totals) == 1 else builder.fadd(first, second)
        return halved(builder, total, 2, builder.fadd)
    turn = [n + column for n in range(FLOAT64_LANES) for column in (0, FLOAT64_LANES)]
    low, high = (
        builder.shuffle_vector(first, second, numbers(turn[n] for n in half)) for half in _HALVES
    )
    pair = halved(builder, builder.fadd(low, high), 2, builder.fadd)
    return builder.fmul(pair, ir.Constant(pair.type, [_SCALE] * 2))


@emitted(VOID, PLACE, INT, INT)
def squares16(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """Write the fp32 sums of the squares of a word's columns, as float64: f(place, lanes, sums)."""
    size, parts = 16, places(builder, args[0])

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        for first in range(0, 4 * GRAIN, 2 * size):
            offset = builder.add(builder.mul(lane, I64(4)), I64(first))
            for part, total in zip(parts, totals, strict=True):
                halves = load(builder, builder.add(part, offset), ir.VectorType(I16, size))
                floats = half_to_float(builder, halves)
                square = builder.fmul(floats, floats, flags=CONTRACT)
                builder.store(builder.fadd(builder.load(total), square, flags=CONTRACT), total)

    totals = over_lanes(builder, args[1], step, (ir.VectorType(FLOAT, size), PARTS))
    for part, total in enumerate(totals):
        pair = halved(builder, total, 2, builder.fadd)
        wide = builder.fpext(pair, ir.VectorType(DOUBLE, 2))
        store(builder, builder.add(args[2], I64(16 * part)), wide)


def diagonal16(rows: int) -> Callable[..., None]:
    """A function: fp32 products of eight columns with rows of x that have one lane.

    f(place, lane, x, x_step, out, out_step): the first row's lane, the next rows have those that
    follow; bytes from row to row. Products are exact; zeros are positive, as sums are.
    """
    count = 2 * rows  # elements of a part: two columns of each lane
    floats, pairs = ir.VectorType(FLOAT, count), ir.VectorType(I64, rows)

    @emitted(VOID, PLACE, INT, INT, INT, INT, INT)
    def products(_context: Untyped, builder: Untyped, args: Untyped) -> None:
        x_start = plus(builder, args[2], args[1], 8)
        x = ir.Constant(ir.VectorType(FLOAT, rows), ir.Undefined)
        for row in range(rows):
            at = plus(builder, x_start, builder.add(args[3], I64(8)), row)
            lane = builder.fptrunc(load(builder, at, DOUBLE), FLOAT)
            x = builder.insert_element(x, lane, I32(row))
        twice = builder.shuffle_vector(x, x, numbers(n // 2 for n in range(count)))
        parts = []
        for part in places(builder, args[0], builder.mul(args[1], I64(4))):
            weights = half_to_float(builder, load(builder, part, ir.VectorType(I16, count)))
            total = builder.fadd(builder.fmul(weights, twice), ir.Constant(floats, [0.0] * count))
            parts.append(builder.bitcast(total, pairs))
        for row in range(rows):
            low, high = (
                builder.shuffle_vector(a, b, numbers((row, rows + row)))
                for a, b in (parts[:2], parts[2:])
            )
            four = builder.shuffle_vector(low, high, numbers(range(PARTS)))
            store(builder, plus(builder, args[4], args[5], row), four)

    return products


@emitted(VOID, INT, INT, INT)
def widen_part(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """Columns of one part as float64, in the order of `_doubles`: f(part, lanes, target)."""

    def step(lane: Untyped, _totals: list[Untyped]) -> None:
        for first in range(0, GRAIN, FLOAT64_LANES):
            at = plus(builder, args[2], lane, 16)
            for half, piece in enumerate(_pair(builder, args[0], lane, first, False)):
                offset = I64(16 * first + 8 * FLOAT64_LANES * half)
                store(builder, builder.add(at, offset), piece)

    over_lanes(builder, args[1], step)
