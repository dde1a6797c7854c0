"""What an instruction of the ISA is: one decorated function carries operands, meaning and doc.

`@op(mnemonic, queue, fields)` registers the function below it. `fields` is the assembly form, a
space-separated list of `name:kind`. The kinds:

    int  port  map      plain numbers: a count, a C2C port, an index into the program's lane maps
    addr  col  slot     numbers that a loop steps: SRAM word, array column, accumulator
    f32                 a 32-bit immediate
    dtype               element type of a VXM op: an index into `DTYPES`
    in.T  out.T         an aligned stream group read / driven, holding elements of type T
    src  dst            a VXM operand: a stream group, an ALU's result or the immediate; its type
                        is the `dtype` operand, or T in `src.T`, `dst.T`

Semantics live in the function; timing lives in `ChipSpec.d_func_cycles` under the op's `timing`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from chip.errors import ProgramError

DTYPES = ("u8", "f16", "f32", "u16")
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "u8": np.dtype(np.uint8),
    "u16": np.dtype("<u2"),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
    "w16": np.dtype(np.uint8),
}
# Streams a group of each type occupies; w16 is the MXM's 16-stream weight group.
WIDTHS = {"u8": 1, "u16": 2, "f16": 2, "f32": 4, "w16": 16}

# Operand codes shared by streams and VXM sources: 0..63 streams (east, then west),
# then the ALU results, then the immediate; NO_STREAM is a VXM result that stays in its ALU.
STREAM_CODES = 64
ALU_BASE = 64
IMMEDIATE = 128
NO_STREAM = 255

STEPPED = ("addr", "col", "slot")


@dataclass(frozen=True)
class Operand:
    """One field of an op: its name, kind and element type ("" where the dtype operand says)."""

    name: str
    kind: str
    dtype: str

    @property
    def reads(self) -> bool:
        return self.kind in ("in", "src")

    @property
    def drives(self) -> bool:
        return self.kind in ("out", "dst")


@dataclass(frozen=True)
class Op:
    """One instruction of the ISA."""

    name: str
    queue: str
    timing: str
    operands: tuple[Operand, ...]
    function: Callable[..., Any]

    @property
    def doc(self) -> str:
        return (self.function.__doc__ or "").strip()

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """Indices of the operands that read streams."""
        return tuple(i for i, o in enumerate(self.operands) if o.reads)

    @cached_property
    def driven(self) -> int | None:
        """Index of the operand that drives a stream, if any."""
        return next((i for i, o in enumerate(self.operands) if o.drives), None)

    @cached_property
    def stepped(self) -> int | None:
        """Index of the operand that loops step, if any."""
        return next((i for i, o in enumerate(self.operands) if o.kind in STEPPED), None)

    @property
    def constant(self) -> bool:
        """Whether a source may be the immediate."""
        return any(o.kind == "f32" for o in self.operands)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {operand.name: number for number, operand in enumerate(self.operands)}

    def index(self, name: str) -> int:
        """Position of an operand among the arguments."""
        return self._indices[name]

    def element(self, operand: int, args: tuple[int, ...]) -> str:
        """Element type of a stream operand, from the op or from its dtype argument."""
        fixed = self.operands[operand].dtype
        return fixed or DTYPES[args[self.index("dtype")]]


OPS: dict[str, Op] = {}


def op(
    name: str, queue: str, fields: str, timing: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as instruction `name` of the queue family `queue`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in OPS:
            raise ProgramError(f"op {name} is defined twice")
        operands = []
        for entry in fields.split():
            label, kind = entry.split(":")
            kind, _, dtype = kind.partition(".")
            operands.append(Operand(label, kind, dtype))
        OPS[name] = Op(name, queue, timing, tuple(operands), function)
        return function

    return register


def lookup(name: str) -> Op:
    """The op of a mnemonic; ProgramError if there is none."""
    try:
        return OPS[name]
    except KeyError:
        raise ProgramError(f"unknown instruction {name!r}") from None
