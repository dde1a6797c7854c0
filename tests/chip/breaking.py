"""Programs that each break one rule of the static contract."""

from chip.errors import (
    AccumulatorEmpty,
    AddressError,
    BankConflict,
    ConstantWritten,
    EmptyStream,
    LanesOff,
    Misaligned,
    NeverNotified,
    OrderError,
    Overwritten,
    QueueConflict,
    RateExceeded,
    StreamConflict,
    WeightsInUse,
    WeightsMissing,
    WeightsMistyped,
)
from chip.isa import ALU_BASE, FORMATS, IMMEDIATE, NO_STREAM
from chip.isa.mxm import ADD, SET
from chip.spec import EAST, TINY
from tests.chip.programs import At, at

F32 = 2
F16, I8, E4M3 = (FORMATS.index(name) for name in ("f16", "i8", "e4m3"))
VXM, MXM = TINY.vxm_position, TINY.edge_position("mxm", EAST)


def away(index: int, position: int) -> int:
    return TINY.d_func("mem.read") + abs(position - TINY.slice_position(index))


def read(index: int, code: int, cycle: int, position: int, **more) -> At:
    """A read that passes a position in a cycle."""
    return at(f"mem.r:{index}", cycle - away(index, position), "mem.read", 0, code, **more)


def weights(
    *, column=0, columns=8, load=200, install=201, loops=(1, 1, 0), format=F16, plane=0, iw=None
) -> list[At]:
    planes = [read(16 + n, 16 + n, load, MXM, loops=(*loops[:2], 0)) for n in range(16)]
    lw = at("mxm.lw:0", load, "mxm.lw", format, column + 320 * plane, 16, loops=loops)
    kind = format if iw is None else iw
    return [*planes, lw, at("mxm.iw:0", install, "mxm.iw", kind, plane % 2, columns)]


def int8(**more) -> list[At]:
    return weights(**{"format": I8, "columns": 16} | more)


def stream(cycle=202, queue="mxm.abc:0", format=F16, **more) -> list[At]:
    loops = more.get("loops", (1, 1, 0))
    return [*(read(n, n - 4, cycle, MXM, loops=(*loops[:2], 0)) for n in (4, 5)),
            at(queue, cycle, "mxm.abc", format, 0, **more)]  # fmt: skip


def acc(mode: int, slot: int, cycle=226, queue="mxm.acc:0", format=F16, **more) -> At:
    return at(queue, cycle, "mxm.acc", format, mode, slot, NO_STREAM, **more)


def vxm(op: str, cycle: int, *args: int, alu: int = 0, **more) -> At:
    return at(f"vxm:{alu}", cycle, f"vxm.{op}", *args, **more)


