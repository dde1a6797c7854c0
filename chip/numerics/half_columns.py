"""LLVM vector code for the fp16 columns of an SRAM word, as numba intrinsics on addresses.

See `chip.numerics.word_vectors` for how they lie in it: lane after lane, two columns in each part.
"""

from itertools import product
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from chip.numerics.backend import GRAIN
from chip.numerics.vectors import (
    _CONTRACT,
    _DOUBLE,
    _FLOAT,
    _I8,
    _I16,
    _I32,
    _I64,
    FLOAT64_LANES,
    _half_to_float,
    _prefetch,
)
from chip.numerics.word_vectors import (
    _PREFETCH_BYTES,
    PARTS,
    _from,
    _halved,
    _list,
    _loop,
    _pointer,
    _to,
)

SHIFTED = FLOAT64_LANES == 8  # how float64 is made: see _doubles
_SCALE = 2.0 ** (1023 - 127)
_KEPT_BITS = -(1 << 63) | (1 << 60) - (1 << 29)  # sign, exponent and mantissa of shifted fp32 bits


def columns16(rows: int, wide: bool) -> Any:
    """Return a function: 8 float64 sums for each of `rows` rows of x with a word's fp16 columns.

    f(w0, w1, w2, w3, x, stride, lanes, sums): addresses of the four parts, of x (float64), bytes
    from row to row of x, lanes, address of the sums. `wide` columns are `widen16_word`'s.
    """
    chains = 2 if SHIFTED or rows == 1 else 1  # of sums: without SHIFTED, one is enough

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_DOUBLE, FLOAT64_LANES)

        def step(lane: Any, totals: list[Any]) -> None:
            for first in range(0, GRAIN, FLOAT64_LANES):
                x = builder.add(args[4], builder.mul(builder.add(lane, _I64(first)), _I64(8)))
                places = [builder.add(x, builder.mul(args[5], _I64(row))) for row in range(rows)]
                factors = [_factors(builder, _from(builder, place, vector)) for place in places]
                for part in range(PARTS):
                    pair = _pair(builder, args[part], lane, first, wide)
                    for row, half in product(range(rows), range(2)):
                        total = totals[(row * PARTS + part) * chains + half % chains]
                        one = builder.fmul(pair[half], factors[row][half], flags=_CONTRACT)
                        held = builder.load(total)
                        builder.store(builder.fadd(held, one, flags=_CONTRACT), total)

        totals = _loop(builder, vector, rows * PARTS * chains, args[6], GRAIN, step)
        for number in range(rows * PARTS):
            pair = _sums_of_pair(builder, totals[number * chains : (number + 1) * chains])
            _to(builder, builder.add(args[7], _I64(16 * number)), pair, 8)
        return _context.get_dummy_value()

    def typed(
        _typing: Any, w0: Any, w1: Any, w2: Any, w3: Any, x: Any, stride: Any, lanes: Any, sums: Any
    ) -> Any:
        return types.void(*(types.int64,) * 8), codegen

    return intrinsic(typed)


def _pair(builder: Any, part: Any, lane: Any, first: int, wide: bool) -> list[Any]:
    """Two float64 vectors: both columns of a part in as many lanes as a vector has."""
    vector = ir.VectorType(_DOUBLE, FLOAT64_LANES)
    if wide:
        at = builder.add(part, builder.add(builder.mul(lane, _I64(16)), _I64(16 * first)))
        return [
            _from(builder, builder.add(at, _I64(8 * FLOAT64_LANES * half)), vector)
            for half in range(2)
        ]
    at = builder.add(part, builder.add(builder.mul(lane, _I64(4)), _I64(4 * first)))
    if first == 0:
        ahead = builder.add(at, _I64(_PREFETCH_BYTES))
        for line in (0, 64):
            _prefetch(builder, _pointer(builder, builder.add(ahead, _I64(line)), _I8))
    halves = _from(builder, at, ir.VectorType(_I16, 2 * FLOAT64_LANES))
    return _doubles(builder, _half_to_float(builder, halves))


