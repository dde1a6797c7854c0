"""What an instruction of the ISA is: one decorated function carries operands, meaning and doc.

`@op(mnemonic, queue, fields, published)` registers the function below it. `fields` is the assembly
form, a space-separated list of `name:kind`; `published` is the vendor's name of the instruction
[ISCA20, Table 1; ISCA22], or what it stands for. The kinds:

    int  port  map      plain numbers: a count, a C2C port, an index into the program's lane maps
    addr  col  slot     numbers that a loop steps: SRAM word, array column, accumulator
    plane               MXM plane of a hemisphere, which a loop steps, round and round
    imm                 a 32-bit immediate: the bits of an fp32, or of an integer for integer types
    dtype  dtype.G      element type of a VXM or SXM op: an index into `DTYPES`, one of group G
    format              element type of an MXM op: an index into `FORMATS`
    in.T  out.T         an aligned stream group read / driven, holding elements of type T
    src  dst            a VXM operand: a stream group, an ALU's result or the immediate; its type
                        is the `dtype` operand, or T in `src.T`, `dst.T`
    in.format  dst.sum  elements of the MXM format; of the type that sums of its products have

Semantics live in the function; timing lives in `ChipSpec.d_func_cycles` under the op's `timing`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import cleandoc
from typing import Any

import numpy as np

from chip.arrays import DType
from chip.errors import ProgramError

Meaning = Callable[..., Any]  # of an op: its operands differ from op to op
DTYPES = ("u8", "f16", "f32", "u16", "i8", "i16", "i32")
# Groups of element types that an op may be limited to.
TYPE_GROUPS = {
    "": DTYPES,
    "int": ("u8", "u16", "i8", "i16", "i32"),
    "float": ("f16", "f32"),
}
# Element types of MXM weights and activations, and of the sums of their products. fp8 types are
# bytes here: `chip.numerics.fp8` decodes them.
FORMATS = ("f16", "i8", "e4m3", "e5m2")
SUMS = {"f16": "f32", "i8": "i32", "e4m3": "f32", "e5m2": "f32"}
NUMPY_TYPES: dict[str, DType] = {
    "u8": np.dtype(np.uint8),
    "i8": np.dtype(np.int8),
    "e4m3": np.dtype(np.uint8),
    "e5m2": np.dtype(np.uint8),
    "u16": np.dtype("<u2"),
    "i16": np.dtype("<i2"),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
    "i32": np.dtype("<i4"),
    "w16": np.dtype(np.uint8),
    "b9": np.dtype(np.uint8),
    "b16": np.dtype(np.uint8),
}
# Streams a group of each type occupies; w16 is the MXM's 16-stream weight group,
# b9 and b16 are groups of bytes.
WIDTHS = {name: kind.itemsize for name, kind in NUMPY_TYPES.items()}
WIDTHS |= {"w16": 16, "b9": 9, "b16": 16}
# Groups of byte streams that are no elements: arrays [vectors, lanes, streams].
STACKS = ("w16", "b9", "b16")

# Operand codes shared by streams and VXM sources: 0..63 streams (east, then west),
# then the ALU results, then the immediate; NO_STREAM is a VXM result that stays in its ALU.
STREAM_CODES = 64
ALU_BASE = 64
IMMEDIATE = 128
NO_STREAM = 255

# Roles of ops, which the linker, faults and energies go by: an op of a known role needs nothing of
# its own there. Memory is accessed by words or (gather, scatter) by addresses that are data.
ROLES = (
    "control", "fetch", "read", "gather", "write", "scatter", "pointwise", "lanes", "loads",
    "installs", "products", "sums", "send", "receive",
)  # fmt: skip
MEMORY_READS, MEMORY_WRITES = ("read", "gather"), ("write", "scatter")
ROLE_OF_QUEUE = {"vxm": "pointwise", "sxm": "lanes"}

STEPPED = ("addr", "col", "slot", "plane")


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
    published: str
    timing: str
    operands: tuple[Operand, ...]
    function: Meaning
    # What it is to those who work on programs: see ROLES.
    role: str = "control"
    # A type of `ChipSpec.mxm_types` without which a chip has no such instruction.
    requires: str = ""
    # What its lane map is: a "permutation" of all lanes, of each "superlane" or zero, a "choice".
    map_kind: str = ""
    # The function for one element of each operand, for `chip.jit` to compile, and for which types;
    # see `chip.numerics.elementwise`. fp16 is widened before and rounded after.
    row: Meaning | None = None
    row_types: tuple[str, ...] = ()
    keeps_nan: bool = False  # its NaN results keep their sign and payload
    copies: bool = False  # its results are the bytes of its operand
    # How it steers queues and the start of programs: to "wait", "park" until another does "notify",
    # "deskew" by the clock, "await" a start or "transmit" it. None for all others.
    steers: str = ""

    @property
    def doc(self) -> str:
        return cleandoc(self.function.__doc__ or "")

    @property
    def meaning(self) -> str:
        """First line of the doc."""
        return self.doc.partition("\n")[0]

    @cached_property
    def is_function(self) -> bool:
        """Whether it is a point-wise function, which takes an ALU several steps."""
        return self.role == "pointwise" and self.timing not in ("vxm.alu", "vxm.convert")

    @cached_property
    def reads_memory(self) -> bool:
        """Whether it reads SRAM."""
        return self.role in MEMORY_READS

    @cached_property
    def writes_memory(self) -> bool:
        """Whether it writes SRAM."""
        return self.role in MEMORY_WRITES

    @cached_property
    def in_memory(self) -> bool:
        """Whether it accesses SRAM."""
        return self.reads_memory or self.writes_memory

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """Element types that the dtype operand may name; none without such an operand."""
        groups = [o.dtype for o in self.operands if o.kind == "dtype"]
        return TYPE_GROUPS[groups[0]] if groups else ()

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """Indices of the operands that read streams."""
        return tuple(i for i, o in enumerate(self.operands) if o.reads)

    @cached_property
    def driven(self) -> int | None:
        """Index of the operand that drives a stream, if any."""
        return next((i for i, o in enumerate(self.operands) if o.drives), None)

    @cached_property
    def typed(self) -> int | None:
        """Index of the operand that names an element type, if any."""
        return self._indices.get("dtype")

    @cached_property
    def stepped(self) -> int | None:
        """Index of the operand that loops step, if any."""
        return next((i for i, o in enumerate(self.operands) if o.kind in STEPPED), None)

    @property
    def control(self) -> bool:
        """Whether it is the instruction control's, on the queue of whatever unit."""
        return self.name.startswith("icu.")

    def constant(self, operand: int) -> bool:
        """Whether a source may be the immediate: of the op's own type, where there is one."""
        immediate = any(o.kind == "imm" for o in self.operands)
        return immediate and not self.operands[operand].dtype

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {operand.name: number for number, operand in enumerate(self.operands)}

    def index(self, name: str) -> int:
        """Position of an operand among the arguments."""
        return self._indices[name]

    def element(self, operand: int, args: tuple[int, ...]) -> str:
        """Element type of a stream operand, from the op or from its dtype or format argument."""
        fixed = self.operands[operand].dtype
        if fixed in ("format", "sum"):
            name = FORMATS[args[self.index("format")]]
            return name if fixed == "format" else SUMS[name]
        return fixed or DTYPES[args[self.index("dtype")]]


