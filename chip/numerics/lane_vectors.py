"""LLVM vector code for rows of lanes on addresses: elements in and out of SRAM words, roundings.

A word of four slices holds two 16-bit or four 8-bit elements of each lane. Loops that pick some of
them are not vectorised by themselves, as source and target might overlap.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from chip.numerics.vectors import _FLOAT, _I16, _I32, _I64, cgutils
from chip.numerics.word_vectors import _from, _list, _to

STEP = 16  # lanes at a time
_WORDS = ir.VectorType(_I32, STEP)
_NAN16 = 0x7E00


def gather(bits: int) -> Any:
    """Return a function (out, a, lanes): elements of `bits` side by side from those of words."""

    def step(builder: Any, out: Any, word: Any, shift: Any) -> None:
        found = builder.lshr(_from(builder, word, _WORDS), shift)
        elements = builder.trunc(found, ir.VectorType(ir.IntType(bits), STEP))
        _to(builder, out, elements, 1)

    return _over_words(step, bits, into_words=False)


def scatter(bits: int) -> Any:
    """Return a function (out, a, lanes): elements of `bits` side by side into those of words."""
    elements, every = ir.VectorType(ir.IntType(bits), STEP), (1 << bits) - 1

    def step(builder: Any, word: Any, a: Any, shift: Any) -> None:
        ours = builder.shl(builder.zext(_from(builder, a, elements), _WORDS), shift)
        mask = builder.not_(builder.shl(ir.Constant(_WORDS, [every] * STEP), shift))
        others = builder.and_(_from(builder, word, _WORDS), mask)
        _to(builder, word, builder.or_(ours, others), 4)

    return _over_words(step, bits, into_words=True)


def _over_words(step: Any, bits: int, into_words: bool) -> Any:
    """Return a function (out, a, lanes) that does `step` on every 16 lanes.

    One of the two addresses is in a word: it becomes that of the word, and a shift.
    """

    def start(builder: Any, out: Any, a: Any) -> tuple[Any, Any, Any]:
        place = out if into_words else a
        inside = builder.trunc(builder.mul(builder.and_(place, _I64(3)), _I64(8)), _I32)
        one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), inside, _I32(0))
        shift = builder.shuffle_vector(one, one, _list([0] * STEP))
        word = builder.and_(place, _I64(-4))
        return (word, a, shift) if into_words else (out, word, shift)

    sizes = (32, bits) if into_words else (bits, 32)
    return _over_lanes(step, *sizes, start)


def half_bits() -> Any:
    """Return a function (out, a, lanes): fp32 rounded to fp16 by hardware; one NaN for all."""

    def step(builder: Any, out: Any, a: Any, _more: Any) -> None:
        x = _from(builder, a, ir.VectorType(_FLOAT, STEP))
        halves = builder.fptrunc(x, ir.VectorType(ir.HalfType(), STEP))
        bits = builder.bitcast(halves, ir.VectorType(_I16, STEP))
        ordered = builder.fcmp_ordered("==", x, x)
        nan = ir.Constant(bits.type, [_NAN16] * STEP)
        _to(builder, out, builder.select(ordered, bits, nan), 2)

    return _over_lanes(step, 16, 32)


def occupied() -> Any:
    """Return a function (out, a, lanes): a bit for each fp16 lane, set where it is not zero."""

    def step(builder: Any, out: Any, a: Any, _more: Any) -> None:
        kind = ir.VectorType(_I16, STEP)
        size = builder.and_(_from(builder, a, kind), ir.Constant(kind, [0x7FFF] * STEP))
        seen = builder.icmp_unsigned("!=", size, ir.Constant(kind, [0] * STEP))
        _to(builder, out, builder.bitcast(seen, _I16), 2)

    return _over_lanes(step, 1, 16)


def _over_lanes(step: Any, out_bits: int, a_bits: int, start: Any = None) -> Any:
    """Return a function (out, a, lanes) that does `step` on every 16 lanes, after `start`."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        out, a, more = start(builder, *args[:2]) if start else (*args[:2], None)
        loop = cgutils.for_range_slice(builder, _I64(0), args[2], _I64(STEP), inc=True)
        with loop as (lane, _):
            there, here = (
                builder.add(first, builder.udiv(builder.mul(lane, _I64(bits)), _I64(8)))
                for first, bits in ((out, out_bits), (a, a_bits))
            )
            step(builder, there, here, more)
        return context.get_dummy_value()

    def typed(_typing: Any, out: Any, a: Any, lanes: Any) -> Any:
        return types.void(*(types.int64,) * 3), codegen

    return intrinsic(typed)
