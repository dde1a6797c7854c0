"""Kernels that do one row of lanes: copies, lane maps, the point-wise instructions of `chip.isa`.

Each is compiled when a program first needs it; a point-wise instruction from the text that
defines it.
"""

import dis
import functools
from types import FunctionType

import numpy as np

from chip.isa import Op
from chip.jit.cache import address
from chip.jit.halves import narrow16, widen16
from chip.jit.layout import Untyped
from chip.jit.memory import (
    INT,
    array_of,
    bytes_at,
    inner,
    integer,
    integers_at,
    words_at,
)
from chip.jit.vectors import turned
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
_UNSIGNED: dict[int, type[np.generic]] = {1: np.uint8, 2: np.uint16, 4: np.uint32}
ROW_KERNEL = INT(INT, INT, INT, INT)  # (out, a, b, lanes); of one operand, it ignores b


# What `_bound` puts in the place of these makes a kernel of one of the loops.
operands_at: Untyped = bytes_at
results_at: Untyped = bytes_at
operation: Untyped = None
widen: Untyped = None
finish: Untyped = None
first = second = 1


# --- copies and lane maps -------------------------------------------------------------------
@functools.cache
def copy_kernel(size: int, from_step: int = 1, to_step: int = 1) -> int:
    """Copies elements of `size` bytes, from_step elements apart, to such to_step apart.

    Into and from SRAM words, which have 4 bytes a lane, they are shifted: then the loop is one of
    vectors.
    """
    name = f"copy_{size}_{from_step}_{to_step}"
    scope = {"operands_at": array_of(_UNSIGNED[size]), "first": from_step, "second": to_step}
    loop = _spaced
    if size < 4 and {size * from_step, size * to_step} == {size, 4}:
        loop = _into_words if from_step == 1 else _from_words
        scope |= {"operation": _UNSIGNED[size], "first": (1 << 8 * size) - 1}
    return address(_bound(loop, scope, name), ROW_KERNEL)


@functools.cache
def lane_kernel(size: int) -> int:
    """Lane i of a row of elements of `size` bytes is lane b[i] of a, or 0 where that is -1.

    The lanes b are 64-bit integers.
    """
    scope = {"operands_at": array_of(_UNSIGNED[size]), "operation": _UNSIGNED[size]}
    return address(_bound(_chosen, scope, f"lanes_{size}"), ROW_KERNEL)


@functools.cache
def turn_kernel(size: int) -> int:
    """Turns each TURN lanes of elements of `size` bytes round, by b[0]: see `vectors.turned`."""
    return address(_bound(_turned, {"operation": turned(8 * size)}, f"turned_{size}"), ROW_KERNEL)


def _spaced(out: int, a: int, _b: int, lanes: int) -> int:
    x, z = operands_at(a, lanes * first), operands_at(out, lanes * second)
    for i in range(lanes):
        z[i * second] = x[i * first]
    return 0


def _into_words(out: int, a: int, _b: int, lanes: int) -> int:
    x, words, shift = operands_at(a, lanes), words_at(out & -4, lanes), np.uint32(8 * (out & 3))
    kept = np.uint32(~(np.uint32(first) << shift))
    for i in range(lanes):
        words[i] = np.uint32(words[i] & kept) | np.uint32(np.uint32(x[i]) << shift)
    return 0


def _from_words(out: int, a: int, _b: int, lanes: int) -> int:
    words, z, shift = words_at(a & -4, lanes), operands_at(out, lanes), np.uint32(8 * (a & 3))
    for i in range(lanes):
        z[i] = operation(np.uint32(words[i] >> shift) & np.uint32(first))
    return 0


def _chosen(out: int, a: int, b: int, lanes: int) -> int:
    x, z, lane = operands_at(a, lanes), operands_at(out, lanes), integers_at(b, lanes)
    for i in range(lanes):
        z[i] = x[np.uint64(lane[i])] if lane[i] >= 0 else operation(0)
    return 0


def _turned(out: int, a: int, b: int, lanes: int) -> int:
    operation(out, a, integer(b, 0), lanes)
    return 0


def _runs(out: int, a: int, b: int, _lanes: int) -> int:
    """As `_chosen`, by runs of lanes that stay side by side; b: how many, then `Run`s."""
    runs = integers_at(b, 1 + 3 * integer(b, 0))
    for run in range(runs[0]):
        to, lane, count = runs[1 + 3 * run], runs[2 + 3 * run], runs[3 + 3 * run]
        x, z = bytes_at(a + lane, count), bytes_at(out + to, count)
        for i in range(count):
            z[i] = x[i]
    return 0


@functools.cache
def run_kernel() -> int:
    """Copies runs of bytes; b has their number, then for each where to, where from, how many."""
    return address(_runs, ROW_KERNEL)


# --- point-wise instructions ----------------------------------------------------------------
def can_do(op: Op, element: str) -> bool:
    """Whether there is a row kernel of an instruction for operands of a type."""
    return op.row is not None and element in op.row_types and (element != "f16" or not op.keeps_nan)


@functools.cache
def row_kernel(op: Op, element: str, made: str) -> int:
    """What does an instruction on a row of operands of a type."""
    assert op.row is not None
    loop = _unary if len(op.sources) == 1 else _binary
    finish = {"f16": narrow16, "f32": _same if op.keeps_nan else _ordered}.get(made, _same)
    scope: dict[str, Untyped] = {
        "operands_at": array_of(_NUMBERS[element]),
        "results_at": array_of(_NUMBERS[made]),
        "operation": inner(_lowered(op.row)),
        "widen": widen16 if element == "f16" else _same,
        "finish": finish,
    }
    name = f"{op.name.replace('.', '_')}_{element}_{made}"
    return address(_bound(loop, scope, name), ROW_KERNEL)


def _bound(function: Untyped, scope: dict[str, Untyped], name: str) -> Untyped:
    """The same code with other globals, and not a closure: numba does not keep closures."""
    bound = FunctionType(function.__code__, function.__globals__ | scope, name)
    bound.__qualname__ = name  # by which it is kept
    return bound


def _lowered(text: Untyped) -> Untyped:
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


def _choose(condition: Untyped, a: Untyped, b: Untyped) -> Untyped:
    return a if condition else b


@inner
def _same(x: Untyped) -> Untyped:
    return x


@inner
def _ordered(x: Untyped) -> Untyped:
    return x if x == x else NAN


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
