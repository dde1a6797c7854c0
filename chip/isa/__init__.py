"""The instruction set, a file per functional unit; importing this fills the registry `OPS`."""

from chip.isa import c2c, icu, mem, mxm, sxm, vxm
from chip.isa.op import (
    ALU_BASE,
    DTYPES,
    IMMEDIATE,
    NO_STREAM,
    NUMPY_TYPES,
    OPS,
    STACKS,
    STREAM_CODES,
    TYPE_GROUPS,
    WIDTHS,
    Op,
    Operand,
    immediate,
    immediate_bits,
    lookup,
)

__all__ = [
    "ALU_BASE",
    "DTYPES",
    "IMMEDIATE",
    "NO_STREAM",
    "NUMPY_TYPES",
    "OPS",
    "STACKS",
    "STREAM_CODES",
    "TYPE_GROUPS",
    "WIDTHS",
    "Op",
    "Operand",
    "c2c",
    "icu",
    "immediate",
    "immediate_bits",
    "lookup",
    "mem",
    "mxm",
    "sxm",
    "vxm",
]