def _doubles(builder: Any, floats: Any) -> list[Any]:
    """An fp32 vector of lanes with two columns each as two float64 vectors.

    Where 64 bits have arithmetic shifts, a column each, divided by `_SCALE`: fp32 bits at the place
    of float64's are the number times 2**-896, exactly, and quicker there than a conversion.
    Elsewhere half of the lanes each.
    """
    vector = ir.VectorType(_DOUBLE, FLOAT64_LANES)
    if not SHIFTED:
        return [
            builder.fpext(builder.shuffle_vector(floats, floats, half), vector)
            for half in map(_list, _halves(2 * FLOAT64_LANES))
        ]
    bits = ir.VectorType(_I64, FLOAT64_LANES)
    left, right, kept = (ir.Constant(bits, [n] * FLOAT64_LANES) for n in (32, 3, _KEPT_BITS))
    odd = builder.bitcast(floats, bits)
    shifted = [builder.ashr(one, right) for one in (builder.shl(odd, left), odd)]
    return [builder.bitcast(builder.and_(one, kept), vector) for one in shifted]


def _factors(builder: Any, x: Any) -> list[Any]:
    """The x that meet the two vectors of `_doubles`."""
    if SHIFTED:
        return [x, x]
    twice = [n // 2 for n in range(2 * FLOAT64_LANES)]
    return [
        builder.shuffle_vector(x, x, _list(twice[half.start : half.stop]))
        for half in _halves(2 * FLOAT64_LANES)
    ]


def _sums_of_pair(builder: Any, totals: list[Any]) -> Any:
    """The sums of both columns, of what has been made with the two vectors of `_doubles`."""
    first, second = totals[0], totals[-1]
    if not SHIFTED:
        total = first if len(totals) == 1 else builder.fadd(first, second)
        return _halved(builder, total, 2, builder.fadd)
    turn = [n + column for n in range(FLOAT64_LANES) for column in (0, FLOAT64_LANES)]
    low, high = (
        builder.shuffle_vector(first, second, _list(turn[half.start : half.stop]))
        for half in _halves(2 * FLOAT64_LANES)
    )
    pair = _halved(builder, builder.fadd(low, high), 2, builder.fadd)
    return builder.fmul(pair, ir.Constant(pair.type, [_SCALE] * 2))


def _halves(count: int) -> tuple[range, range]:
    return range(count // 2), range(count // 2, count)


def squares16() -> Any:
    """Return a function: fp32 sums of the squares of a word's fp16 columns, as float64.

    f(w0, w1, w2, w3, lanes, sums), addresses as for `columns16`.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        size = 16

        def step(lane: Any, totals: list[Any]) -> None:
            for first in range(0, 4 * GRAIN, 2 * size):
                offset = builder.add(builder.mul(lane, _I64(4)), _I64(first))
                for part, total in enumerate(totals):
                    at = builder.add(args[part], offset)
                    halves = _from(builder, at, ir.VectorType(_I16, size))
                    floats = _half_to_float(builder, halves)
                    product = builder.fmul(floats, floats, flags=_CONTRACT)
                    held = builder.load(total)
                    builder.store(builder.fadd(held, product, flags=_CONTRACT), total)

        totals = _loop(builder, ir.VectorType(_FLOAT, size), PARTS, args[4], GRAIN, step)
        for part, total in enumerate(totals):
            pair = _halved(builder, total, 2, builder.fadd)
            wide = builder.fpext(pair, ir.VectorType(_DOUBLE, 2))
            _to(builder, builder.add(args[5], _I64(16 * part)), wide, 8)
        return _context.get_dummy_value()

    def typed(_typing: Any, w0: Any, w1: Any, w2: Any, w3: Any, lanes: Any, sums: Any) -> Any:
        return types.void(*(types.int64,) * 6), codegen

    return intrinsic(typed)


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
    """Return a function (w, lanes, target): fp16 columns of one part as float64.

    They are in the order of `_doubles`.
    """

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        def step(lane: Any, _totals: list[Any]) -> None:
            for first in range(0, GRAIN, FLOAT64_LANES):
                at = builder.add(args[2], builder.mul(lane, _I64(16)))
                for half, piece in enumerate(_pair(builder, args[0], lane, first, False)):
                    offset = _I64(16 * first + 8 * FLOAT64_LANES * half)
                    _to(builder, builder.add(at, offset), piece, 8)

        _loop(builder, None, 0, args[1], GRAIN, step)
        return _context.get_dummy_value()

    def typed(_typing: Any, w: Any, lanes: Any, target: Any) -> Any:
        return types.void(*(types.int64,) * 3), codegen

    return intrinsic(typed)