# (the rule, the offending queue, cycle and op, the program)
BREAKING = {
    "inner loop over outer loop": (
        QueueConflict, "mem.r:3", 7, "mem.read",
        [at("mem.r:3", 7, "mem.read", 0, 0, loops=((2, 4, 0), (3, 2, 1)))]),
    "nothing driven": (
        EmptyStream, "mem.w:3", 9, "mem.write", [at("mem.w:3", 9, "mem.write", 0, 0)]),
    "the last of a run is not driven": (
        EmptyStream, "mem.w:3", 44, "mem.write",
        [read(0, 0, 40, TINY.slice_position(3), loops=(4, 1, 1)),
         at("mem.w:3", 40, "mem.write", 0, 0, loops=(5, 1, 1))]),
    "driven downstream of the reader": (
        EmptyStream, "mem.w:3", 40, "mem.write",
        [read(9, 0, 40, TINY.slice_position(3)), at("mem.w:3", 40, "mem.write", 0, 0)]),
    "one byte of a wide value missing": (
        EmptyStream, "vxm:0", 40, "vxm.copy",
        [*(read(44 + n, n, 40, VXM) for n in range(3)), vxm("copy", 40, F32, 0, 8)]),
    "an ALU result one cycle old": (
        EmptyStream, "vxm:1", 45, "vxm.copy",
        [read(44, 0, 40, VXM), vxm("copy", 40, 0, 0, 8),
         vxm("copy", 45, 0, ALU_BASE, 9, alu=1)]),
    "no product": (EmptyStream, "mxm.acc:0", 226, "mxm.acc", [acc(SET, 0)]),
    "two drivers of a slot": (
        StreamConflict, "vxm:1", 40, "vxm.add",
        [read(44, 0, 40, VXM), *(vxm("add", 40, 0, 0, 0, 0, 8, alu=n) for n in (0, 1))]),
    "two drivers of a slot nobody reads": (
        StreamConflict, "mem.r:3", 26, "mem.read",
        [at("mem.r:3", 24, "mem.read", 0, 9, loops=(2, 2, 1)),
         *(read(4 + n, 32 + n, 23, TINY.slice_position(3)) for n in (0, 1)),
         at("mem.r:3", 23, "mem.gather", 0, 9, 32, 9)]),
    "another value than the one named": (
        Overwritten, "mem.w:9", 41, "mem.write",
        [read(0, 0, 40, TINY.slice_position(9), loops=(2, 1, 1), names=(7,)),
         read(5, 0, 41, TINY.slice_position(9), names=(8,)),
         at("mem.w:9", 40, "mem.write", 0, 0, loops=(2, 1, 1), names=(7,))]),
    "read and write in one bank": (
        BankConflict, "mem.r:3", 41, "mem.read",
        [read(0, 0, 40, TINY.slice_position(3), loops=(2, 1, 1)),
         at("mem.w:3", 40, "mem.write", 600, 0, loops=(2, 1, 1)),
         at("mem.r:3", 41, "mem.read", 700, 1)]),
    "a read past the last word": (
        AddressError, "mem.r:3", 5, "mem.read",
        [at("mem.r:3", 5, "mem.read", 1000, 0, loops=(25, 1, 1))]),
    "a read before the first word": (
        AddressError, "mem.r:3", 5, "mem.read",
        [at("mem.r:3", 5, "mem.read", 3, 0, loops=(5, 1, -1))]),
    "a region in two banks": (
        AddressError, "mem.r:3", 5, "mem.gather", [at("mem.r:3", 5, "mem.gather", 500, 40, 0, 8)]),
    "a region past the end": (
        AddressError, "mem.w:3", 5, "mem.scatter",
        [at("mem.w:3", 5, "mem.scatter", 1000, 40, 0, 2)]),
    "a region that reaches into constants": (
        AddressError, "mem.r:50", 5, "mem.gather", [at("mem.r:50", 5, "mem.gather", 90, 12, 0, 8)]),
    "a region that reaches beyond its constants": (
        AddressError, "mem.r:50", 5, "mem.gather", [at("mem.r:50", 5, "mem.gather", 100, 9, 0, 8)]),
    "a region in two banks that reaches beyond its constants": (
        AddressError, "mem.r:53", 5, "mem.gather",
        [at("mem.r:53", 5, "mem.gather", 500, 41, 0, 8)]),
    "a write into the first bank of a gather from two": (
        BankConflict, "mem.r:53", 40, "mem.gather",
        [read(0, 0, 40, TINY.slice_position(53)), at("mem.w:53", 40, "mem.write", 300, 0),
         at("mem.r:53", 40, "mem.gather", 500, 40, 0, 8)]),
    "a write into the second bank of a gather from two": (
        BankConflict, "mem.r:53", 40, "mem.gather",
        [read(0, 0, 40, TINY.slice_position(53)), at("mem.w:53", 40, "mem.write", 600, 0),
         at("mem.r:53", 40, "mem.gather", 500, 40, 0, 8)]),
    "an accumulator that is not there": (
        AddressError, "mxm.acc:0", 226, "mxm.acc",
        [*weights(), *stream(), acc(SET, TINY.accumulator_depth)]),
    "a column that is not there": (
        AddressError, "mxm.lw:0", 200, "mxm.lw", [*weights(column=320), *stream(), acc(SET, 0)]),
    "a column inside a group": (
        AddressError, "mxm.lw:0", 200, "mxm.lw", [*weights(column=4), *stream(), acc(SET, 0)]),
    "a group that starts anywhere": (
        Misaligned, "vxm:0", 40, "vxm.copy", [vxm("copy", 40, F32, 2, 8)]),
    "a result group that starts anywhere": (
        Misaligned, "vxm:0", 40, "vxm.copy",
        [*(read(44 + n, n, 40, VXM) for n in range(4)), vxm("copy", 40, F32, 0, 6)]),
    "the wrong type on a stream": (
        Misaligned, "mem.r:3", 48, "mem.gather",
        [*(read(44 + n, n, 40, VXM) for n in range(2)), vxm("copy", 40, 1, 0, 8),
         at("mem.r:3", 48, "mem.gather", 0, 9, 8, 10)]),
    "the wrong type from an ALU": (
        Misaligned, "vxm:1", 44, "vxm.copy",
        [*(read(44 + n, n, 40, VXM) for n in range(2)), vxm("copy", 40, 1, 0, 8),
         vxm("copy", 44, 0, ALU_BASE, 9, alu=1)]),
    "half of a float": (
        Misaligned, "mem.r:3", 48, "mem.gather",
        [*(read(44 + n, n, 40, VXM) for n in range(4)), vxm("copy", 40, F32, 0, 8),
         at("mem.r:3", 48, "mem.gather", 0, 9, 10, 12)]),
    "an immediate where there is none": (
        Misaligned, "vxm:0", 5, "vxm.exp", [vxm("exp", 5, F32, IMMEDIATE, 8)]),
    "an immediate as a mask": (
        Misaligned, "vxm:0", 40, "vxm.select",
        [read(44, 0, 40, VXM), vxm("select", 40, 0, IMMEDIATE, 0, 0, 1, 8)]),
    "nothing but immediates": (
        Misaligned, "vxm:0", 5, "vxm.add", [vxm("add", 5, F32, IMMEDIATE, IMMEDIATE, 0, 8)]),
    "an ALU outside the VXM": (
        Misaligned, "sxm:0", 5, "sxm.permute", [at("sxm:0", 5, "sxm.permute", 0, 0, ALU_BASE, 0)]),
    "a permutation that is none": (
        Misaligned, "sxm:0", 90, "sxm.permute",
        [read(4, 0, 90, TINY.edge_position("sxm", EAST)),
         at("sxm:0", 90, "sxm.permute", 0, 0, 0, 32)]),
    "a selection that is none": (
        Misaligned, "sxm:0", 90, "sxm.select",
        [read(4, 0, 90, TINY.edge_position("sxm", EAST)),
         at("sxm:0", 90, "sxm.select", 0, 1, 0, 0, 32)]),
    "a shift past the last lane": (
        Misaligned, "sxm:0", 90, "sxm.shift_up",
        [read(4, 0, 90, TINY.edge_position("sxm", EAST)),
         at("sxm:0", 90, "sxm.shift_up", 0, 321, 0, 32)]),
    "a transpose off its group of 16 streams": (
        Misaligned, "sxm:0", 90, "sxm.transpose", [at("sxm:0", 90, "sxm.transpose", 8, 32)]),
    "a rotation onto half a group": (
        Misaligned, "sxm:0", 90, "sxm.rotate3",
        [read(4, 0, 90, TINY.edge_position("sxm", EAST)),
         at("sxm:0", 90, "sxm.rotate3", 0, 40)]),
    "a transpose of fifteen streams": (
        EmptyStream, "sxm:0", 90, "sxm.transpose",
        [*(read(4 + n, n, 90, TINY.edge_position("sxm", EAST)) for n in range(15)),
         at("sxm:0", 90, "sxm.transpose", 0, 32)]),
    "a mode of no ACC": (
        Misaligned, "mxm.acc:0", 226, "mxm.acc", [*weights(), *stream(), acc(2, 0)]),
    "ABC before IW": (
        WeightsMissing, "mxm.abc:0", 202, "mxm.abc", [*stream(), acc(SET, 0)]),
    "IW before LW is complete": (
        WeightsMissing, "mxm.iw:0", 201, "mxm.iw",
        [*weights(columns=16, loops=(2, 1, 8)), *stream(), acc(SET, 0)]),
    "IW of nothing": (
        WeightsMissing, "mxm.iw:0", 5, "mxm.iw", [at("mxm.iw:0", 5, "mxm.iw", 0, 0, 8)]),
    "LW over weights not installed": (
        WeightsInUse, "mxm.lw:0", 201, "mxm.lw", weights(columns=16, loops=(2, 1, 0), install=202)),
    "IW in the cycle of an ABC": (
        WeightsInUse, "mxm.abc:0", 203, "mxm.abc",
        [*weights(loops=(2, 2, 0)), at("mxm.iw:0", 203, "mxm.iw", 0, 0, 8), *stream(203),
         acc(SET, 0, 227)]),
    "IW of a plane whose columns went to the other": (
        WeightsMissing, "mxm.iw:0", 201, "mxm.iw",
        [p for p in int8(plane=1) if p.queue != "mxm.iw:0"]
        + [at("mxm.iw:0", 201, "mxm.iw", I8, 0, 16)]),
    "ABC on a plane while the other has the tile": (
        WeightsMissing, "mxm.abc:0", 202, "mxm.abc", [*int8(plane=1), *stream(format=I8)]),
    "LW over int8 weights not installed": (
        WeightsInUse, "mxm.lw:0", 201, "mxm.lw", int8(columns=32, loops=(2, 1, 0), install=202)),
    "IW in the cycle of an int8 ABC": (
        WeightsInUse, "mxm.abc:2", 203, "mxm.abc",
        [*int8(loops=(2, 2, 0), plane=1), at("mxm.iw:0", 203, "mxm.iw", I8, 1, 16),
         *stream(203, "mxm.abc:2", I8)]),
    "int8 activations for an fp16 tile": (
        WeightsMistyped, "mxm.abc:0", 202, "mxm.abc", [*weights(), *stream(format=I8)]),
    "int8 activations on one plane of an fp16 pair": (
        WeightsMistyped, "mxm.abc:2", 202, "mxm.abc",
        [*weights(), *stream(queue="mxm.abc:2", format=I8)]),
    "fp16 activations for an int8 tile": (
        WeightsMistyped, "mxm.abc:0", 202, "mxm.abc", [*int8(), *stream()]),
    "fp16 activations where one plane holds int8": (
        WeightsMistyped, "mxm.abc:0", 212, "mxm.abc",
        [*weights(), *int8(plane=1, load=210, install=211), *stream(212)]),
    "fp8 activations for an int8 tile": (
        WeightsMistyped, "mxm.abc:0", 202, "mxm.abc", [*int8(), *stream(format=E4M3)]),
    "IW of another type than its LW": (
        WeightsMistyped, "mxm.iw:0", 201, "mxm.iw", int8(iw=F16)),
    "LW of int8 into a buffer of fp16": (
        WeightsMistyped, "mxm.lw:0", 203, "mxm.lw",
        [*weights()[:-1], *int8(plane=1, load=203, install=204)]),
    "int8 sums of fp16 products": (
        Misaligned, "mxm.acc:0", 226, "mxm.acc", [*weights(), *stream(), acc(SET, 0, format=I8)]),
    "fp16 on the queue of a second plane": (
        Misaligned, "mxm.abc:2", 202, "mxm.abc", [*weights(), *stream(queue="mxm.abc:2")]),
    "fp16 into a second plane": (
        Misaligned, "mxm.iw:0", 201, "mxm.iw", int8(plane=1, iw=F16)),
    "an int8 column inside a group": (
        AddressError, "mxm.lw:0", 200, "mxm.lw", int8(column=8)),
    "a column of a third plane": (
        AddressError, "mxm.lw:0", 200, "mxm.lw", int8(plane=2)),
    "int8 while the second half of an fp16 vector passes": (
        RateExceeded, "mxm.abc:2", 203, "mxm.abc",
        [*weights(), *int8(plane=1, load=201, install=202), *stream(),
         *stream(203, "mxm.abc:2", I8)[1:], read(6, 0, 203, MXM)]),
    "adding int8 to a sum of fp16": (
        AccumulatorEmpty, "mxm.acc:0", 252, "mxm.acc",
        [*weights(), *stream(), acc(SET, 5), *int8(load=226, install=227),
         *stream(228, format=I8), acc(ADD, 5, 252, format=I8)]),
    "activations in every cycle": (
        RateExceeded, "mxm.abc:0", 203, "mxm.abc",
        [*weights(), *stream(loops=(2, 1, 0)), acc(SET, 0, loops=(2, 1, 1))]),
    "adding to an empty accumulator": (
        AccumulatorEmpty, "mxm.acc:0", 226, "mxm.acc", [*weights(), *stream(), acc(ADD, 5)]),
    "a Sync that nobody releases": (
        NeverNotified, "mem.r:3", 7, "icu.sync", [at("mem.r:3", 7, "icu.sync")]),
    "lanes that are powered down": (
        LanesOff, "mem.w:3", 60, "mem.write",
        [at("mem.r:0", 0, "icu.config", 160), read(0, 0, 60, TINY.slice_position(3)),
         at("mem.w:3", 60, "mem.write", 600, 0)]),
    "weights of lanes that are powered down": (
        LanesOff, "mxm.abc:0", 202, "mxm.abc",
        [at("mxm.lw:0", 0, "icu.config", 160), *weights(), *stream(), acc(SET, 0)]),
    "a Config that is no number of superlanes": (
        Misaligned, "vxm:0", 3, "icu.config", [at("vxm:0", 3, "icu.config", 24)]),
    "a write into constants": (
        ConstantWritten, "mem.w:50", 40, "mem.write",
        [read(44, 0, 40, TINY.slice_position(50)), at("mem.w:50", 40, "mem.write", 97, 0,
         loops=(4, 1, 1))]),
    "a scatter that may hit constants": (
        ConstantWritten, "mem.w:50", 40, "mem.scatter",
        [at("mem.w:50", 40, "mem.scatter", 90, 11, 0, 2)]),
    "words in one order, then in the other": (
        OrderError, "mem.r:3", 41, "mem.read",
        [read(0, 0, 40, TINY.slice_position(3), loops=(4, 2, 1)),
         at("mem.w:3", 40, "mem.write", 0, 0, loops=(4, 2, 1)),
         at("mem.r:3", 41, "mem.read", 0, 1, loops=(3, 2, 2)),
         at("mem.w:9", 41 + away(3, TINY.slice_position(9)), "mem.write", 0, 1,
            loops=(3, 2, 1))]),
}  # fmt: skip
