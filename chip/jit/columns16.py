"""LLVM vector code for the fp16 columns of an SRAM word.

A word of 16 slices lies in four arrays, its quarters of four slices: lane after lane, four bytes of
each: two fp16 columns. They are read where they rest. Lanes come from `lane` on; all but counts are
addresses, and a place is those of the four quarters.
"""

import functools
from collections.abc import Callable
from itertools import chain, product

from llvmlite import ir  # type: ignore[import-untyped]

from chip.jit.layout import GRAIN, QUARTERS, Untyped
from chip.jit.memory import INT, VOID, emitted, types
from chip.jit.vectors import (
    CONTRACT,
    DOUBLE,
    FLOAT,
    FLOAT64_LANES,
    I16,
    I32,
    I64,
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

PLACE = types.UniTuple(INT, QUARTERS)
_REGISTERS = 4 * FLOAT64_LANES  # vectors: 16 of AVX2, 32 of AVX-512
_SCALE = 2.0 ** (1023 - 127)
# Of float64's bits the sign, 8 of the exponent's 11 and 20 of the mantissa; as a signed integer.
_KEPT_BITS = (0x8FFFFFFF << 32) - (1 << 64)
_WIDE = ir.VectorType(DOUBLE, FLOAT64_LANES)


def columns16(rows: int, is_wide: bool) -> Callable[..., None]:
    """A function: 8 float64 sums for each of `rows` rows of x with a word's columns.

    f(place, lane, x, stride, lanes, sums): bytes from row to row of x. `is_wide` columns are those
    of `widen_quarter`. As many quarters are done at a time as have their sums in registers.
    """
    lane_bytes, sums_of_quarter = 16 if is_wide else 4, 2 * rows
    # Half of the registers for sums, the rest for columns and x.
    together = min(QUARTERS, _REGISTERS // 2 // sums_of_quarter)

    @emitted(VOID, PLACE, INT, INT, INT, INT, INT)
    def sums(_context: Untyped, builder: Untyped, args: Untyped) -> None:
        quarters = places(builder, args[0], builder.mul(args[1], I64(lane_bytes)))
        x_start = plus(builder, args[2], args[1], 8)
        for begin in range(0, QUARTERS, together):
            some = quarters[begin : begin + together]

            # `some` is a default: a closure would see what the loop makes of it later.
            def step(lane: Untyped, totals: list[Untyped], some: list[Untyped] = some) -> None:
                for first in range(0, GRAIN, FLOAT64_LANES):
                    x = plus(builder, x_start, builder.add(lane, I64(first)), 8)
                    at = [plus(builder, x, args[3], row) for row in range(rows)]
                    factors = [load(builder, one, _WIDE) for one in at]
                    pairs = [_pair(builder, quarter, lane, first, is_wide) for quarter in some]
                    made = product(factors, chain.from_iterable(pairs))
                    for (factor, column), total in zip(made, totals, strict=True):
                        one = builder.fmul(column, factor, flags=CONTRACT)
                        held = builder.load(total)
                        builder.store(builder.fadd(held, one, flags=CONTRACT), total)

            totals = over_lanes(builder, args[4], step, (_WIDE, sums_of_quarter * together))
            for number, (row, quarter) in enumerate(product(range(rows), range(together))):
                pair = _sums_of_pair(builder, *totals[2 * number : 2 * number + 2])
                place = 16 * (row * QUARTERS + begin + quarter)
                store(builder, builder.add(args[5], I64(place)), pair)

    return sums


def _pair(
    builder: Untyped, quarter: Untyped, lane: Untyped, first: int, is_wide: bool
) -> list[Untyped]:
    """Two float64 vectors: the columns of a quarter in as many lanes as a vector has."""
    if is_wide:
        at = builder.add(plus(builder, quarter, lane, 16), I64(16 * first))
        step = 8 * FLOAT64_LANES
        return [load(builder, builder.add(at, I64(step * half)), _WIDE) for half in range(2)]
    at = builder.add(plus(builder, quarter, lane, 4), I64(4 * first))
    if first == 0:
        prefetch(builder, at, 2)
    halves = load(builder, at, ir.VectorType(I16, 2 * FLOAT64_LANES))
    return _doubles(builder, half_to_float(builder, halves))


def _doubles(builder: Untyped, floats: Untyped) -> list[Untyped]:
    """Two columns, lane by lane in one fp32 vector, as two float64 vectors, divided by `_SCALE`.

    fp32 bits at the place of float64's are the number times 2**-896, exactly, and in half of the
    time that conversions take. Both are shifted by three as 32-bit numbers, as the bits that a
    64-bit shift would carry over are zero: fp16 leaves the last 13 bits of fp32 empty.

    Products are 0 or at least 2**-944 and sums are multiples of that, so nothing is subnormal and
    additions round as they would unscaled: a sum is 2**-896 times what it would be, to the bit.
    Infinities and NaNs become finite; then `Statistics.peak` is infinite, and the sums are unused.
    """
    whole, half = ir.VectorType(I32, 2 * FLOAT64_LANES), ir.VectorType(I64, FLOAT64_LANES)
    three, left, kept = (
        ir.Constant(kind, [n] * kind.count)
        for kind, n in ((whole, 3), (half, 32), (half, _KEPT_BITS))
    )
    both = builder.bitcast(builder.ashr(builder.bitcast(floats, whole), three), half)
    placed = builder.shl(both, left), both
    return [builder.bitcast(builder.and_(one, kept), _WIDE) for one in placed]


def _sums_of_pair(builder: Untyped, first: Untyped, second: Untyped) -> Untyped:
    """The sums of both columns, of what has been made with the two vectors of `_doubles`."""
    turn = [n + column for n in range(FLOAT64_LANES) for column in (0, FLOAT64_LANES)]
    low, high = (
        builder.shuffle_vector(first, second, numbers(half))
        for half in (turn[:FLOAT64_LANES], turn[FLOAT64_LANES:])
    )
    pair = halved(builder, builder.fadd(low, high), 2, builder.fadd)
    return builder.fmul(pair, ir.Constant(pair.type, [_SCALE] * 2))


@emitted(VOID, PLACE, INT, INT)
def squares16(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """Write the fp32 sums of the squares of a word's columns, as float64: f(place, lanes, sums)."""
    size, quarters = 16, places(builder, args[0])

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        for first in range(0, 4 * GRAIN, 2 * size):
            offset = builder.add(builder.mul(lane, I64(4)), I64(first))
            for quarter, total in zip(quarters, totals, strict=True):
                halves = load(builder, builder.add(quarter, offset), ir.VectorType(I16, size))
                floats = half_to_float(builder, halves)
                square = builder.fmul(floats, floats, flags=CONTRACT)
                builder.store(builder.fadd(builder.load(total), square, flags=CONTRACT), total)

    totals = over_lanes(builder, args[1], step, (ir.VectorType(FLOAT, size), QUARTERS))
    for quarter, total in enumerate(totals):
        pair = halved(builder, total, 2, builder.fadd)
        wide = builder.fpext(pair, ir.VectorType(DOUBLE, 2))
        store(builder, builder.add(args[2], I64(16 * quarter)), wide)


@emitted(INT, INT, INT)
def extremes16(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    """The extremes of `count` fp16 lanes of a row: f(address, count)."""
    return _extremes(builder, [args[0]], args[1])


@emitted(INT, PLACE, INT)
def extremes_of_word(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    """The extremes of the first lanes of a word, which has two fp16 in each: f(place, lanes)."""
    return _extremes(builder, places(builder, args[0]), builder.mul(args[1], I64(2)))


def _extremes(builder: Untyped, starts: list[Untyped], count: Untyped) -> Untyped:
    """The largest magnitude of `count` fp16 bits, plus 2**16 times the least that is not zero.

    The least is less one, and 0xFFFF where all are zero, as `least_unit` has it: the largest of
    all -n in 16 bits is that of the least n, a zero stays 0, and ~-n is n - 1.
    """
    kind = ir.VectorType(I16, GRAIN)
    magnitude, zero = (ir.Constant(kind, [n] * kind.count) for n in (0x7FFF, 0))

    def larger(a: Untyped, b: Untyped) -> Untyped:
        return builder.select(builder.icmp_unsigned(">", a, b), a, b)

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        bits = [load(builder, plus(builder, start, lane, 2), kind) for start in starts]
        sizes = [builder.and_(one, magnitude) for one in bits]
        negated = [builder.sub(zero, size) for size in sizes]
        for values, total in zip((sizes, negated), totals, strict=True):
            builder.store(larger(builder.load(total), functools.reduce(larger, values)), total)

    most, least = (
        builder.zext(builder.extract_element(halved(builder, total, 1, larger), I32(0)), I64)
        for total in over_lanes(builder, count, step, (kind, 2))
    )
    return builder.or_(most, builder.shl(builder.xor(least, I64(0xFFFF)), I64(16)))


@emitted(types.float64, INT, INT, INT)
def widen_row(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    """Write fp16 lanes as float64; the sum of their squares: f(lanes16, target, lanes)."""

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        for first in range(0, GRAIN, FLOAT64_LANES):
            at = builder.add(lane, I64(first))
            halves = load(builder, plus(builder, args[0], at, 2), ir.VectorType(I16, _WIDE.count))
            wide = builder.fpext(half_to_float(builder, halves), _WIDE)
            store(builder, plus(builder, args[1], at, 8), wide)
            total, square = (
                totals[first // FLOAT64_LANES % 2],
                builder.fmul(wide, wide, flags=CONTRACT),
            )
            builder.store(builder.fadd(builder.load(total), square, flags=CONTRACT), total)

    first, second = over_lanes(builder, args[2], step, (_WIDE, 2))
    whole = halved(builder, builder.fadd(first, second), 1, builder.fadd)
    return builder.extract_element(whole, I32(0))


def diagonal16(rows: int) -> Callable[..., None]:
    """A function: fp32 products of eight columns with rows of x that have one lane.

    f(place, lane, x, x_step, out, out_step): the first row's lane, the next rows have those that
    follow; bytes from row to row. A product has 22 bits, is 0 or from 2**-48 to 2**32, and so is
    exact in fp32: no test is needed. Zeros become positive, as sums are.
    """
    count = 2 * rows  # elements of a quarter: two columns of each lane
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
        quarters = []
        for quarter in places(builder, args[0], builder.mul(args[1], I64(4))):
            weights = half_to_float(builder, load(builder, quarter, ir.VectorType(I16, count)))
            total = builder.fadd(builder.fmul(weights, twice), ir.Constant(floats, [0.0] * count))
            quarters.append(builder.bitcast(total, pairs))
        for row in range(rows):
            low, high = (
                builder.shuffle_vector(a, b, numbers((row, rows + row)))
                for a, b in (quarters[:2], quarters[2:])
            )
            four = builder.shuffle_vector(low, high, numbers(range(QUARTERS)))
            store(builder, plus(builder, args[4], args[5], row), four)

    return products


@emitted(VOID, INT, INT, INT)
def widen_quarter(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """Columns of one quarter as float64, in the order of `_doubles`: f(quarter, lanes, target)."""

    def step(lane: Untyped, _totals: list[Untyped]) -> None:
        for first in range(0, GRAIN, FLOAT64_LANES):
            at = plus(builder, args[2], lane, 16)
            for half, piece in enumerate(_pair(builder, args[0], lane, first, False)):
                offset = I64(16 * first + 8 * FLOAT64_LANES * half)
                store(builder, builder.add(at, offset), piece)

    over_lanes(builder, args[1], step)
