"""VXM: point-wise arithmetic on 16 ALUs per lane, a 4 x 4 mesh. [ISCA20]

Every function maps arrays of shape [vectors, lanes] to one of the same shape. Results forward from
ALU to ALU, so that a chain of instructions is one pass through the mesh. fp32 and fp16 arithmetic
is IEEE, rounded to nearest even once per op. Integers are two's complement: `add`, `sub`, `mul`,
`neg` and `abs` wrap round, their `_sat` forms stop at the bounds of the type. A comparison gives
bytes, 1 for true and 0 for false.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np

from chip import numerics
from chip.arrays import Array
from chip.isa.op import DTYPES, Meaning, op
from chip.numerics import elementwise
from chip.numerics.elementwise import Number
from chip.numerics.functions import over_arrays

Vectors = Array
Text = Callable[..., Number]
UNARY = "dtype:dtype a:src out:dst"
BINARY = "dtype:dtype a:src b:src imm:imm out:dst"
BINARY_INT = "dtype:dtype.int a:src b:src imm:imm out:dst"
COMPARE = "dtype:dtype a:src b:src imm:imm out:dst.u8"
FUNCTION = "dtype:dtype.float a:src out:dst"
# The published table has one line for all of them, "z = op(x[, y])" [ISCA20, Table 1].
Z1, Z2 = "unary z = op(x)", "binary z = op(x,y)"


def pointwise(
    name: str, fields: str, published: str, timing: str = "vxm.alu"
) -> Callable[[Text], Text]:
    """Register an elementwise text as an instruction: for arrays, and for `chip.jit` to compile.

    fp16 is computed in fp32 and rounded; NaN results are canonical.
    """

    def register(text: Text) -> Text:
        in_fp32 = over_arrays(text)

        @wraps(text)
        def function(*operands: Vectors) -> Vectors:
            if operands[0].dtype != np.float16:
                return in_fp32(*operands)
            out = in_fp32(*(a.astype(np.float32) for a in operands))
            return numerics.to_fp16(out) if out.dtype == np.float32 else out

        types = ("f16", "f32") if fields == FUNCTION else DTYPES
        return op(name, "vxm", fields, published, timing, row=text, row_types=types)(function)

    return register


# --- arithmetic -----------------------------------------------------------------------------
@pointwise("vxm.add", BINARY, Z2)
def add(a: Number, b: Number) -> Number:
    """a + b; integers wrap."""
    return a + b


@pointwise("vxm.sub", BINARY, Z2)
def sub(a: Number, b: Number) -> Number:
    """a - b; integers wrap."""
    return a - b


@pointwise("vxm.mul", BINARY, Z2)
def mul(a: Number, b: Number) -> Number:
    """a * b; integers wrap: the low bits of the product."""
    return a * b


@op("vxm.add_sat", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def add_sat(a: Vectors, b: Vectors) -> Vectors:
    """a + b, saturating at the bounds of the type."""
    return _saturated(np.add, a, b)


@op("vxm.sub_sat", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def sub_sat(a: Vectors, b: Vectors) -> Vectors:
    """a - b, saturating at the bounds of the type."""
    return _saturated(np.subtract, a, b)


@op("vxm.mul_sat", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def mul_sat(a: Vectors, b: Vectors) -> Vectors:
    """a * b, saturating at the bounds of the type."""
    return _saturated(np.multiply, a, b)


pointwise("vxm.max", BINARY, Z2)(elementwise.maximum)
pointwise("vxm.min", BINARY, Z2)(elementwise.minimum)


@op("vxm.copy", "vxm", UNARY, Z1, timing="vxm.alu", copies=True)
def copy(a: Vectors) -> Vectors:
    """a, unchanged."""
    return a


@op("vxm.neg", "vxm", UNARY, Z1, timing="vxm.alu")
def neg(a: Vectors) -> Vectors:
    """-a; of a float, the sign flipped. Integers wrap: the least stays, unsigned is 0 - a."""
    return np.negative(a)


@op(
    "vxm.abs",
    "vxm",
    UNARY,
    Z1,
    "vxm.alu",
    row=elementwise.magnitude,
    row_types=("f32",),
    keeps_nan=True,
)
def absolute(a: Vectors) -> Vectors:
    """The magnitude of a; of a float, the sign cleared. The least integer wraps: it stays."""
    return np.abs(a)


@op("vxm.relu", "vxm", UNARY, "ReLU", timing="vxm.alu")
def relu(a: Vectors) -> Vectors:
    """0 where a is below 0, else a; NaN and -0 stay."""
    return np.where(a < 0, a.dtype.type(0), a)


# --- comparison and choice ------------------------------------------------------------------
@pointwise("vxm.eq", COMPARE, Z2)
def equal(a: Number, b: Number) -> Number:
    """1 where a = b, else 0; NaN equals nothing."""
    return np.uint8(a == b)


@pointwise("vxm.ne", COMPARE, Z2)
def not_equal(a: Number, b: Number) -> Number:
    """1 where a and b differ, else 0; NaN differs from everything."""
    return np.uint8(a != b)


@pointwise("vxm.lt", COMPARE, Z2)
def less(a: Number, b: Number) -> Number:
    """1 where a < b, else 0."""
    return np.uint8(a < b)


@pointwise("vxm.le", COMPARE, Z2)
def less_equal(a: Number, b: Number) -> Number:
    """1 where a <= b, else 0."""
    return np.uint8(a <= b)


@pointwise("vxm.gt", COMPARE, Z2)
def greater(a: Number, b: Number) -> Number:
    """1 where a > b, else 0."""
    return np.uint8(a > b)


@pointwise("vxm.ge", COMPARE, Z2)
def greater_equal(a: Number, b: Number) -> Number:
    """1 where a >= b, else 0."""
    return np.uint8(a >= b)


@op(
    "vxm.select",
    "vxm",
    "dtype:dtype mask:src.u8 a:src b:src imm:imm out:dst",
    "select",
    timing="vxm.alu",
)
def select(mask: Vectors, a: Vectors, b: Vectors) -> Vectors:
    """a where the byte of the mask is not 0, else b."""
    return np.where(mask != 0, a, b)


# --- logic and shifts -----------------------------------------------------------------------
@op("vxm.and", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def bit_and(a: Vectors, b: Vectors) -> Vectors:
    """Bits set in both a and b."""
    return np.bitwise_and(a, b)


@op("vxm.or", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def bit_or(a: Vectors, b: Vectors) -> Vectors:
    """Bits set in a or b."""
    return np.bitwise_or(a, b)


@op("vxm.xor", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def bit_xor(a: Vectors, b: Vectors) -> Vectors:
    """Bits in which a and b differ."""
    return np.bitwise_xor(a, b)


@op("vxm.not", "vxm", "dtype:dtype.int a:src out:dst", Z1, timing="vxm.alu")
def bit_not(a: Vectors) -> Vectors:
    """The bits of a, inverted."""
    return np.invert(a)


@op("vxm.shift_left", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def shift_left(a: Vectors, b: Vectors) -> Vectors:
    """The bits of a moved b places up, zeros behind; b is unsigned, and all bits may leave."""
    return _shifted(np.left_shift, _bits(a), b).view(a.dtype)


@op("vxm.shift_right", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def shift_right(a: Vectors, b: Vectors) -> Vectors:
    """The bits of a moved b places down, the sign (unsigned: zeros) behind; b is unsigned."""
    return _shifted(np.right_shift, np.asarray(a), b)


@op("vxm.shift_right_logical", "vxm", BINARY_INT, Z2, timing="vxm.alu")
def shift_right_logical(a: Vectors, b: Vectors) -> Vectors:
    """The bits of a moved b places down, zeros behind, also of a signed type; b is unsigned."""
    return _shifted(np.right_shift, _bits(a), b).view(a.dtype)


# --- functions ------------------------------------------------------------------------------
# fp16 is computed in fp32 and rounded.
pointwise("vxm.exp", FUNCTION, "Exp", "vxm.exp")(elementwise.exp)
pointwise("vxm.tanh", FUNCTION, "TanH", "vxm.tanh")(elementwise.tanh)
pointwise("vxm.rsqrt", FUNCTION, "RSqrt", "vxm.rsqrt")(elementwise.rsqrt)
pointwise("vxm.recip", FUNCTION, Z1, "vxm.recip")(elementwise.reciprocal)


@pointwise("vxm.sqrt", FUNCTION, Z1, "vxm.sqrt")
def sqrt(a: Number) -> Number:
    """The square root of a, correctly rounded; NaN below 0."""
    return np.sqrt(a)


# --- conversions ----------------------------------------------------------------------------
@op(
    "vxm.to_f32", "vxm", "dtype:dtype a:src out:dst.f32", "type convert", "vxm.convert",
    row=elementwise.as_fp32, row_types=DTYPES,
)  # fmt: skip
def to_f32(a: Vectors) -> Vectors:
    """Any type to fp32: exact, but int32 is rounded to nearest even."""
    return numerics.to_fp32(a)


@op(
    "vxm.to_f16", "vxm", "dtype:dtype a:src out:dst.f16", "type convert", "vxm.convert",
    row=elementwise.as_fp32, row_types=("u8", "f16", "f32"),
)  # fmt: skip
def to_f16(a: Vectors) -> Vectors:
    """Any type to fp16, rounded once to nearest even; from 65520 on, infinity."""
    return numerics.to_fp16(a)


@op(
    "vxm.to_i8", "vxm", "dtype:dtype a:src out:dst.i8", "type convert", "vxm.convert",
    row=elementwise.nearest_i8, row_types=("f16", "f32"),
)  # fmt: skip
def to_i8(a: Vectors) -> Vectors:
    """Any type to int8: to nearest even, saturating at -128 and 127; NaN becomes 0."""
    return numerics.to_int(a, np.int8)


@op("vxm.to_i16", "vxm", "dtype:dtype a:src out:dst.i16", "type convert", timing="vxm.convert")
def to_i16(a: Vectors) -> Vectors:
    """Any type to int16: to nearest even, saturating at its bounds; NaN becomes 0."""
    return numerics.to_int(a, np.int16)


@op("vxm.to_i32", "vxm", "dtype:dtype a:src out:dst.i32", "type convert", timing="vxm.convert")
def to_i32(a: Vectors) -> Vectors:
    """Any type to int32: to nearest even, saturating at its bounds; NaN becomes 0."""
    return numerics.to_int(a, np.int32)


@op("vxm.to_u8", "vxm", "dtype:dtype a:src out:dst.u8", "type convert", timing="vxm.convert")
def to_u8(a: Vectors) -> Vectors:
    """Any type to uint8: to nearest even, saturating at 0 and 255; NaN becomes 0."""
    return numerics.to_int(a, np.uint8)


@op(
    "vxm.to_u16", "vxm", "dtype:dtype a:src out:dst.u16", "type convert", "vxm.convert",
    row=elementwise.nearest_u16, row_types=("f16", "f32"),
)  # fmt: skip
def to_u16(a: Vectors) -> Vectors:
    """Any type to uint16, as addresses are: to nearest even, saturating; NaN becomes 0."""
    return numerics.to_int(a, np.uint16)


FP8_IN, FP8_OUT = "a:src.{0} out:dst.f32", "dtype:dtype.float a:src out:dst.{0}"
FP8 = {"published": "type convert", "timing": "vxm.convert", "requires": "f8"}


@op("vxm.to_e4m3", "vxm", FP8_OUT.format("e4m3"), **FP8)
def to_e4m3(a: Vectors) -> Vectors:
    """fp16 or fp32 to fp8 E4M3: to nearest even, saturating at 448, infinities too; NaN stays."""
    return numerics.encode("e4m3", a)


@op("vxm.to_e5m2", "vxm", FP8_OUT.format("e5m2"), **FP8)
def to_e5m2(a: Vectors) -> Vectors:
    """fp16 or fp32 to fp8 E5M2: to nearest even, saturating at 57344, infinities too; NaN stays."""
    return numerics.encode("e5m2", a)


@op("vxm.from_e4m3", "vxm", FP8_IN.format("e4m3"), **FP8)
def from_e4m3(a: Vectors) -> Vectors:
    """fp8 E4M3 to fp32, exact."""
    return numerics.to_fp32(numerics.decode("e4m3", a))


@op("vxm.from_e5m2", "vxm", FP8_IN.format("e5m2"), **FP8)
def from_e5m2(a: Vectors) -> Vectors:
    """fp8 E5M2 to fp32, exact."""
    return numerics.to_fp32(numerics.decode("e5m2", a))


# --- how ------------------------------------------------------------------------------------
def _saturated(function: Meaning, a: Vectors, b: Vectors) -> Vectors:
    """An integer function in 64 bits, which hold any sum or product of 32, then the bounds."""
    exact = function(np.asarray(a, np.int64), np.asarray(b, np.int64))
    narrow: Vectors = numerics.to_int(exact, np.result_type(a, b).type)
    return narrow


def _bits(a: Vectors) -> Vectors:
    """The same bits as an unsigned type."""
    return np.asarray(a).view(f"u{a.dtype.itemsize}")


def _shifted(function: Meaning, a: Vectors, places: Vectors) -> Vectors:
    """Shift, but for counts of all bits and more, which NumPy leaves open, in two steps."""
    last = 8 * a.dtype.itemsize - 1
    near = np.minimum(_bits(places), last)
    once: Vectors = function(a, near.astype(a.dtype))
    return np.where(_bits(places) > last, function(once, a.dtype.type(1)), once)
