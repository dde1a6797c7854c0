"""One row of lanes at a time: copies, lane maps, and the point-wise instructions of `chip.isa`.

A point-wise instruction is compiled when a program first uses it, from the text of its definition.
"""

import dis
import functools
from types import FunctionType
from typing import Any

import numpy as np

from chip.isa import Op
from chip.jit.cache import address, kernel
from chip.jit.memory import (
    INT,
    array_of,
    bytes_at,
    halves_at,
    inner,
    integers_at,
    words_at,
)
from chip.numerics import elementwise
from chip.numerics.exact import NAN

_NUMBERS: dict[str, type[np.generic]] = {
    "u8": np.uint8,
    "i8": np.int8,
    "u16": np.uint16,
    "i16": np.int16,
    "i32": np.int32,
    "f32": np.float32,
    "f16": np.uint16,
}
_HALF, _HALF_BITS = np.float32(0.5), np.uint32(0x3F000000)
_FP16_OVERFLOW, _FP16_NORMAL = np.uint32(0x477FF000), np.uint32(0x38800000)


@kernel(INT(*(INT,) * 6))
def copy(out: int, to: int, a: int, step: int, size: int, lanes: int) -> int:
    """Copy elements of `size` bytes that are `step` elements apart to such `to` elements apart.

    Elements out of SRAM words, which have 4 bytes a lane, and into them are shifted: then the
    loops are vectors.
    """
    if to == 1 and step == 1:
        source = bytes_at(a, size * lanes)
        target = bytes_at(out, size * lanes)
        for i in range(size * lanes):
            target[i] = source[i]
    elif to == 1 and size * step == 4:
        words = words_at(a & -4, lanes)
        shift = np.uint32(8 * (a & 3))
        if size == 2:
            pairs = halves_at(out, lanes)
            for i in range(lanes):
                pairs[i] = np.uint16(words[i] >> shift)
        else:
            small = bytes_at(out, lanes)
            for i in range(lanes):
                small[i] = np.uint8(words[i] >> shift)
    elif step == 1 and size * to == 4:
        words, shift = words_at(out & -4, lanes), np.uint32(8 * (out & 3))
        kept = np.uint32(~((np.uint32(0xFFFF) if size == 2 else np.uint32(0xFF)) << shift))
        if size == 2:
            pairs = halves_at(a, lanes)
            for i in range(lanes):
                words[i] = np.uint32(words[i] & kept) | np.uint32(np.uint32(pairs[i]) << shift)
        else:
            small = bytes_at(a, lanes)
            for i in range(lanes):
                words[i] = np.uint32(words[i] & kept) | np.uint32(np.uint32(small[i]) << shift)
    else:
        source = bytes_at(a, lanes * step * size)
        target = bytes_at(out, lanes * to * size)
        for i in range(lanes):
            for byte in range(size):
                target[i * to * size + byte] = source[i * step * size + byte]
    return 0


@inner
def move_lanes(out: int, a: int, size: int, table: int, runs: int, lanes: int) -> None:
    """out[i] = a[lane i of the table], zero where that is negative; see `layout.Record`."""
    chosen = integers_at(table, lanes + 3 * runs)
    for run in range(runs):
        there, here = out + size * chosen[3 * run], a + size * chosen[3 * run + 1]
        copy(there, 1, here, 1, size, chosen[3 * run + 2])
    if runs:
        return
    if size == 4:
        x4, z4 = words_at(a, lanes), words_at(out, lanes)
        for i in range(lanes):
            z4[i] = x4[chosen[i]] if chosen[i] >= 0 else np.uint32(0)
    elif size == 2:
        x2, z2 = halves_at(a, lanes), halves_at(out, lanes)
        for i in range(lanes):
            z2[i] = x2[chosen[i]] if chosen[i] >= 0 else np.uint16(0)
    else:
        x1, z1 = bytes_at(a, lanes), bytes_at(out, lanes)
        for i in range(lanes):
            z1[i] = x1[chosen[i]] if chosen[i] >= 0 else np.uint8(0)


