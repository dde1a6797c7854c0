"""One row of lanes at a time, on addresses: what the records of a tape do, compiled.

The functions of the VXM are those of `chip.numerics.loops`; NaN results are canonical, and the
order of -0 and +0 is that of their bits, so that hosts agree.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.exact import NAN
from chip.numerics.lane_vectors import STEP, gather, half_bits, scatter
from chip.numerics.loops import exp1, half_bits1, reciprocal1, rsqrt1, tanh1
from chip.numerics.team import pointer
from chip.numerics.vectors import HALF_IN_HARDWARE, widen16

carray: Any = vars(numba)["carray"]
_widen_row, _half_row = widen16(1), half_bits()
_gather16, _scatter16, _gather8, _scatter8 = gather(16), scatter(16), gather(8), scatter(8)
_NAN16, _NAN32 = np.uint16(0x7E00), np.int32(0x7FC00000)
_SIZE, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # of fp32 bits


def _copy(out: Any, to: Any, a: Any, step: Any, size: Any, count: Any) -> None:
    """Copy `count` elements of `size` bytes; `to` and `step` are their distances in elements."""
    if size == 4:
        x4 = carray(pointer(a), (count * step,), np.uint32)
        z4 = carray(pointer(out), (count * to,), np.uint32)
        if to == 1 and step == 1:
            for i in range(count):
                z4[i] = x4[i]
        else:
            for i in range(count):
                z4[i * to] = x4[i * step]
    elif to == 1 and step == 4 // size and count % STEP == 0:
        if size == 2:
            _gather16(out, a, count)
        else:
            _gather8(out, a, count)
    elif step == 1 and to == 4 // size and count % STEP == 0:
        if size == 2:
            _scatter16(out, a, count)
        else:
            _scatter8(out, a, count)
    elif size == 2:
        x2 = carray(pointer(a), (count * step,), np.uint16)
        z2 = carray(pointer(out), (count * to,), np.uint16)
        for i in range(count):
            z2[i * to] = x2[i * step]
    else:
        x1 = carray(pointer(a), (count * step,), np.uint8)
        z1 = carray(pointer(out), (count * to,), np.uint8)
        for i in range(count):
            z1[i * to] = x1[i * step]


def _lanes(out: Any, a: Any, size: Any, chosen: Any, runs: Any, lanes: Any) -> None:
    """out[i] = a[chosen[i]], zero where that is negative.

    If there are `runs`, `chosen` holds for each where it goes, where it comes from and its length.
    """
    for run in range(runs):
        there, here = out + size * chosen[3 * run], a + size * chosen[3 * run + 1]
        count = size * chosen[3 * run + 2]
        x, z = carray(pointer(here), (count,), np.uint8), carray(pointer(there), (count,), np.uint8)
        for i in range(count):
            z[i] = x[i]
    if runs:
        return
    if size == 4:
        x4, z4 = carray(pointer(a), (lanes,), np.uint32), carray(pointer(out), (lanes,), np.uint32)
        for i in range(lanes):
            z4[i] = x4[np.uint64(chosen[i])] if chosen[i] >= 0 else np.uint32(0)
    elif size == 2:
        x2, z2 = carray(pointer(a), (lanes,), np.uint16), carray(pointer(out), (lanes,), np.uint16)
        for i in range(lanes):
            z2[i] = x2[np.uint64(chosen[i])] if chosen[i] >= 0 else np.uint16(0)
    else:
        x1, z1 = carray(pointer(a), (lanes,), np.uint8), carray(pointer(out), (lanes,), np.uint8)
        for i in range(lanes):
            z1[i] = x1[np.uint64(chosen[i])] if chosen[i] >= 0 else np.uint8(0)


def _key(bits: Any) -> Any:
    """Integers in the order of the floats whose bits these are, -0 below +0."""
    return bits if bits >= 0 else np.int32(bits ^ np.int32(0x7FFFFFFF))


def _arithmetic(op: Any, out: Any, a: Any, b: Any, lanes: Any) -> None:
    """+, - and * on fp32."""
    x, y = carray(pointer(a), (lanes,), np.float32), carray(pointer(b), (lanes,), np.float32)
    z = carray(pointer(out), (lanes,), np.float32)
    if op == code.ADD:
        for i in range(lanes):
            value = x[i] + y[i]
            z[i] = value if value == value else NAN
    elif op == code.SUB:
        for i in range(lanes):
            value = x[i] - y[i]
            z[i] = value if value == value else NAN
    else:
        for i in range(lanes):
            value = x[i] * y[i]
            z[i] = value if value == value else NAN


def _extreme(op: Any, out: Any, a: Any, b: Any, lanes: Any) -> None:
    """The larger or the smaller of two, fp32; NaN if either is. Integers only: it vectorises."""
    x, y = carray(pointer(a), (lanes,), np.int32), carray(pointer(b), (lanes,), np.int32)
    z = carray(pointer(out), (lanes,), np.int32)
    turn = np.int32(0 if op == code.MAX else -1)
    for i in range(lanes):
        p, q = x[i], y[i]
        unordered = max(np.int32(p & _SIZE), np.int32(q & _SIZE)) > _INFINITY
        first = np.int32(key(p) ^ turn) > np.int32(key(q) ^ turn)
        z[i] = _NAN32 if unordered else (p if first else q)


def _extreme16(op: Any, out: Any, a: Any, b: Any, lanes: Any) -> None:
    """The larger or the smaller of two, fp16; NaN if either is."""
    x, y = carray(pointer(a), (lanes,), np.int16), carray(pointer(b), (lanes,), np.int16)
    z = carray(pointer(out), (lanes,), np.uint16)
    largest = op == code.MAX16
    for i in range(lanes):
        p, q = np.int32(x[i]), np.int32(y[i])
        unordered = (p & 0x7FFF) > 0x7C00 or (q & 0x7FFF) > 0x7C00
        first = (p if p >= 0 else p ^ 0x7FFF) > (q if q >= 0 else q ^ 0x7FFF)
        chosen = np.uint16(x[i] if first == largest else y[i])
        z[i] = _NAN16 if unordered else chosen


def _function(op: Any, out: Any, a: Any, lanes: Any) -> None:
    """A function of fp32."""
    x, z = carray(pointer(a), (lanes,), np.float32), carray(pointer(out), (lanes,), np.float32)
    if op == code.EXP:
        for i in range(lanes):
            z[i] = exp1(x[i])
    elif op == code.TANH:
        for i in range(lanes):
            z[i] = tanh1(x[i])
    elif op == code.RSQRT:
        for i in range(lanes):
            z[i] = rsqrt1(x[i])
    else:
        for i in range(lanes):
            z[i] = reciprocal1(x[i])


def _convert(op: Any, out: Any, a: Any, lanes: Any) -> None:
    """fp32 to fp16 and back."""
    if op == code.TO_F16 and HALF_IN_HARDWARE:
        _half_row(out, a, lanes)
    elif op == code.TO_F16:
        x = carray(pointer(a), (lanes,), np.float32)
        z = carray(pointer(out), (lanes,), np.uint16)
        for i in range(lanes):
            z[i] = half_bits1(x[i])
    else:
        bits = carray(pointer(a), (lanes,), np.uint16)
        wide = carray(pointer(out), (lanes,), np.float32)
        _widen_row(bits, 0, lanes, wide, lanes)
        for i in range(lanes):  # the conversion may make a number of what is none
            if (bits[i] & 0x7C00) == 0x7C00:
                sign = np.float32(-np.inf) if bits[i] >> 15 else np.float32(np.inf)
                wide[i] = sign if (bits[i] & 0x3FF) == 0 else NAN


def _add_int(out: Any, a: Any, b: Any, lanes: Any) -> None:
    x, y = carray(pointer(a), (lanes,), np.uint32), carray(pointer(b), (lanes,), np.uint32)
    z = carray(pointer(out), (lanes,), np.uint32)
    for i in range(lanes):
        z[i] = np.uint32(x[i] + y[i])


def _quantise(op: Any, out: Any, a: Any, lanes: Any) -> None:
    """The magnitude of fp32, fp32 to int8 with saturation, and int32 to fp32."""
    x = carray(pointer(a), (lanes,), np.float32)
    if op == code.ABS:
        bits = carray(pointer(a), (lanes,), np.uint32)
        z = carray(pointer(out), (lanes,), np.uint32)
        for i in range(lanes):
            z[i] = bits[i] & np.uint32(0x7FFFFFFF)
    elif op == code.TO_I8:
        small = carray(pointer(out), (lanes,), np.int8)
        for i in range(lanes):
            near = min(max(np.rint(x[i]), np.float32(-128)), np.float32(127))
            small[i] = np.int8(near if x[i] == x[i] else np.float32(0))
    else:
        whole = carray(pointer(a), (lanes,), np.int32)
        wide = carray(pointer(out), (lanes,), np.float32)
        for i in range(lanes):
            wide[i] = np.float32(whole[i])


def _one_row(op: Any, out: Any, a: Any, b: Any, lanes: Any) -> None:
    """Do a point-wise operation on a row."""
    if op <= code.MUL:
        arithmetic(op, out, a, b, lanes)
    elif op <= code.MIN:
        extreme(op, out, a, b, lanes)
    elif op <= code.RECIP:
        function(op, out, a, lanes)
    elif op <= code.TO_F32:
        convert(op, out, a, lanes)
    elif op <= code.MIN16:
        extreme16(op, out, a, b, lanes)
    elif op == code.ADD_I32:
        add_int(out, a, b, lanes)
    else:
        quantise(op, out, a, lanes)


copy, move_lanes, key, arithmetic, extreme = (
    numba.njit(nogil=True, error_model="numpy")(one)
    for one in (_copy, _lanes, _key, _arithmetic, _extreme)
)
extreme16, function, convert, add_int, quantise = (
    numba.njit(nogil=True, error_model="numpy")(one)
    for one in (_extreme16, _function, _convert, _add_int, _quantise)
)
one_row = numba.njit(nogil=True, error_model="numpy")(_one_row)
