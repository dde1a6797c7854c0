"""Memory in compiled code: structures, integers and arrays at addresses; calls through addresses.

All that a kernel works on is at an address.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import TypeVar

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic
from numba.np import arrayobj

from chip.jit.layout import (
    JOB,
    PART,
    PLAY,
    RECORD,
    ROW,
    STATISTICS,
    Job,
    Part,
    Play,
    Record,
    Row,
    Statistics,
    Untyped,
)

types: Untyped = numba.types
_arrayobj: Untyped = arrayobj
INT, VOID = types.int64, types.void
Function = TypeVar("Function", bound=Callable[..., object])
Emit = Callable[..., Untyped]  # (context, builder, args) of numba, which have no types


def inner(function: Function) -> Function:
    """Compile a small function that others call: it becomes part of each."""
    compiled: Function = _without_literals(numba.njit(nogil=True, error_model="numpy")(function))
    return compiled


def _without_literals(compiled: Untyped) -> Untyped:
    """Or numba would compile a function again for each constant that it is given."""
    chosen = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: chosen(tuple(map(types.unliteral, args)), kws)
    return compiled


def emitted(result: Untyped, *arguments: Untyped) -> Callable[[Emit], Callable[..., Untyped]]:
    """Make an intrinsic of these numba types from what emits its LLVM code."""

    def made(emit: Emit) -> Callable[..., Untyped]:
        def codegen(
            context: Untyped, builder: Untyped, _signature: Untyped, args: Untyped
        ) -> Untyped:
            value = emit(context, builder, args)
            return context.get_dummy_value() if value is None else value

        def typing(_context: Untyped, *_args: Untyped) -> Untyped:
            return result(*arguments), codegen

        names = ["context", *(f"a{n}" for n in range(len(arguments)))]
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        typing.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        found: Callable[..., Untyped] = intrinsic(typing)
        return found

    return made


@emitted(INT, INT, INT)
def integer(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    """Integer number n at an address: integer(address, n)."""
    start = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
    return builder.load(builder.gep(start, [args[1]]))


def caller(count: int) -> Callable[..., int]:
    """A function (address, ...): call the function of `count` integers that is there."""

    @emitted(INT, *(INT,) * (1 + count))
    def call(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * count).as_pointer()
        return builder.call(builder.inttoptr(args[0], kind), args[1:])

    return call


def array_of(dtype: type[np.generic]) -> Callable[[int, int], Untyped]:
    """A function (address, length): the array that is there."""
    element = numba.from_dtype(np.dtype(dtype))
    kind = types.Array(element, 1, "C")

    @emitted(kind, INT, INT)
    def at(context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
        array = context.make_array(kind)(context, builder)
        size = context.get_constant(types.intp, np.dtype(dtype).itemsize)
        data = builder.inttoptr(args[0], context.get_data_type(element).as_pointer())
        _arrayobj.populate_array(array, data, [args[1]], [size], size, None)
        return array._getvalue()

    return at


bytes_at, halves_at, words_at = array_of(np.uint8), array_of(np.uint16), array_of(np.uint32)
floats_at, doubles_at, integers_at = (
    array_of(np.float32), array_of(np.float64), array_of(np.int64)
)  # fmt: skip


def _structure_at(dtype: np.dtype[np.void]) -> Callable[[int], Untyped]:
    """A function: the structure at an address."""
    kind = numba.from_dtype(dtype)

    @emitted(kind, INT)
    def at(context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return at


part_at: Callable[[int], Part] = _structure_at(PART)
job_at: Callable[[int], Job] = _structure_at(JOB)
play_at: Callable[[int], Play] = _structure_at(PLAY)
statistics_at: Callable[[int], Statistics] = _structure_at(STATISTICS)
row_at: Callable[[int], Row] = _structure_at(ROW)
_record_at: Callable[[int], Record] = _structure_at(RECORD)
_RECORD_BYTES = RECORD.itemsize


@inner
def record_at(part: Part, number: int) -> Record:
    """Record `number` of a part."""
    return _record_at(part.records + number * _RECORD_BYTES)
