"""LLVM vector code for the int8 columns of an SRAM word: four in each of its four parts.

See `chip.jit.columns16` for how they lie in it. They are read where they rest; what is brought into
this order is x, once for all words, by `activations.spread8`.
"""

from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import llvm_version_info  # type: ignore[import-untyped]

from chip.jit.columns16 import PLACE
from chip.jit.layout import GRAIN, Untyped
from chip.jit.memory import INT, VOID, emitted
from chip.jit.vectors import (
    I8,
    I16,
    I32,
    I64,
    PARTS,
    cgutils,
    halved,
    load,
    numbers,
    over_lanes,
    places,
    plus,
    prefetch,
    store,
)

_TURN = [4 * lane + column for column in range(4) for lane in range(4)]  # 4 lanes x 4 columns


@emitted(VOID, INT, INT, INT)
def widen_part8(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """Columns of one part as int16, four lanes each: f(part, lanes, target).

    In the target are lanes 0 to 3 of columns 0, 1, 2, 3, then lanes 4 to 7, and so on.
    """
    order = numbers(16 * block + place for block in range(GRAIN // 4) for place in _TURN)

    def step(lane: Untyped, _totals: list[Untyped]) -> None:
        at = plus(builder, args[0], lane, 4)
        prefetch(builder, at, 2)
        found = load(builder, at, ir.VectorType(I8, 4 * GRAIN))
        turned = builder.shuffle_vector(found, found, order)
        values = builder.sext(turned, ir.VectorType(I16, 4 * GRAIN))
        store(builder, plus(builder, args[2], lane, 8), values)

    over_lanes(builder, args[1], step)


@emitted(VOID, INT, INT, INT, INT)
def columns8_wide(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """16 int32 sums of a row of x with a word's columns, widened: f(w, x, lanes, sums).

    w is as `widen_part8` leaves it, part after part; x in the same order, every lane for four
    columns.
    """
    size = 32  # int16 elements at a time: eight lanes of four columns
    whole, half = ir.VectorType(I32, size), ir.VectorType(I32, size // 2)
    evens, odds = (numbers(range(n, size, 2)) for n in (0, 1))
    part_bytes = builder.mul(args[2], I64(8))

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        for first in (0, 2 * size):
            here = builder.add(builder.mul(lane, I64(8)), I64(first))
            found = load(builder, builder.add(args[1], here), ir.VectorType(I16, size))
            x = builder.sext(found, whole)
            for part in range(PARTS):
                at = builder.add(plus(builder, args[0], part_bytes, part), here)
                w = builder.sext(load(builder, at, ir.VectorType(I16, size)), whole)
                product = builder.mul(w, x)
                # Adding neighbours is what makes this one multiply-add instruction.
                pairs = builder.add(
                    builder.shuffle_vector(product, product, evens),
                    builder.shuffle_vector(product, product, odds),
                )
                total = totals[2 * part + (first > 0)]
                builder.store(builder.add(builder.load(total), pairs), total)

    totals = over_lanes(builder, args[2], step, (half, 2 * PARTS), 16)
    for part in range(PARTS):
        both = builder.add(totals[2 * part], totals[2 * part + 1])
        eight = halved(builder, both, 8, builder.add)
        low, high = (builder.shuffle_vector(eight, eight, numbers(range(n, 8, 2))) for n in (0, 1))
        store(builder, builder.add(args[3], I64(16 * part)), builder.add(low, high))


@emitted(VOID, PLACE, INT, INT, INT)
def columns8_bytes(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """16 int32 sums of a row of x with a word's columns, where they rest: f(place, x, lanes, sums).

    x are bytes, 128 more than it is, four lanes at a time, each four times; what that is too much
    is summed as well, and taken off. Needs `DOT_OF_BYTES`.
    """
    total, line = ir.VectorType(I32, 16), ir.VectorType(I8, 64)
    factors = line if llvm_version_info[0] >= 22 else total  # as LLVM declares it
    kind = ir.FunctionType(total, [total, factors, factors])
    dot = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
    turn = numbers(16 * block + place for block in range(4) for place in _TURN)
    extra = builder.bitcast(ir.Constant(line, [-128] * 64), factors)
    parts = places(builder, args[0])

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        offset = builder.mul(lane, I64(4))
        x = load(builder, builder.add(args[1], offset), factors)
        for part in range(PARTS):
            at = builder.add(parts[part], offset)
            prefetch(builder, at, 1)
            found = load(builder, at, line)
            w = builder.bitcast(builder.shuffle_vector(found, found, turn), factors)
            for factor, place in ((x, totals[part]), (extra, totals[PARTS + part])):
                builder.store(builder.call(dot, [builder.load(place), factor, w]), place)

    totals = over_lanes(builder, args[2], step, (total, 2 * PARTS), 16)
    for part in range(PARTS):
        exact = builder.sub(totals[part], totals[PARTS + part])
        four = halved(builder, exact, 4, builder.add)
        store(builder, builder.add(args[3], I64(16 * part)), four)