# --- point-wise instructions ----------------------------------------------------------------
def can_do(op: Op, element: str) -> bool:
    """Whether there is a row kernel of an instruction for operands of a type."""
    return op.row is not None and element in op.row_types and (element != "f16" or not op.keeps_nan)


@functools.cache
def row_kernel(op: Op, element: str, made: str) -> int:
    """The address of a function (out, a, b, lanes); of one operand, it ignores b."""
    assert op.row is not None
    loop = _unary if len(op.sources) == 1 else _binary
    finish = {"f16": narrow16, "f32": _same if op.keeps_nan else _ordered}.get(made, _same)
    scope: dict[str, Any] = {
        "operands_at": array_of(_NUMBERS[element]),
        "results_at": array_of(_NUMBERS[made]),
        "operation": inner(_lowered(op.row)),
        "widen": widen16 if element == "f16" else _same,
        "finish": finish,
    }
    name = f"{op.name.replace('.', '_')}_{element}_{made}"
    return address(_bound(loop, scope, name), INT(INT, INT, INT, INT))


def _bound(function: Any, scope: dict[str, Any], name: str) -> Any:
    """The same code with other globals, and not a closure: numba does not keep closures."""
    bound = FunctionType(function.__code__, function.__globals__ | scope, name)
    bound.__qualname__ = name  # by which it is kept
    return bound


def _lowered(text: Any) -> Any:
    """An elementwise text as numba wants it: plain functions that it calls are compiled, too."""
    if text is elementwise.choose:
        return _choose
    loads = [i.argval for i in dis.get_instructions(text) if i.opname == "LOAD_GLOBAL"]
    called = {n: text.__globals__[n] for n in loads if n in text.__globals__}
    scope = {
        name: inner(_lowered(function))
        for name, function in called.items()
        if isinstance(function, FunctionType)
    }
    return _bound(text, scope, text.__name__)


def _choose(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@inner
def _same(x: Any) -> Any:
    return x


@inner
def _ordered(x: Any) -> Any:
    return x if x == x else NAN


@inner
def widen16(bits: Any) -> Any:
    """fp16 bits as fp32: the exponent's bias is made good by a product, but for inf and NaN."""
    size = np.uint32(np.uint32(bits & np.uint16(0x7FFF)) << np.uint32(13))
    wide = np.float32(size.view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    wide = np.uint32(size | np.uint32(0x7F800000)) if size >= np.uint32(0x0F800000) else wide
    return np.uint32(wide | np.uint32(np.uint32(bits >> 15) << np.uint32(31))).view(np.float32)


@inner
def narrow16(x: Any) -> Any:
    """Round fp32 to fp16 bits: by an addition below the normal numbers, else by integers."""
    bits = np.float32(x).view(np.uint32)
    size = np.uint32(bits & np.uint32(0x7FFFFFFF))
    small = np.uint32(np.float32(size.view(np.float32) + _HALF).view(np.uint32) - _HALF_BITS)
    odd = np.uint32((size >> np.uint32(13)) & np.uint32(1))
    normal = np.uint32(np.uint32(size - np.uint32((112 << 23) - 0xFFF) + odd) >> np.uint32(13))
    out = small if size < _FP16_NORMAL else normal
    out = np.uint32(0x7C00) if size >= _FP16_OVERFLOW else out
    out = np.uint32(out | np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000)))
    return np.uint16(0x7E00) if size > np.uint32(0x7F800000) else np.uint16(out)


# What `row_kernel` puts in the place of these makes a kernel of one of the two loops.
operands_at = results_at = bytes_at
operation: Any = _same
widen = finish = _same


def _unary(out: int, a: int, _b: int, lanes: int) -> int:
    x, z = operands_at(a, lanes), results_at(out, lanes)
    for i in range(lanes):
        z[i] = finish(operation(widen(x[i])))
    return 0


def _binary(out: int, a: int, b: int, lanes: int) -> int:
    x, y, z = operands_at(a, lanes), operands_at(b, lanes), results_at(out, lanes)
    for i in range(lanes):
        z[i] = finish(operation(widen(x[i]), widen(y[i])))
    return 0
