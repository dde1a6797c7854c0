"""LLVM vector code for rows of lanes on addresses: 16-bit elements in and out of SRAM words.

A word of four slices holds two 16-bit elements of each lane; the loops that pick every other one
are not vectorised by themselves, as source and target might overlap.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from chip.numerics.vectors import _I16, _I32, _I64, cgutils
from chip.numerics.word_vectors import _from, _to

STEP = 16  # lanes at a time
_PAIRS, _HALVES = ir.VectorType(_I32, STEP), ir.VectorType(_I16, STEP)


def gather16() -> Any:
    """Return a function (out, a, lanes): out[i] = a[2 * i], of 16 bits; no overlap."""

    def step(builder: Any, out: Any, word: Any, half: Any) -> None:
        pairs = builder.lshr(_from(builder, word, _PAIRS), half)
        _to(builder, out, builder.trunc(pairs, _HALVES), 2)

    return _over_words(step, into_words=False)


def scatter16() -> Any:
    """Return a function (out, a, lanes): out[2 * i] = a[i], of 16 bits; no overlap."""

    def step(builder: Any, word: Any, a: Any, half: Any) -> None:
        ours = builder.shl(builder.zext(_from(builder, a, _HALVES), _PAIRS), half)
        mask = builder.not_(builder.shl(ir.Constant(_PAIRS, [0xFFFF] * STEP), half))
        others = builder.and_(_from(builder, word, _PAIRS), mask)
        _to(builder, word, builder.or_(ours, others), 4)

    return _over_words(step, into_words=True)


def _over_words(step: Any, into_words: bool) -> Any:
    """Return a function (out, a, lanes) that does `step` on every 16 lanes.

    One of the two addresses is in a word: it becomes that of a pair of elements, and a shift.
    """

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        place = args[0] if into_words else args[1]
        odd = builder.trunc(builder.mul(builder.and_(place, _I64(2)), _I64(8)), _I32)
        one = builder.insert_element(ir.Constant(_PAIRS, ir.Undefined), odd, _I32(0))
        half = builder.shuffle_vector(one, one, ir.Constant(_PAIRS, [0] * STEP))
        pairs = builder.and_(place, _I64(-4))
        rows = (pairs, args[1]) if into_words else (args[0], pairs)
        sizes = (4, 2) if into_words else (2, 4)
        lanes = cgutils.for_range_slice(builder, _I64(0), args[2], _I64(STEP), inc=True)
        with lanes as (lane, _):
            here = (
                builder.add(row, builder.mul(lane, _I64(size)))
                for row, size in zip(rows, sizes, strict=True)
            )
            step(builder, *here, half)
        return context.get_dummy_value()

    def typed(_typing: Any, out: Any, a: Any, lanes: Any) -> Any:
        return types.void(*(types.int64,) * 3), codegen

    return intrinsic(typed)