OPS: dict[str, Op] = {}


def op(
    name: str, queue: str, fields: str, published: str, timing: str = "", **more: Any
) -> Callable[[Meaning], Meaning]:
    """Register the decorated function as instruction `name` of the queue family `queue`.

    `more` are other fields of `Op`.
    """

    def register(function: Meaning) -> Meaning:
        if name in OPS:
            raise ProgramError(f"op {name} is defined twice")
        operands = []
        for entry in fields.split():
            label, kind = entry.split(":")
            kind, _, dtype = kind.partition(".")
            operands.append(Operand(label, kind, dtype))
        role = more.pop("role", ROLE_OF_QUEUE.get(queue, "control"))
        OPS[name] = Op(name, queue, published, timing, tuple(operands), function, role, **more)
        return function

    return register


# Published names that are no op here: the loops (count, interval, step) of every instruction.
LOOP_NAMES = {
    "Repeat n,d": "the inner loop: count n, interval d, of any instruction",
    "Countdown d": "the interval of a MEM loop, or NOP before the first issue",
    "Step a": "the step of a MEM loop, added to the address; also steps MXM columns and slots",
    "Iterations n": "the count of a MEM loop; two loops nest",
}


def lookup(name: str) -> Op:
    """The op of a mnemonic; ProgramError if there is none."""
    try:
        return OPS[name]
    except KeyError:
        raise ProgramError(f"unknown instruction {name!r}") from None


def immediate_bits(value: float, dtype: str) -> int:
    """The 32 bits of an immediate of an element type; integers in two's complement."""
    if dtype in TYPE_GROUPS["int"]:
        return int(value) & 0xFFFFFFFF
    return int(np.float32(value).view(np.uint32))


def immediate(bits: int, dtype: str) -> Any:
    """The scalar that 32 bits stand for: an fp32, rounded to the type, or an integer's low bits."""
    kind = NUMPY_TYPES[dtype]
    word = np.array(bits, "<u4")
    return (word.view("<f4") if kind.kind == "f" else word).astype(kind)[()]
