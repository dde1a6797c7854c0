"""LLVM vector code for the columns of an SRAM word, as numba intrinsics on addresses.

A word of a weight group lies in four arrays, one per four slices: lane after lane, four bytes of
each. These are two fp16 columns or four int8 columns, element by element in turn. They are read
where they rest; what is brought into this order is x, once for all words.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import llvm_version_info  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from chip.numerics.backend import GRAIN
from chip.numerics.vectors import (
    _FEATURES,
    _I8,
    _I16,
    _I32,
    _I64,
    _prefetch,
    cgutils,
)

PARTS = 4  # arrays of a word
DOT_OF_BYTES = "+avx512vnni" in _FEATURES  # whether products of four bytes are one instruction
_PREFETCH_BYTES = 2560  # two words ahead
_TURN = [4 * lane + column for column in range(4) for lane in range(4)]  # 4 lanes x 4 columns


def widen8_word() -> Any:
    """Return a function (w, lanes, target): int8 columns of one part as int16, four lanes each.

    In the target are lanes 0 to 3 of columns 0, 1, 2, 3, then lanes 4 to 7, and so on.
    """
    order = [16 * block + place for block in range(GRAIN // 4) for place in _TURN]

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        def step(lane: Any, _totals: list[Any]) -> None:
            at = builder.add(args[0], builder.mul(lane, _I64(4)))
            ahead = builder.add(at, _I64(_PREFETCH_BYTES))
            for line in (0, 64):
                _prefetch(builder, _pointer(builder, builder.add(ahead, _I64(line)), _I8))
            found = _from(builder, at, ir.VectorType(_I8, 4 * GRAIN))
            turned = builder.shuffle_vector(found, found, _list(order))
            values = builder.sext(turned, ir.VectorType(_I16, 4 * GRAIN))
            _to(builder, builder.add(args[2], builder.mul(lane, _I64(8))), values, 2)

        _loop(builder, None, 0, args[1], GRAIN, step)
        return _context.get_dummy_value()

    def typed(_typing: Any, w: Any, lanes: Any, target: Any) -> Any:
        return types.void(*(types.int64,) * 3), codegen

    return intrinsic(typed)


def columns8() -> Any:
    """Return a function: 16 int32 sums of a row of x with a word's int8 columns, widened.

    f(w, x, lanes, sums): w as `widen8_word` leaves them, part after part; x in the same order,
    every lane for four columns.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        size = 32  # int16 elements at a time: eight lanes of four columns
        whole, half = ir.VectorType(_I32, size), ir.VectorType(_I32, size // 2)
        part_bytes = builder.mul(args[2], _I64(8))

        def step(lane: Any, totals: list[Any]) -> None:
            offset = builder.mul(lane, _I64(8))
            for first in (0, 2 * size):
                here = builder.add(offset, _I64(first))
                x_at = builder.add(args[1], here)
                x = builder.sext(_from(builder, x_at, ir.VectorType(_I16, size)), whole)
                for part in range(PARTS):
                    at = builder.add(args[0], builder.mul(part_bytes, _I64(part)))
                    found = _from(builder, builder.add(at, here), ir.VectorType(_I16, size))
                    product = builder.mul(builder.sext(found, whole), x)
                    evens, odds = (_list(range(n, size, 2)) for n in (0, 1))
                    # Adding neighbours is what makes this one multiply-add instruction.
                    pairs = builder.add(
                        builder.shuffle_vector(product, product, evens),
                        builder.shuffle_vector(product, product, odds),
                    )
                    total = totals[2 * part + (first > 0)]
                    builder.store(builder.add(builder.load(total), pairs), total)

        totals = _loop(builder, half, 2 * PARTS, args[2], 16, step)
        for part in range(PARTS):
            both = builder.add(totals[2 * part], totals[2 * part + 1])
            eight = _halved(builder, both, 8, builder.add)
            low, high = (
                builder.shuffle_vector(eight, eight, _list(range(n, 8, 2))) for n in (0, 1)
            )
            at = builder.add(args[3], _I64(16 * part))
            _to(builder, at, builder.add(low, high), 4)
        return _context.get_dummy_value()

    def typed(_typing: Any, w: Any, x: Any, lanes: Any, sums: Any) -> Any:
        return types.void(*(types.int64,) * 4), codegen

    return intrinsic(typed)


def columns8_bytes() -> Any:
    """Return a function: 16 int32 sums of a row of x with a word's int8 columns, where they rest.

    f(w0, w1, w2, w3, x, lanes, sums): x as bytes, 128 more than it is, four lanes at a time, each
    four times; what that is too much is summed as well, and taken off. Needs `DOT_OF_BYTES`.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        total, line = ir.VectorType(_I32, 16), ir.VectorType(_I8, 64)
        factors = line if llvm_version_info[0] >= 22 else total  # as LLVM declares it
        kind = ir.FunctionType(total, [total, factors, factors])
        name = "llvm.x86.avx512.vpdpbusd.512"
        dot = cgutils.get_or_insert_function(builder.module, kind, name)
        turn = _list(16 * block + place for block in range(4) for place in _TURN)
        extra = builder.bitcast(ir.Constant(line, [-128] * 64), factors)

        def step(lane: Any, totals: list[Any]) -> None:
            offset = builder.mul(lane, _I64(4))
            x = _from(builder, builder.add(args[4], offset), factors)
            for part in range(PARTS):
                at = builder.add(args[part], offset)
                _prefetch(builder, _pointer(builder, builder.add(at, _I64(_PREFETCH_BYTES)), _I8))
                found = _from(builder, at, line)
                w = builder.bitcast(builder.shuffle_vector(found, found, turn), factors)
                for factor, place in ((x, totals[part]), (extra, totals[PARTS + part])):
                    builder.store(builder.call(dot, [builder.load(place), factor, w]), place)

        totals = _loop(builder, total, 2 * PARTS, args[5], 16, step)
        for part in range(PARTS):
            exact = builder.sub(totals[part], totals[PARTS + part])
            four = _halved(builder, exact, 4, builder.add)
            _to(builder, builder.add(args[6], _I64(16 * part)), four, 4)
        return _context.get_dummy_value()

    def typed(
        _typing: Any, w0: Any, w1: Any, w2: Any, w3: Any, x: Any, lanes: Any, sums: Any
    ) -> Any:
        return types.void(*(types.int64,) * 7), codegen

    return intrinsic(typed)


def _loop(builder: Any, kind: Any, count: int, lanes: Any, grain: int, step: Any) -> list[Any]:
    totals = [
        cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * kind.count))
        for _ in range(count)
    ]
    with cgutils.for_range_slice(builder, _I64(0), lanes, _I64(grain), inc=True) as (lane, _):
        step(lane, totals)
    return [builder.load(total) for total in totals]


def _halved(builder: Any, vector: Any, least: int, add: Any) -> Any:
    """Add the halves of a vector until it has `least` elements."""
    count = vector.type.count
    while count > least:
        count //= 2
        low, high = (
            builder.shuffle_vector(vector, vector, _list(range(first, first + count)))
            for first in (0, count)
        )
        vector = add(low, high)
    return vector


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _from(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(_pointer(builder, address, kind), align=1)


def _to(builder: Any, address: Any, value: Any, align: int) -> None:
    builder.store(value, _pointer(builder, address, value.type), align=align)


def _list(numbers: Any) -> Any:
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(_I32, len(numbers)), numbers)
