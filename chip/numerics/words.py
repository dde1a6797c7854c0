"""Products with the columns of SRAM words, compiled: exact, and with no copy of the weights.

As in `chip.numerics.passes`, but weights are read where they rest, and what the exactness tests
need of a word is measured when it is first met after a write.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.backend import EXACT_UNITS, GRAIN, error_factor
from chip.numerics.cache import address
from chip.numerics.exact import NAN
from chip.numerics.passes import unit
from chip.numerics.team import pointer
from chip.numerics.vectors import widen16
from chip.numerics.word_vectors import columns8, columns16, widen8_word, widen16_word

carray: Any = vars(numba)["carray"]
COLUMNS = 8  # fp16 columns of a word
_ERROR_AT_ZERO, _ERROR_PER_LANE = error_factor(0), error_factor(1) - error_factor(0)

_one, _two, _squares = columns16(1, False), columns16(2, True), columns16(0, False)
_one_wide, _widen16, _widen8, _columns8 = (
    columns16(1, True),
    widen16_word(),
    widen8_word(),
    columns8(),
)
_widen_row = widen16(1)


def _parts(tape: Any, at: Any, word: Any, bases: Any, lanes: Any) -> Any:
    """Return the addresses of the four parts of a word."""
    step, base = tape[at + code.PARTS_STEP], tape[at + code.PARTS_BASE]
    offset = tape[at + code.PARTS_OFFSET] + word * 4 * lanes
    if step:
        first = bases[base] + offset
        return first, first + step, first + 2 * step, first + 3 * step
    return (
        bases[base] + offset,
        bases[base + 1] + offset,
        bases[base + 2] + offset,
        bases[base + 3] + offset,
    )


def _word(tape: Any, at: Any, load: Any, shifts: Any, tables: Any) -> Any:
    word = tables[tape[at + code.TABLE_WORDS] + load]
    shift = tape[at + code.PARTS_SHIFT]
    return word + shifts[shift] if shift >= 0 else word


def _stats(tape: Any, at: Any, word: Any, bases: Any, stats: Any) -> Any:
    """Return the statistics of a word."""
    group = tape[at + code.STATS]
    start = stats[group] if group >= 0 else bases[code.ARENA] + tape[at + code.STATS_OFFSET]
    place = start + 8 * code.STATS_WIDTH * word
    return carray(pointer(place), (code.STATS_WIDTH,), np.float64)


def _used(first: Any, others: Any, lanes: Any) -> Any:
    """Count the lanes up to the last that is not zero in one of four parts, by whole grains."""
    used = lanes
    while used > GRAIN:
        seen = 0
        for i in range(used - GRAIN, used):
            seen |= first[i] | others[0][i] | others[1][i] | others[2][i]
        if seen:
            break
        used -= GRAIN
    return used


def _measure(p0: Any, p1: Any, p2: Any, p3: Any, lanes: Any, fp16: Any, found: Any) -> None:
    """Fill the statistics of a word whose parts are at these addresses."""
    words = carray(pointer(p0), (lanes,), np.int32)
    others = (
        carray(pointer(p1), (lanes,), np.int32),
        carray(pointer(p2), (lanes,), np.int32),
        carray(pointer(p3), (lanes,), np.int32),
    )
    used = used_lanes(words, others, lanes)
    if fp16:
        least, most = np.uint16(0xFFFF), np.uint16(0)
        for part in (p0, p1, p2, p3):
            bits = carray(pointer(part), (2 * used,), np.uint16)
            for i in range(2 * used):
                magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
                least = min(least, np.uint16(magnitude - np.uint16(1)))
                most = max(most, magnitude)
        sums = found[code.STATS_NORMS :]
        _squares(p0, p1, p2, p3, 0, 0, used, sums.ctypes.data)
        peak = 0.0
        for column in range(COLUMNS):
            norm = np.inf if most >= 0x7C00 else np.sqrt(sums[column])
            sums[column] = norm
            peak = max(peak, norm)
        found[code.STATS_PEAK] = peak
        found[code.STATS_UNIT] = unit(np.int64(least))
    found[code.STATS_LANES] = used


def _ready(
    tape: Any, at: Any, bases: Any, stats: Any, shifts: Any, tables: Any, lanes: Any
) -> None:
    """Measure the words of a record that have been written since they were measured."""
    fresh = tape[at + code.STATS] < 0
    fp16 = tape[at + code.FORMAT] == code.FP16
    for load in range(tape[at + code.TILES] * tape[at + code.LOADS]):
        number = word(tape, at, load, shifts, tables)
        found = word_stats(tape, at, number, bases, stats)
        if fresh or found[code.STATS_LANES] == 0.0:
            p0, p1, p2, p3 = parts(tape, at, number, bases, lanes)
            measure(p0, p1, p2, p3, lanes, fp16, found)


def _spread16(row: Any, floats: Any, target: Any, lanes: Any) -> None:
    """Write fp16 lanes twice each as float64; after them the norm and the unit of the row."""
    bits = carray(pointer(row), (lanes,), np.uint16)
    out = carray(pointer(target), (2 * lanes + 2,), np.float64)
    _widen_row(bits, 0, lanes, floats, lanes)
    least, most = np.uint16(0xFFFF), np.uint16(0)
    for i in range(lanes):
        magnitude = np.uint16(bits[i] & np.uint16(0x7FFF))
        least = min(least, np.uint16(magnitude - np.uint16(1)))
        most = max(most, magnitude)
    for i in range(lanes):
        out[2 * i] = floats[i]
        out[2 * i + 1] = floats[i]
    out[2 * lanes] = np.inf if most >= 0x7C00 else norm(floats, lanes)
    out[2 * lanes + 1] = EXACT_UNITS * unit(np.int64(least))


def _norm(floats: Any, lanes: Any) -> Any:
    total = 0.0
    for i in range(lanes):
        total += np.float64(floats[i]) * np.float64(floats[i])
    return np.sqrt(total)


def _spread8(row: Any, target: Any, lanes: Any) -> None:
    """Write int8 lanes as int16, by fours, each four times: for four columns."""
    values = carray(pointer(row), (lanes,), np.int8)
    out = carray(pointer(target), (4 * lanes,), np.int16)
    for block in range(lanes // 4):
        for column in range(4):
            for i in range(4):
                out[16 * block + 4 * column + i] = values[4 * block + i]


def _x_bytes(fp16: Any, lanes: Any) -> Any:
    return 8 * (2 * lanes + 2) if fp16 else 8 * lanes


def _words(place: Any) -> Any:
    """Return the integers at an address, of which there are enough."""
    return carray(pointer(place), (1 << 40,), np.int64)


def _piece(place: Any, number: Any) -> Any:
    """Do a piece of a run of products; its units are words, each with all its rows of x.

    The job has the number of units, the part, the first record and the scratch buffer. Returns how
    many results are doubtful.
    """
    job = words(place)
    about = words(job[3])
    lanes, at = about[code.ROW_LANES], job[4]
    tape, bases, stats = (
        words(about[code.TAPE]),
        words(about[code.BASES]),
        words(about[code.STATISTICS]),
    )
    shifts, tables = words(about[code.SHIFTS]), words(about[code.TABLES])
    first, last = number * job[2] // job[1], (number + 1) * job[2] // job[1]
    buffer = np.empty(8 * lanes + 2 * COLUMNS, np.float64)
    doubtful = 0
    for record in range(at, at + tape[at + code.LEFT] * code.WIDTH, code.WIDTH):
        loads, before = tape[record + code.LOADS], tape[record + code.UNIT]
        start, stop = max(first - before, 0), min(last - before, tape[record + code.TILES] * loads)
        for load in range(start, stop):
            doubtful += one_unit(
                tape, record, load, bases, stats, shifts, tables, job[5], lanes, buffer
            )
    return doubtful


def _unit16(
    tape: Any, at: Any, load: Any, bases: Any, stats: Any, shifts: Any, tables: Any, scratch: Any,
    lanes: Any, buffer: Any,
) -> Any:  # fmt: skip
    number = word(tape, at, load, shifts, tables)
    found = word_stats(tape, at, number, bases, stats)
    used = np.int64(found[code.STATS_LANES])
    p0, p1, p2, p3 = parts(tape, at, number, bases, lanes)
    loads = tape[at + code.LOADS]
    tile, column = load // loads, load % loads
    starts, order = tape[at + code.STARTS] + tile, tape[at + code.ORDER]
    begin, rows = tables[starts], tables[starts + 1] - tables[starts]
    fp16 = tape[at + code.FORMAT] == code.FP16
    size = x_bytes(fp16, lanes)
    x = scratch + tape[at + code.X_SCRATCH]
    out = scratch + tape[at + code.OUT_SCRATCH] + 64 * (begin * loads + column * rows)
    wide, modulus = buffer.ctypes.data, tape[at + code.X_ROWS]
    if not fp16:
        step = 8 * used
        _widen8(p0, used, wide)
        _widen8(p1, used, wide + step)
        _widen8(p2, used, wide + 2 * step)
        _widen8(p3, used, wide + 3 * step)
        for m in range(rows):
            row = x + size * (tables[order + begin + m] % modulus)
            _columns8(wide, row, used, out + 64 * m)
        return 0
    sums = buffer[8 * lanes :]
    place, count, m = sums.ctypes.data, 0, 0
    if rows > 1:
        step = 16 * used
        _widen16(p0, used, wide)
        _widen16(p1, used, wide + step)
        _widen16(p2, used, wide + 2 * step)
        _widen16(p3, used, wide + 3 * step)
        while m + 1 < rows:
            row = x + size * (tables[order + begin + m] % modulus)
            gap = x + size * (tables[order + begin + m + 1] % modulus) - row
            _two(wide, wide + step, wide + 2 * step, wide + 3 * step, row, gap, used, place)
            count += settled(sums, 0, row, found, used, lanes, out + 32 * m)
            count += settled(sums, COLUMNS, row + gap, found, used, lanes, out + 32 * (m + 1))
            m += 2
    if m < rows:
        row = x + size * (tables[order + begin + m] % modulus)
        _one(p0, p1, p2, p3, row, 0, used, place)
        count += settled(sums, 0, row, found, used, lanes, out + 32 * m)
    return count


def _settled(sums: Any, first: Any, row: Any, found: Any, used: Any, lanes: Any, place: Any) -> Any:
    """Round eight sums to fp32; those that may round otherwise than the exact sum become NaN."""
    out = carray(pointer(place), (COLUMNS,), np.float32)
    about = carray(pointer(row + 16 * lanes), (2,), np.float64)
    for column in range(COLUMNS):
        out[column] = sums[first + column]
    limit = about[1] * found[code.STATS_UNIT]
    if about[0] * found[code.STATS_PEAK] < limit:
        return 0
    count = 0
    for column in range(COLUMNS):
        bound = about[0] * found[code.STATS_NORMS + column]
        error = bound * (_ERROR_AT_ZERO + used * _ERROR_PER_LANE)
        total = sums[first + column]
        if not (bound < limit or np.float32(total - error) == np.float32(total + error)):
            out[column] = NAN
            count += 1
    return count


words, parts, word, word_stats, used_lanes, x_bytes = (
    numba.njit(nogil=True)(function)
    for function in (_words, _parts, _word, _stats, _used, _x_bytes)
)
norm = numba.njit(nogil=True, fastmath={"reassoc", "contract"})(_norm)
settled = numba.njit(nogil=True)(_settled)
measure, spread8 = (numba.njit(nogil=True)(function) for function in (_measure, _spread8))
ready, spread16 = (numba.njit(nogil=True)(function) for function in (_ready, _spread16))
one_unit = numba.njit(nogil=True)(_unit16)
PIECE = address(_piece, numba.types.int64(numba.types.int64, numba.types.int64))
