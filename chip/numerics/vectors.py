"""LLVM vector code for the inner loops of `chip.numerics.passes`, as numba intrinsics.

Written out because the automatic vectoriser takes the vector length from the widest type, the
float64 sum, and converts four numbers at a time. LLVM splits these vectors to what the host has.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as _cgutils
from numba.core import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from chip.numerics.backend import GRAIN

cgutils: Any = _cgutils  # untyped
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[-1]
HALF_IN_HARDWARE = "+f16c" in _FEATURES or "+fullfp16" in _FEATURES
FLOAT64_LANES = 8 if "+avx512f" in _FEATURES else 4  # float64 numbers in a vector
_CHAINS = 2  # vectors of partial sums per row: as many additions in flight
_AHEAD = 1536  # prefetch distance in elements, a few rows
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_CONTRACT = ("contract",)  # a fused multiply-add is welcome: the product is exact anyway


def widen16(rows: int) -> Any:
    """Return a function: convert fp16 bits.flat[start + r * stride:] to floats[r * lanes:]."""

    def widen(_typing: Any, bits: Any, start: Any, stride: Any, floats: Any, lanes: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source = builder.gep(_data(context, builder, signature, args, 0), [args[1]])
            target = _data(context, builder, signature, args, 3)

            def step(offset: Any, _totals: Any) -> None:
                for r in range(rows):
                    here = builder.gep(source, [_row(builder, offset, r, args[2])])
                    there = builder.gep(target, [_row(builder, offset, r, args[4])])
                    _prefetch(builder, builder.gep(here, [_I64(_AHEAD)]))
                    for i in range(0, GRAIN, 2 * FLOAT64_LANES):
                        halves = _load(builder, here, i, _I16, 2 * FLOAT64_LANES)
                        place = _at(builder, there, i, _FLOAT, 2 * FLOAT64_LANES)
                        builder.store(_half_to_float(builder, halves), place, align=4)

            _accumulate(builder, None, 0, args[4], step)
            return context.get_dummy_value()

        return types.void(bits, types.intp, types.intp, floats, types.intp), codegen

    return intrinsic(widen)


def dots16(rows: int) -> Any:
    """Return a function: sums[r] = float64 dot of row r of a small buffer with x.flat[start:]."""

    def dots(_typing: Any, buffer: Any, x: Any, start: Any, lanes: Any, sums: Any) -> Any:
        element = _FLOAT if buffer.dtype == types.float32 else _DOUBLE

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weights = _data(context, builder, signature, args, 0)
            activations = builder.gep(_data(context, builder, signature, args, 1), [args[2]])
            wide = ir.VectorType(_DOUBLE, FLOAT64_LANES)

            def step(offset: Any, totals: list[Any]) -> None:
                x_here = builder.gep(activations, [offset])
                here = [
                    builder.gep(weights, [_row(builder, offset, r, args[3])]) for r in range(rows)
                ]
                for i in range(0, GRAIN, FLOAT64_LANES):
                    x_part = _load(builder, x_here, i, _DOUBLE, FLOAT64_LANES)
                    for r in range(rows):
                        part = _load(builder, here[r], i, element, FLOAT64_LANES)
                        part = builder.fpext(part, wide) if element is _FLOAT else part
                        product = builder.fmul(part, x_part, flags=_CONTRACT)
                        total = totals[r + rows * (i // FLOAT64_LANES % _CHAINS)]
                        sum_ = builder.fadd(builder.load(total), product, flags=_CONTRACT)
                        builder.store(sum_, total)

            totals = _accumulate(builder, wide, rows * _CHAINS, args[3], step)
            sums_ = [builder.fadd(totals[r], totals[r + rows]) for r in range(rows)]
            _store_sums(builder, _data(context, builder, signature, args, 4), sums_, builder.fadd)
            return context.get_dummy_value()

        return types.void(buffer, x, types.intp, types.intp, sums), codegen

    return intrinsic(dots)


def dots8(rows: int) -> Any:
    """Return a function: sums[r] = int32 dot of w.flat[first + r * stride:] with x.flat[start:]."""

    def dots(
        _typing: Any, w: Any, first: Any, stride: Any, x: Any, start: Any, lanes: Any, sums: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weights = builder.gep(_data(context, builder, signature, args, 0), [args[1]])
            activations = builder.gep(_data(context, builder, signature, args, 3), [args[4]])
            wide = ir.VectorType(_I32, GRAIN)
            evens, odds = (_indices(range(first, GRAIN, 2)) for first in (0, 1))

            def step(offset: Any, totals: list[Any]) -> None:
                x_here = builder.gep(activations, [offset])
                x_part = builder.sext(_load(builder, x_here, 0, _I16, GRAIN), wide)
                for r, total in enumerate(totals):
                    here = builder.gep(weights, [_row(builder, offset, r, args[2])])
                    _prefetch(builder, builder.gep(here, [_I64(2 * _AHEAD)]))
                    part = builder.sext(_load(builder, here, 0, _I8, GRAIN), wide)
                    product = builder.mul(part, x_part)
                    # Adding neighbours is what makes this one multiply-add instruction.
                    pairs = builder.add(
                        builder.shuffle_vector(product, product, evens),
                        builder.shuffle_vector(product, product, odds),
                    )
                    builder.store(builder.add(builder.load(total), pairs), total)

            totals = _accumulate(builder, ir.VectorType(_I32, GRAIN // 2), rows, args[5], step)
            _store_sums(builder, _data(context, builder, signature, args, 6), totals, builder.add)
            return context.get_dummy_value()

        ints = (types.intp,) * 2
        return types.void(w, *ints, x, *ints, sums), codegen

    return intrinsic(dots)


def _accumulate(builder: Any, kind: Any, count: int, lanes: Any, step: Any) -> list[Any]:
    """Run step(offset, totals) on every grain of the lanes; return `count` vectors of totals."""
    totals = [
        cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * kind.count))
        for _ in range(count)
    ]
    with cgutils.for_range_slice(builder, _I64(0), lanes, _I64(GRAIN), inc=True) as (i, _):
        step(i, totals)
    return [builder.load(total) for total in totals]


def _row(builder: Any, offset: Any, row: int, stride: Any) -> Any:
    return builder.add(offset, builder.mul(stride, _I64(row)))


def _store_sums(builder: Any, target: Any, vectors: list[Any], add: Any) -> None:
    """Store the sum of the elements of each vector, added by halves."""
    for r, vector in enumerate(vectors):
        count = vector.type.count
        while count > 1:
            count //= 2
            low, high = (
                builder.shuffle_vector(vector, vector, _indices(range(first, first + count)))
                for first in (0, count)
            )
            vector = add(low, high)
        builder.store(builder.extract_element(vector, _I32(0)), builder.gep(target, [_I64(r)]))


def _half_to_float(builder: Any, bits: Any) -> Any:
    """Convert fp16 bits to fp32; without hardware for it, by exact integer tricks.

    The tricks make finite numbers of inf and NaN. The callers find those by their bits.
    """
    count = bits.type.count
    floats, wide = ir.VectorType(_FLOAT, count), ir.VectorType(_I32, count)
    if HALF_IN_HARDWARE:
        return builder.fpext(builder.bitcast(bits, ir.VectorType(ir.HalfType(), count)), floats)
    shifted = builder.shl(builder.sext(bits, wide), ir.Constant(wide, [13] * count))
    kept = builder.and_(shifted, ir.Constant(wide, [0x8FFFE000] * count))
    return builder.fmul(builder.bitcast(kept, floats), ir.Constant(floats, [2.0**112] * count))


def _prefetch(builder: Any, pointer: Any) -> None:
    address = builder.bitcast(pointer, _I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [address.type, _I32, _I32, _I32])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
    builder.call(prefetch, [address, _I32(0), _I32(3), _I32(1)])  # to read, keep, data


def _data(context: Any, builder: Any, signature: Any, args: Any, index: int) -> Any:
    return context.make_array(signature.args[index])(context, builder, args[index]).data


def _at(builder: Any, pointer: Any, offset: int, element: Any, count: int) -> Any:
    kind = ir.VectorType(element, count).as_pointer()
    return builder.bitcast(builder.gep(pointer, [_I64(offset)]), kind)


def _load(builder: Any, pointer: Any, offset: int, element: Any, count: int) -> Any:
    return builder.load(_at(builder, pointer, offset, element, count), align=1)


def _indices(numbers: range) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(numbers)), list(numbers))
