"""The instruction set, a file per functional unit; importing this fills the registry `OPS`."""

from chip.isa import c2c, icu, mem, mxm, sxm, vxm
from chip.isa.op import (
    ALU_BASE,
    DTYPES,
    IMMEDIATE,
    NO_STREAM,
    NUMPY_TYPES,
    OPS,
    STREAM_CODES,
    WIDTHS,
    Op,
    Operand,
    lookup,
)

__all__ = [
    "ALU_BASE",
    "DTYPES",
    "IMMEDIATE",
    "NO_STREAM",
    "NUMPY_TYPES",
    "OPS",
    "STREAM_CODES",
    "WIDTHS",
    "Op",
    "Operand",
    "c2c",
    "icu",
    "lookup",
    "mem",
    "mxm",
    "sxm",
    "vxm",
]
