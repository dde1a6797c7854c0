"""Products with the columns of SRAM words, compiled: exact, and with no copy of the weights.

As in `chip.numerics.passes`, but weights are read where they rest, and only in the lanes in which
x is not zero: queries of one head fill a fifth of a row, rows of an identity matrix one lane.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.activations import about_x, x_bytes
from chip.numerics.backend import error_factor
from chip.numerics.cache import address
from chip.numerics.exact import NAN
from chip.numerics.half_columns import columns16, diagonal16, widen16_word
from chip.numerics.survey import COLUMNS, norms, survey
from chip.numerics.team import pointer
from chip.numerics.word_vectors import DOT_OF_BYTES, columns8, columns8_bytes, widen8_word

carray: Any = vars(numba)["carray"]
RUN = 16  # rows of one lane each that are multiplied together
UNKNOWN = 1 << 32  # in the count of a piece, besides the doubtful results
_ERROR_AT_ZERO, _ERROR_PER_LANE = error_factor(0), error_factor(1) - error_factor(0)

_one, _two = columns16(1, False), columns16(2, True)
_single, _diagonal = diagonal16(1), diagonal16(RUN)
_widen16, _widen8 = widen16_word(), widen8_word()
_columns8, _columns8_bytes = columns8(), columns8_bytes()


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


def _stats(tape: Any, at: Any, word: Any, stats: Any, own: Any) -> Any:
    """Return the statistics of a word: those that are kept, or `own` to be filled."""
    group = tape[at + code.STATS]
    if group < 0:
        return own
    kept = carray(
        pointer(stats[group] + 8 * code.STATS_WIDTH * word), (code.STATS_WIDTH,), np.float64
    )
    return kept if kept[code.STATS_LANES] else own


def _keep(tape: Any, at: Any, bases: Any, stats: Any, shifts: Any, tables: Any, lanes: Any) -> None:
    """Keep the statistics of the words of a record that have none."""
    group, fp16 = tape[at + code.STATS], tape[at + code.FORMAT] == code.FP16
    if group < 0:
        return
    for load in range(tape[at + code.TILES] * tape[at + code.LOADS]):
        number = word(tape, at, load, shifts, tables)
        place = stats[group] + 8 * code.STATS_WIDTH * number
        found = carray(pointer(place), (code.STATS_WIDTH,), np.float64)
        if found[code.STATS_LANES] == 0.0:
            p0, p1, p2, p3 = parts(tape, at, number, bases, lanes)
            survey(p0, p1, p2, p3, lanes, fp16, found)
            if fp16 and found[code.STATS_PEAK] < 0:
                norms(p0, p1, p2, p3, found)


def _words(place: Any) -> Any:
    """Return the integers at an address, of which there are enough."""
    return carray(pointer(place), (1 << 40,), np.int64)


def _piece(place: Any, number: Any) -> Any:
    """Do a piece of a run of products; its units are words, each with all its rows of x.

    The job has the number of units, the part, the first record and the scratch buffer. Returns how
    many results are doubtful, and UNKNOWN for each word whose statistics could be kept.
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
    buffer = np.empty(8 * lanes + 2 * COLUMNS + code.STATS_WIDTH, np.float64)
    count = 0
    for record in range(at, at + tape[at + code.LEFT] * code.WIDTH, code.WIDTH):
        loads, before = tape[record + code.LOADS], tape[record + code.UNIT]
        start, stop = max(first - before, 0), min(last - before, tape[record + code.TILES] * loads)
        for load in range(start, stop):
            count += one_unit(
                tape, record, load, bases, stats, shifts, tables, job[5], lanes, buffer
            )
    return count


def _unit(
    tape: Any, at: Any, load: Any, bases: Any, stats: Any, shifts: Any, tables: Any, scratch: Any,
    lanes: Any, buffer: Any,
) -> Any:  # fmt: skip
    """Multiply a word with all rows of x that meet it."""
    number = word(tape, at, load, shifts, tables)
    own = buffer[8 * lanes + 2 * COLUMNS :]
    own[code.STATS_LANES], fp16 = 0.0, tape[at + code.FORMAT] == code.FP16
    found = word_stats(tape, at, number, stats, own)
    place = parts(tape, at, number, bases, lanes)
    count = 0
    if found[code.STATS_LANES] == 0.0:
        survey(place[0], place[1], place[2], place[3], lanes, fp16, found)
        count = UNKNOWN if tape[at + code.STATS] >= 0 else 0
    loads = tape[at + code.LOADS]
    tile, column = load // loads, load % loads
    starts = tape[at + code.STARTS] + tile
    begin, rows = tables[starts], tables[starts + 1] - tables[starts]
    x, size = scratch + tape[at + code.X_SCRATCH], x_bytes(fp16, lanes)
    out = scratch + tape[at + code.OUT_SCRATCH] + 4 * lanes * begin
    out += 4 * tables[tape[at + code.TABLE_FIRST] + column]
    chosen = tables[tape[at + code.ORDER] + begin :]
    if fp16:
        modulus = tape[at + code.X_ROWS]
        return count + unit16(place, x, size, chosen, modulus, rows, out, lanes, found, buffer)
    unit8(place, x, size, chosen, tape[at + code.X_ROWS], rows, out, lanes, found, buffer)
    return count


