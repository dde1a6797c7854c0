"""Runs tapes, compiled: segments of a program without a line of Python between their steps.

`chip.numerics.opcodes` says how a tape is written. Products are shared with helper threads; what a
helper reads and writes in a pass lies in a scratch buffer, so that one that comes too late can be
left alone with it.
"""

from typing import Any

import numba
import numpy as np

from chip.numerics import opcodes as code
from chip.numerics.activations import find_runs, spread8, spread16, x_bytes
from chip.numerics.backend import GRAIN
from chip.numerics.cache import address, cached
from chip.numerics.rows import copy, move_lanes, one_row
from chip.numerics.settle import exact_dot
from chip.numerics.shared import LATE, WORDS, lead
from chip.numerics.team import MAX_PIECES, call, pointer
from chip.numerics.words import PIECE, UNKNOWN, keep, parts, word, words

types: Any = numba.types
carray: Any = vars(numba)["carray"]
_PIECE, _RECORD, _APPEND, _BEFORE, _AFTER = range(5)  # of the functions
_LEAST_WORK = 1 << 16  # products in a piece, some 5 microseconds
_EVERYTHING = 1 << 40  # longer than any table or tape


def _start(tape: Any, at: Any, bases: Any, shifts: Any, word_bytes: Any) -> Any:
    """Return the address of an operand."""
    place = bases[tape[at + code.BASE]] + tape[at + code.OFFSET]
    shift = tape[at + code.SHIFT]
    return place + shifts[shift] * word_bytes if shift >= 0 else place


def _row(tape: Any, at: Any, number: Any, tables: Any) -> Any:
    """Return how far a row of an operand lies from its start."""
    index = tape[at + code.INDEX]
    return (tables[index + number] if index >= 0 else number) * tape[at + code.STRIDE]


def _forget(group: Any, number: Any, stats: Any) -> None:
    """Forget the statistics of a word; a part belongs to up to four weight groups."""
    for first in range(max(group - 3, 0), group + 1):
        if stats[first]:
            about = stats[first] + number * 8 * code.STATS_WIDTH
            carray(pointer(about), (1,), np.float64)[0] = 0.0


