"""LLVM vector code for the int8 columns of an SRAM word: four in each of its four quarters.

See `chip.jit.columns16` for how they lie in it. They are read where they rest; what is brought into
this order is x, once for all words, by `activations.spread8`.
"""

from collections.abc import Callable

from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import llvm_version_info  # type: ignore[import-untyped]

from chip.jit.columns16 import PLACE
from chip.jit.layout import GRAIN, QUARTERS, Untyped
from chip.jit.memory import INT, VOID, emitted
from chip.jit.vectors import (
    I8,
    I16,
    I32,
    I64,
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


def columns8(rows: int) -> Callable[..., None]:
    """A function: 16 int32 sums for each of `rows` rows of x with a word's columns.

    f(place, x, stride, lanes, sums, sums_stride): bytes from row to row. x are int16 in the order
    of `activations.spread8`: even lanes, four times each pair, then odd ones.
    """
    block = 8  # lanes at a time
    size = 2 * block  # of int16 elements: two lanes of four columns, twice
    line, short = ir.VectorType(I8, 4 * block), ir.VectorType(I16, size)
    whole, half = ir.VectorType(I32, size), ir.VectorType(I32, size // 2)
    turn = numbers(16 * n + place for n in range(2) for place in _TURN)
    evens, odds = (numbers(range(n, size, 2)) for n in (0, 1))

    @emitted(VOID, PLACE, INT, INT, INT, INT, INT)
    def sums(_context: Untyped, builder: Untyped, args: Untyped) -> None:
        quarters, byte = places(builder, args[0]), ir.Constant(short, [8] * size)

        def dot(x: Untyped, w: Untyped) -> Untyped:
            product = builder.mul(builder.sext(x, whole), builder.sext(w, whole))
            # Adding neighbours is what makes this one multiply-add instruction.
            return builder.add(
                builder.shuffle_vector(product, product, evens),
                builder.shuffle_vector(product, product, odds),
            )

        def step(lane: Untyped, totals: list[Untyped]) -> None:
            for first in range(0, GRAIN, block):
                lanes = builder.add(lane, I64(first))
                x = [
                    plus(builder, plus(builder, args[1], args[2], row), lanes, 8)
                    for row in range(rows)
                ]
                for quarter in range(QUARTERS):
                    at = plus(builder, quarters[quarter], lanes, 4)
                    if first % 16 == 0:
                        prefetch(builder, at, 1)
                    found = load(builder, at, line)
                    turned = builder.bitcast(builder.shuffle_vector(found, found, turn), short)
                    even = builder.ashr(builder.shl(turned, byte), byte)
                    odd = builder.ashr(turned, byte)
                    for row in range(rows):
                        after = builder.add(x[row], I64(2 * size))
                        pair = builder.add(
                            dot(load(builder, x[row], short), even),
                            dot(load(builder, after, short), odd),
                        )
                        total = totals[row * QUARTERS + quarter]
                        builder.store(builder.add(builder.load(total), pair), total)

        totals = over_lanes(builder, args[3], step, (half, rows * QUARTERS))
        for row in range(rows):
            out = plus(builder, args[4], args[5], row)
            for quarter in range(QUARTERS):
                four = halved(builder, totals[row * QUARTERS + quarter], 4, builder.add)
                store(builder, builder.add(out, I64(16 * quarter)), four)

    return sums


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
    quarters = places(builder, args[0])

    def step(lane: Untyped, totals: list[Untyped]) -> None:
        offset = builder.mul(lane, I64(4))
        x = load(builder, builder.add(args[1], offset), factors)
        for quarter in range(QUARTERS):
            at = builder.add(quarters[quarter], offset)
            prefetch(builder, at, 1)
            found = load(builder, at, line)
            w = builder.bitcast(builder.shuffle_vector(found, found, turn), factors)
            for factor, place in ((x, totals[quarter]), (extra, totals[QUARTERS + quarter])):
                builder.store(builder.call(dot, [builder.load(place), factor, w]), place)

    totals = over_lanes(builder, args[2], step, (total, 2 * QUARTERS), 16)
    for quarter in range(QUARTERS):
        exact = builder.sub(totals[quarter], totals[QUARTERS + quarter])
        four = halved(builder, exact, 4, builder.add)
        store(builder, builder.add(args[3], I64(16 * quarter)), four)
