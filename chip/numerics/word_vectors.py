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
    _CONTRACT,
    _DOUBLE,
    _FEATURES,
    _FLOAT,
    _I8,
    _I16,
    _I32,
    _I64,
    _WIDTH,
    _half_to_float,
    _indices,
    _prefetch,
    cgutils,
)

PARTS = 4  # arrays of a word
DOT_OF_BYTES = "+avx512vnni" in _FEATURES  # whether products of four bytes are one instruction
_PREFETCH_BYTES = 2560  # two words ahead
_TURN = [4 * lane + column for column in range(4) for lane in range(4)]  # 4 lanes x 4 columns


def columns16(rows: int, wide: bool) -> Any:
    """Return a function: 8 float64 sums for each of `rows` rows of x with a word's fp16 columns.

    f(w0, w1, w2, w3, x, stride, lanes, sums): addresses of the four parts, of x (float64, each lane
    twice), bytes from row to row of x, lanes, address of the sums. `wide` columns are float64.
    Without rows, each column is multiplied by itself.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_DOUBLE, _WIDTH)
        count = max(rows, 1)
        chains = 1 if rows > 1 else 2

        def step(lane: Any, totals: list[Any]) -> None:
            for first in range(0, GRAIN, _WIDTH):
                for part in range(PARTS):
                    pieces = _weights16(builder, args[part], lane, first, wide)
                    for row in range(count):
                        for half, piece in enumerate(pieces):
                            factor = piece
                            if rows:
                                at = builder.add(args[4], builder.mul(args[5], _I64(row)))
                                offset = builder.mul(lane, _I64(16))
                                at = builder.add(builder.add(at, offset), _I64(16 * first))
                                at = builder.add(at, _I64(8 * _WIDTH * half))
                                factor = _from(builder, at, vector)
                            total = totals[(row * PARTS + part) * chains + half % chains]
                            product = builder.fmul(piece, factor, flags=_CONTRACT)
                            held = builder.load(total)
                            builder.store(builder.fadd(held, product, flags=_CONTRACT), total)

        totals = _loop(builder, vector, count * PARTS * chains, args[6], GRAIN, step)
        for number in range(count * PARTS):
            mine = totals[number * chains : (number + 1) * chains]
            total = mine[0] if chains == 1 else builder.fadd(mine[0], mine[1])
            pair = _halved(builder, total, 2, builder.fadd)
            at = builder.add(args[7], _I64(16 * number))
            _to(builder, at, pair, 8)
        return _context.get_dummy_value()

    def typed(
        _typing: Any, w0: Any, w1: Any, w2: Any, w3: Any, x: Any, stride: Any, lanes: Any, sums: Any
    ) -> Any:
        return types.void(*(types.int64,) * 8), codegen

    return intrinsic(typed)


def _weights16(builder: Any, part: Any, lane: Any, first: int, wide: bool) -> list[Any]:
    """Two float64 vectors: the pairs of columns of _WIDTH lanes."""
    vector = ir.VectorType(_DOUBLE, _WIDTH)
    if wide:
        at = builder.add(builder.add(part, builder.mul(lane, _I64(16))), _I64(16 * first))
        second = builder.add(at, _I64(8 * _WIDTH))
        return [_from(builder, at, vector), _from(builder, second, vector)]
    at = builder.add(builder.add(part, builder.mul(lane, _I64(4))), _I64(4 * first))
    if first == 0:
        ahead = builder.add(at, _I64(_PREFETCH_BYTES))
        for line in (0, 64):
            _prefetch(builder, _pointer(builder, builder.add(ahead, _I64(line)), _I8))
    halves = _from(builder, at, ir.VectorType(_I16, 2 * _WIDTH))
    floats = _half_to_float(builder, halves)
    parts = (range(_WIDTH), range(_WIDTH, 2 * _WIDTH))
    return [
        builder.fpext(builder.shuffle_vector(floats, floats, _indices(r)), vector) for r in parts
    ]


def diagonal16(rows: int) -> Any:
    """Return a function: fp32 products of eight fp16 columns with rows of x that have one lane.

    f(w0, w1, w2, w3, x, x_step, out, out_step): addresses of the first row's lane in the four parts
    and in x as `columns16` reads it, whose next rows have the lanes that follow; where the first
    row's products go; bytes from row to row. Products are exact; zeros are positive, as sums are.
    """
    count = 2 * rows  # elements of a part: two columns of each lane
    floats, pairs = ir.VectorType(_FLOAT, count), ir.VectorType(_I64, rows)

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        x = ir.Constant(ir.VectorType(_FLOAT, rows), ir.Undefined)
        for row in range(rows):
            at = builder.add(args[4], builder.mul(args[5], _I64(row)))
            lane = builder.fptrunc(_from(builder, at, _DOUBLE), _FLOAT)
            x = builder.insert_element(x, lane, _I32(row))
        twice = builder.shuffle_vector(x, x, _list(n // 2 for n in range(count)))
        parts = []
        for part in args[:PARTS]:
            weights = _half_to_float(builder, _from(builder, part, ir.VectorType(_I16, count)))
            product = builder.fmul(weights, twice)
            total = builder.fadd(product, ir.Constant(floats, [0.0] * count))
            parts.append(builder.bitcast(total, pairs))
        for row in range(rows):
            low, high = (
                builder.shuffle_vector(a, b, _list((row, rows + row)))
                for a, b in (parts[:2], parts[2:])
            )
            at = builder.add(args[6], builder.mul(args[7], _I64(row)))
            _to(builder, at, builder.shuffle_vector(low, high, _list(range(PARTS))), 4)
        return _context.get_dummy_value()

    def typed(
        _typing: Any, w0: Any, w1: Any, w2: Any, w3: Any, x: Any, x_step: Any, out: Any, step: Any
    ) -> Any:
        return types.void(*(types.int64,) * 8), codegen

    return intrinsic(typed)


def widen16_word() -> Any:
    """Return a function (w, lanes, target): fp16 columns of one part as float64."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        def step(lane: Any, _totals: list[Any]) -> None:
            for first in range(0, GRAIN, _WIDTH):
                pieces = _weights16(builder, args[0], lane, first, False)
                at = builder.add(args[2], builder.mul(lane, _I64(16)))
                for half, piece in enumerate(pieces):
                    offset = _I64(16 * first + 8 * _WIDTH * half)
                    _to(builder, builder.add(at, offset), piece, 8)

        _loop(builder, None, 0, args[1], GRAIN, step)
        return _context.get_dummy_value()

    def typed(_typing: Any, w: Any, lanes: Any, target: Any) -> Any:
        return types.void(*(types.int64,) * 3), codegen

    return intrinsic(typed)


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