def _unit8(
    place: Any, x: Any, size: Any, chosen: Any, modulus: Any, rows: Any, out: Any, lanes: Any,
    found: Any, buffer: Any,
) -> None:  # fmt: skip
    used, wide = np.int64(found[code.STATS_LANES]), buffer.ctypes.data
    if DOT_OF_BYTES:
        p0, p1, p2, p3 = place
        for m in range(rows):
            row = x + size * (chosen[m] % modulus)
            _columns8_bytes(p0, p1, p2, p3, row, used, out + 4 * lanes * m)
        return
    for part in range(4):
        _widen8(place[part], used, wide + 8 * used * part)
    for m in range(rows):
        _columns8(wide, x + size * (chosen[m] % modulus), used, out + 4 * lanes * m)


def _one_lane(
    place: Any, row: Any, size: Any, about: Any, found: Any, left: Any, target: Any, lanes: Any
) -> Any:
    """Multiply a row with one lane that is not zero, or RUN of them if as many are left.

    Return how many were done, and how many results are doubtful.
    """
    lane = np.int64(about[code.X_ONLY])
    s, x = 4 * lane, row + 8 * lane
    p0, p1, p2, p3 = place
    if not found[code.STATS_PEAK] < np.inf:
        carray(pointer(target), (COLUMNS,), np.float32)[:] = NAN
        return 1, COLUMNS
    if about[code.X_RUN] < RUN or left < RUN:
        _single(p0 + s, p1 + s, p2 + s, p3 + s, x, 0, target, 0)
        return 1, 0
    _diagonal(p0 + s, p1 + s, p2 + s, p3 + s, x, size + 8, target, 4 * lanes)
    return RUN, 0


def _unit16(
    place: Any, x: Any, size: Any, chosen: Any, modulus: Any, rows: Any, out: Any, lanes: Any,
    found: Any, buffer: Any,
) -> Any:  # fmt: skip
    """Products of fp16: rows in pairs, as these share the widened weights; rows of one lane."""
    used, wide = np.int64(found[code.STATS_LANES]), buffer.ctypes.data
    p0, p1, p2, p3 = place
    sums, step, widened, count, m = buffer[8 * lanes :], 16 * used, False, 0, 0
    while m < rows:
        row, target = x + size * (chosen[m] % modulus), out + 4 * lanes * m
        about = about_x(row, lanes)
        if about[code.X_ONLY] >= 0:
            last = min(m + RUN, rows) - 1
            left = last + 1 - m if chosen[last] - chosen[m] == last - m else 1
            done, doubtful = one_lane(place, row, size, about, found, left, target, lanes)
            count, m = count + doubtful, m + done
            continue
        if found[code.STATS_PEAK] < 0:
            norms(p0, p1, p2, p3, found)
        first = np.int64(about[code.X_FIRST])
        end = first + np.int64(about[code.X_COUNT])
        other = x + size * (chosen[min(m + 1, rows - 1)] % modulus)
        next_about = about_x(other, lanes)
        if m + 1 == rows or next_about[code.X_ONLY] >= 0:
            span, s, t = max(min(end, used) - first, 0), 4 * first, 8 * first
            _one(p0 + s, p1 + s, p2 + s, p3 + s, row + t, 0, span, sums.ctypes.data)
            count += settled(sums, 0, about, found, span, target)
            m += 1
            continue
        if not widened:
            _widen16(p0, used, wide)
            _widen16(p1, used, wide + step)
            _widen16(p2, used, wide + 2 * step)
            _widen16(p3, used, wide + 3 * step)
            widened = True
        first = min(first, np.int64(next_about[code.X_FIRST]))
        end = max(end, np.int64(next_about[code.X_FIRST] + next_about[code.X_COUNT]))
        span, t = max(min(end, used) - first, 0), 8 * first
        w = wide + 16 * first
        _two(w, w + step, w + 2 * step, w + 3 * step, row + t, other - row, span, sums.ctypes.data)
        count += settled(sums, 0, about, found, span, target)
        count += settled(sums, COLUMNS, next_about, found, span, target + 4 * lanes)
        m += 2
    return count


def _settled(sums: Any, first: Any, about: Any, found: Any, used: Any, place: Any) -> Any:
    """Round eight sums to fp32; those that may round otherwise than the exact sum become NaN."""
    out = carray(pointer(place), (COLUMNS,), np.float32)
    for column in range(COLUMNS):
        out[column] = sums[first + column]
    limit = about[code.X_UNIT] * found[code.STATS_UNIT]
    if about[code.X_NORM] * found[code.STATS_PEAK] < limit:
        return 0
    count = 0
    for column in range(COLUMNS):
        bound = about[code.X_NORM] * found[code.STATS_NORMS + column]
        error = bound * (_ERROR_AT_ZERO + used * _ERROR_PER_LANE)
        total = sums[first + column]
        if not (bound < limit or np.float32(total - error) == np.float32(total + error)):
            out[column] = NAN
            count += 1
    return count


words, parts, word, word_stats = (
    numba.njit(nogil=True)(function) for function in (_words, _parts, _word, _stats)
)
settled, keep = (numba.njit(nogil=True)(function) for function in (_settled, _keep))
one_lane, unit8, unit16 = (
    numba.njit(nogil=True)(function) for function in (_one_lane, _unit8, _unit16)
)
one_unit = numba.njit(nogil=True)(_unit)
PIECE = address(_piece, numba.types.int64(numba.types.int64, numba.types.int64))
