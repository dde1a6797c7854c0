"""One operand as text and as the number it is in a program, by its kind; nothing per op."""

import re
from collections.abc import Mapping

import numpy as np

from chip.isa import (
    ALU_BASE,
    DTYPES,
    FORMATS,
    IMMEDIATE,
    NO_STREAM,
    NUMPY_TYPES,
    STREAM_CODES,
    Operand,
    immediate_bits,
)

HALF = STREAM_CODES // 2  # streams of a direction
_STREAM = re.compile(r"([EW])(\d+)")
_ALU = re.compile(r"alu(\d+)")
_INTEGER = re.compile(r"0x[0-9a-fA-F]+|\d+")
TABLES = {"dtype": DTYPES, "format": FORMATS}  # kinds whose numbers are indices into names
# What a line may leave out.
DEFAULTS = {"imm": 0, "dst": NO_STREAM}
_WHAT = {
    "in": f"a stream E0..E{HALF - 1} or W0..W{HALF - 1}",
    "src": "a stream such as E0, an ALU such as alu3, or imm",
    "dst": "a stream such as E0, or none",
    "imm": "a number",
    **{kind: f"one of {', '.join(table)}" for kind, table in TABLES.items()},
    "map": "the name of a .map, or its number",
}
_WHAT["out"] = _WHAT["in"]


def read_operand(operand: Operand, text: str, dtype: str, maps: Mapping[str, int]) -> int:
    """The number of an operand; `dtype` is that of the instruction. Raises ValueError."""
    kind = operand.kind
    if kind == "imm" and not text.startswith("0x"):
        found = _immediate(text, dtype)
    elif kind in ("in", "out", "src", "dst"):
        found = _place(kind, text)
    elif text in TABLES.get(kind, ()):
        found = TABLES[kind].index(text)
    elif kind == "map" and text in maps:
        found = maps[text]
    else:
        found = _number(text)
    if found is None:
        raise ValueError(f"{operand.name}={text} is not {_WHAT.get(kind, 'a whole number')}")
    return found


def write_operand(operand: Operand, value: int, dtype: str) -> str:
    """The text of an operand; reading it gives `value` again."""
    kind = operand.kind
    if kind == "imm":
        text = _immediate_text(value, dtype)
        return text if _immediate(text, dtype) == value else hex(value)
    if kind in ("in", "out", "src", "dst"):
        if value < STREAM_CODES:
            return f"{'EW'[value // HALF]}{value % HALF}"
        if kind in ("src", "dst") and ALU_BASE <= value < IMMEDIATE:
            return f"alu{value - ALU_BASE}"
        return {("src", IMMEDIATE): "imm", ("dst", NO_STREAM): "none"}.get(
            (kind, value), str(value)
        )
    if value < len(TABLES.get(kind, ())):
        return TABLES[kind][value]
    return f"m{value}" if kind == "map" else str(value)


def _number(text: str) -> int | None:
    return int(text, 0 if text.startswith("0x") else 10) if _INTEGER.fullmatch(text) else None


def _place(kind: str, text: str) -> int | None:
    stream, alu = _STREAM.fullmatch(text), _ALU.fullmatch(text)
    if stream and int(stream[2]) < HALF:
        return HALF * "EW".index(stream[1]) + int(stream[2])
    if kind in ("src", "dst") and alu and int(alu[1]) < IMMEDIATE - ALU_BASE:
        return ALU_BASE + int(alu[1])
    named = {("src", "imm"): IMMEDIATE, ("dst", "none"): NO_STREAM}.get((kind, text))
    return _number(text) if named is None else named


def _integral(dtype: str) -> bool:
    return dtype in NUMPY_TYPES and NUMPY_TYPES[dtype].kind in "iu"


def _immediate(text: str, dtype: str) -> int | None:
    """Bits of an immediate: of an fp32, or of a whole number where the type is an integer."""
    try:
        if _integral(dtype):
            value = int(text)
            return immediate_bits(value, dtype) if -(2**31) <= value < 2**32 else None
        with np.errstate(over="ignore"):
            return immediate_bits(float(text), "f32")
    except ValueError:
        return None


def _immediate_text(bits: int, dtype: str) -> str:
    if _integral(dtype):
        signed = NUMPY_TYPES[dtype].kind == "i" and bits >= 2**31
        return str(bits - 2**32 if signed else bits)
    return str(np.array(bits & 0xFFFFFFFF, "<u4").view("<f4")[()])