def _touch(tape: Any, at: Any, place: Any, bases: Any, stats: Any, word_bytes: Any) -> None:
    """Forget the statistics of the word that has been written."""
    group = tape[at + code.TOUCHED]
    forget(group, (place - bases[code.GROUPS + group]) // word_bytes, stats)


def _record(place: Any, at: Any) -> Any:
    """Do a record that is not a product, row by row."""
    about = words(place)
    tape, bases, stats = (
        words(about[code.TAPE]),
        words(about[code.BASES]),
        words(about[code.STATISTICS]),
    )
    shifts, tables, lanes = (
        words(about[code.SHIFTS]),
        words(about[code.TABLES]),
        about[code.ROW_LANES],
    )
    op, word_bytes = tape[at + code.OP], 4 * lanes
    out = start(tape, at + code.OUT, bases, shifts, word_bytes)
    a = start(tape, at + code.A, bases, shifts, word_bytes)
    for number in range(tape[at + code.ROWS]):
        there = out + row(tape, at + code.OUT, number, tables)
        here = a + row(tape, at + code.A, number, tables)
        if op == code.COPY:
            step, size = tape[at + code.FROM], tape[at + code.SIZE]
            copy(there, tape[at + code.TO], here, step, size, lanes)
            if tape[at + code.TOUCHED] >= 0:
                touch(tape, at, there, bases, stats, word_bytes)
        elif op == code.LANES:
            chosen = tables[tape[at + code.MAP] :]
            move_lanes(there, here, tape[at + code.SIZE], chosen, tape[at + code.RUNS], lanes)
        else:
            b = start(tape, at + code.B, bases, shifts, word_bytes)
            one_row(op, there, here, b + row(tape, at + code.B, number, tables), lanes)
    return 0


def _append(place: Any, at: Any) -> Any:
    """Write fp16 rows of A at the addresses in the map rows of B; return whether all are inside."""
    about = words(place)
    tape, bases, stats = (
        words(about[code.TAPE]),
        words(about[code.BASES]),
        words(about[code.STATISTICS]),
    )
    shifts, tables, lanes = (
        words(about[code.SHIFTS]),
        words(about[code.TABLES]),
        about[code.ROW_LANES],
    )
    tile = about[code.TILE_LANES]
    rows, word_bytes = tape[at + code.ROWS], 4 * lanes
    data = start(tape, at + code.A, bases, shifts, word_bytes)
    maps = start(tape, at + code.B, bases, shifts, word_bytes)
    base = tape[at + code.REGION_BASE] + shifts[tape[at + code.REGION_SHIFT]]
    for number in range(rows):
        where = maps + row(tape, at + code.B, number, tables)
        for lane in range(0, lanes, tile):
            if (
                carray(pointer(where), (2 * lanes,), np.uint16)[2 * lane]
                >= tape[at + code.REGION_WORDS]
            ):
                return 0
    log = carray(pointer(start(tape, at + code.OUT, bases, shifts, 0)), (_EVERYTHING,), np.int64)
    count = 0  # of the words that are noted behind it
    for number in range(rows):
        pair = number // (rows // tape[at + code.PAIRS])
        group = tape[at + code.FIRST_GROUP] + pair // 2
        source = data + row(tape, at + code.A, number, tables)
        chosen = carray(
            pointer(maps + row(tape, at + code.B, number, tables)), (2 * lanes,), np.uint16
        )
        for lane in range(0, lanes, tile):
            where = base + chosen[2 * lane]
            there = bases[code.GROUPS + group] + where * word_bytes
            copy(there + 4 * lane + 2 * (pair % 2), 2, source + 4 * lane, 2, 2, tile)
            forget(group, where, stats)
            if count == 0 or log[count] != where:
                count += 1
                log[count] = where
    log[0] = count
    return 1


def _spread(
    tape: Any, at: Any, bases: Any, shifts: Any, tables: Any, scratch: Any, lanes: Any
) -> None:
    """Bring the rows of x of a record into the scratch as products want them; clear its sums."""
    floats, masks = np.empty(lanes, np.float32), np.empty(lanes // GRAIN, np.uint32)
    fp16 = tape[at + code.FORMAT] == code.FP16
    a = start(tape, at + code.A, bases, shifts, 4 * lanes)
    if tape[at + code.ZEROED]:
        sums = scratch + tape[at + code.OUT_SCRATCH]
        carray(pointer(sums), (tape[at + code.ROWS] * lanes,), np.uint32)[:] = 0
    for number in range(tape[at + code.X_ROWS]):
        here = a + row(tape, at + code.A, number, tables)
        there = scratch + tape[at + code.X_SCRATCH] + number * x_bytes(fp16, lanes)
        if fp16:
            spread16(here, masks, floats, there, lanes)
        else:
            spread8(here, there, lanes)
    if fp16:
        find_runs(scratch + tape[at + code.X_SCRATCH], tape[at + code.X_ROWS], lanes)


def _deal(
    tape: Any, at: Any, bases: Any, shifts: Any, tables: Any, scratch: Any, lanes: Any,
    doubtful: Any,
) -> None:  # fmt: skip
    """Bring the sums of a record from the scratch to their rows."""
    size = 4 * lanes
    out = start(tape, at + code.OUT, bases, shifts, size)
    for number in range(tape[at + code.ROWS]):
        row = tables[tape[at + code.ORDER] + number]
        sums = scratch + tape[at + code.OUT_SCRATCH] + number * size
        copy(out + row * size, 1, sums, 1, 4, lanes)
    for tile in range(tape[at + code.TILES] if doubtful else 0):
        begin = tape[at + code.STARTS] + tile
        for number in range(tables[begin], tables[begin + 1]):
            row = tables[tape[at + code.ORDER] + number]
            target = carray(pointer(out + row * size), (lanes,), np.uint32)
            settle(tape, at, tile, row, target, bases, shifts, tables, lanes)


def _settle(
    tape: Any, at: Any, tile: Any, number: Any, target: Any, bases: Any, shifts: Any, tables: Any,
    lanes: Any,
) -> None:  # fmt: skip
    """Replace the doubtful sums of a row, which are NaN, by exact ones."""
    values, loads = target.view(np.float32), tape[at + code.LOADS]
    a = start(tape, at + code.A, bases, shifts, 4 * lanes)
    a += row(tape, at + code.A, number % tape[at + code.X_ROWS], tables)
    x = carray(pointer(a), (lanes,), np.uint16)
    for load in range(loads):
        first = tables[tape[at + code.TABLE_FIRST] + load]
        where = word(tape, at, tile * loads + load, shifts, tables)
        for column in range(8):
            if values[first + column] != values[first + column]:
                place = parts(tape, at, where, bases, lanes)[column // 2] + 2 * (column % 2)
                w = carray(pointer(place), (2 * lanes - 1,), np.uint16)
                values[first + column] = exact_dot(x, w, 2, lanes)


def _before(place: Any, at: Any) -> Any:
    """Prepare a run of independent products; return how many products of two numbers it has."""
    about = words(place)
    tape, bases = words(about[code.TAPE]), words(about[code.BASES])
    shifts, tables, lanes = (
        words(about[code.SHIFTS]),
        words(about[code.TABLES]),
        about[code.ROW_LANES],
    )
    work = 0
    for record in range(at, at + tape[at + code.LEFT] * code.WIDTH, code.WIDTH):
        spread(tape, record, bases, shifts, tables, about[code.SCRATCH], lanes)
        work += tape[record + code.ROWS] * tape[record + code.LOADS]
    return work * 8 * lanes


def _after(place: Any, at: Any) -> Any:
    """Bring the results of a run of products to their place.

    Records begin at multiples of 8: `at` is 1 more if some are doubtful, 2 more if some words
    have no statistics.
    """
    about = words(place)
    tape, bases, stats = (
        words(about[code.TAPE]),
        words(about[code.BASES]),
        words(about[code.STATISTICS]),
    )
    shifts, tables, lanes = (
        words(about[code.SHIFTS]),
        words(about[code.TABLES]),
        about[code.ROW_LANES],
    )
    flags, at = at % 8, at - at % 8
    for record in range(at, at + tape[at + code.LEFT] * code.WIDTH, code.WIDTH):
        deal(tape, record, bases, shifts, tables, about[code.SCRATCH], lanes, flags & 1)
        if flags & 2:
            keep(tape, record, bases, stats, shifts, tables, lanes)
    return 0


def _products(about: Any, at: Any, tape: Any, functions: Any, control: Any, threads: Any) -> Any:
    """Do a run of independent products; return how many pieces it had if a helper was late."""
    place = about.ctypes.data
    last = at + (tape[at + code.LEFT] - 1) * code.WIDTH
    total = tape[last + code.UNIT] + tape[last + code.TILES] * tape[last + code.LOADS]
    pieces = min(min(MAX_PIECES, total), call(functions[_BEFORE], place, at) // _LEAST_WORK)
    job = np.empty(WORDS, np.int64)
    job[0], job[1], job[2], job[3] = functions[_PIECE], pieces, total, place
    job[4], job[5] = at, about[code.SCRATCH]
    if threads < 2 or pieces < 2:
        job[1] = pieces = 1
    count = lead(control, job, pieces)
    found = count % LATE
    flags = (1 if found % UNKNOWN else 0) + (2 if found >= UNKNOWN else 0)
    call(functions[_AFTER], place, at + flags)
    return pieces if count >= LATE else 0


def _run(parts: Any, functions: Any, control: Any, threads: Any, scratch: Any, spare: Any) -> Any:
    """Run parts [n, PART_WORDS], by the addresses of `functions`.

    Returns the number of the part and the record that failed, or -1, and the pieces of a run
    in which a helper was late, or 0.
    """
    late = 0
    for number in range(len(parts)):
        about = parts[number]
        about[code.SCRATCH] = spare if late else scratch
        tape = words(about[code.TAPE])
        at, end = 0, about[code.COUNT] * code.WIDTH
        while at < end:
            if tape[at + code.OP] == code.PRODUCTS:
                found = products(about, at, tape, functions, control, 1 if late else threads)
                if found:
                    late, about[code.SCRATCH] = found, spare
                at += tape[at + code.LEFT] * code.WIDTH
                continue
            if tape[at + code.OP] == code.APPEND:
                if call(functions[_APPEND], about.ctypes.data, at) == 0:
                    return number, at // code.WIDTH, late
            else:
                call(functions[_RECORD], about.ctypes.data, at)
            at += code.WIDTH
    return -1, -1, late


start, row, touch, forget = (numba.njit(nogil=True)(one) for one in (_start, _row, _touch, _forget))
spread, settle, deal = (numba.njit(nogil=True)(one) for one in (_spread, _settle, _deal))

_pair = types.int64(types.int64, types.int64)
# Addresses differ from process to process, so that kept code must be given them.
FUNCTIONS = np.array(
    [PIECE, *(address(one, _pair) for one in (_record, _append, _before, _after))], np.int64
)
products = numba.njit(nogil=True)(_products)
_result = types.Tuple((types.int64, types.int64, types.int64))
_words = types.Array(types.int64, 1, "C")
_arguments = (types.Array(types.int64, 2, "C"), _words, _words)
run_tape = cached(_run, _result(*_arguments, *(types.int64,) * 3))
