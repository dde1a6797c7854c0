"""Plays records: segments of a program without a line of Python between their steps.

Products are shared with helper threads; what a helper reads and writes in a run lies in a scratch
buffer, so that one that comes too late can be left alone with it.
"""

import ctypes
import functools

import numba
import numpy as np
import numpy.typing as npt

from chip.jit.activations import bytes_of_x, find_diagonals
from chip.jit.cache import address
from chip.jit.exact import exact_dot
from chip.jit.layout import (
    COLUMNS,
    FP16,
    GATHER,
    GROUPS,
    JOB,
    LATE,
    PART,
    PRODUCTS,
    ROWS,
    UNKNOWN,
    Operand,
    Part,
    Play,
    Record,
    packed,
)
from chip.jit.memory import (
    INT,
    bytes_at,
    caller,
    floats_at,
    halves_at,
    inner,
    integer,
    integers_at,
    job_at,
    part_at,
    play_at,
    record_at,
    statistics_at,
    words_at,
)
from chip.jit.team import MAX_PIECES, Team, call, lead, serve
from chip.jit.weights import STATISTICS_BYTES, keep, quarter_of, word_of
from chip.jit.words import PIECE

_LEAST_WORK = 1 << 16  # products in a piece, some 5 microseconds
_PART_BYTES = PART.itemsize
_call3, _call4 = caller(3), caller(4)
_pair = INT(INT, INT)
Parts = npt.NDArray[np.void]  # of `PART`s
Bytes = npt.NDArray[np.uint8]


@inner
def _start(part: Part, operand: Operand) -> int:
    """The address of an operand."""
    place: int = integer(part.bases, operand.base) + operand.offset
    if operand.shift >= 0:
        place += integer(part.shifts, operand.shift) * 4 * part.lanes
    return place


@inner
def _row(part: Part, operand: Operand, number: int) -> int:
    """How far a row of an operand lies from its start."""
    if operand.row_table >= 0:
        number = integer(part.tables, operand.row_table + number)
    return number * operand.stride


@inner
def _forget(part: Part, group: int, word: int) -> None:
    """Forget the statistics of a word; a part belongs to up to four weight groups."""
    for first in range(group - 3, group + 1):
        statistics = integer(part.statistics, first) if first >= 0 else 0
        if statistics:
            statistics_at(statistics + STATISTICS_BYTES * word).lanes = 0


def _rows(part_address: int, number: int) -> int:
    """Do a record of a row kernel, row by row."""
    part = part_at(part_address)
    record = record_at(part, number)
    out, a, b = _start(part, record.out), _start(part, record.a), _start(part, record.b)
    for n in range(record.times):
        there, here = out + _row(part, record.out, n), a + _row(part, record.a, n)
        _call4(record.kernel, there, here, b + _row(part, record.b, n), part.lanes)
        if record.touched >= 0:
            rest = there - integer(part.bases, GROUPS + record.touched)
            _forget(part, record.touched, rest // (4 * part.lanes))
    return 0


def _append(part_address: int, number: int) -> int:
    """Write fp16 rows of a at the addresses in the map rows of b; return whether all are inside."""
    part = part_at(part_address)
    record = record_at(part, number)
    lanes, tile, rows = part.lanes, part.tile_lanes, record.times
    data, maps = _start(part, record.a), _start(part, record.b)
    base = record.region_base + integer(part.shifts, record.region_shift)
    for n in range(rows):
        chosen = halves_at(maps + _row(part, record.b, n), 2 * lanes)
        for lane in range(0, lanes, tile):
            if chosen[2 * lane] >= record.region_words:
                return 0
    log = integers_at(_start(part, record.out), 1 + rows * lanes)
    count = 0  # of the words that are noted behind it
    for n in range(rows):
        pair = n // (rows // record.pairs)
        group, half = record.first_group + pair // 2, 2 * (pair % 2)
        source = data + _row(part, record.a, n)
        chosen = halves_at(maps + _row(part, record.b, n), 2 * lanes)
        for lane in range(0, lanes, tile):
            word = base + np.int64(chosen[2 * lane])
            target = integer(part.bases, GROUPS + group) + word * 4 * lanes + half
            pairs, halves = halves_at(target + 4 * lane, 2 * tile), halves_at(source, 2 * lanes)
            for i in range(tile):
                pairs[2 * i] = halves[2 * (lane + i)]
            _forget(part, group, word)
            if count == 0 or log[count] != word:
                count += 1
                log[count] = word
    log[0] = count
    return 1


def _gather(part_address: int, number: int) -> int:
    """Read words at the addresses in the map rows of a; return whether all are inside."""
    part = part_at(part_address)
    record = record_at(part, number)
    lanes, tile, width = part.lanes, part.tile_lanes, record.width
    maps, out = _start(part, record.a), _start(part, record.out)
    first = record.region_base + integer(part.shifts, record.region_shift)
    region = integer(part.bases, GROUPS + record.first_group) + first * 4 * lanes
    for n in range(record.times):
        chosen = halves_at(maps + _row(part, record.a, n), lanes)
        target = out + _row(part, record.out, n)
        for lane in range(0, lanes, tile):
            word = np.int64(chosen[lane])
            if word >= record.region_words:
                return 0
            source = region + (word * lanes + lane) * 4
            if width == 4:
                whole, words = words_at(target + 4 * lane, tile), words_at(source, tile)
                for i in range(tile):
                    whole[i] = words[i]
            else:
                plane, bytes = bytes_at(target + lane, tile), bytes_at(source, 4 * tile)
                for i in range(tile):
                    plane[i] = bytes[4 * i + record.byte]
    return 1


@inner
def _spread(part: Part, record: Record) -> None:
    """Bring the rows of x into the scratch as products want them; clear its sums."""
    lanes, a, is_fp16 = part.lanes, _start(part, record.a), record.format == FP16
    if record.zeroed:
        sums = words_at(part.scratch + record.out_scratch, record.times * lanes)
        for i in range(record.times * lanes):
            sums[i] = 0
    x, size = part.scratch + record.x_scratch, bytes_of_x(record.format, lanes)
    for n in range(record.x_rows):
        _call3(record.spread, a + _row(part, record.a, n), x + n * size, lanes)
    if is_fp16:
        find_diagonals(x, record.x_rows, lanes)


@inner
def _make_exact(part: Part, record: Record, tile: int, row: int) -> None:
    """Replace the doubtful sums of a row, which are NaN, by exact ones: test 3."""
    lanes = part.lanes
    values = floats_at(_start(part, record.out) + 4 * lanes * row, lanes)
    x = _start(part, record.a) + _row(part, record.a, row % record.x_rows)
    for load in range(record.loads):
        first = integer(part.tables, record.column_table + load)
        word = word_of(part, record, tile * record.loads + load)
        for column in range(COLUMNS):
            if values[first + column] != values[first + column]:
                w = quarter_of(part, record, word, column // 2) + 2 * (column % 2)
                values[first + column] = exact_dot(x, w, lanes)


def _before(part_address: int, number: int) -> int:
    """Prepare a run of independent products; return how many products of two numbers it has."""
    part, work = part_at(part_address), 0
    for n in range(number, number + record_at(part, number).left):
        record = record_at(part, n)
        _spread(part, record)
        work += record.times * record.loads
    return work * COLUMNS * part.lanes


def _after(part_address: int, number_and_flags: int) -> int:
    """Bring the results of a run of products from the scratch to their rows.

    Takes 4 * record, + 1 if some are doubtful, + 2 if statistics of some words are not kept yet.
    They are kept here, by the one thread that goes on to write words: see `words.piece`.
    """
    part, number = part_at(part_address), number_and_flags // 4
    lanes, size = part.lanes, 4 * part.lanes
    for n in range(number, number + record_at(part, number).left):
        record = record_at(part, n)
        out, sums = _start(part, record.out), part.scratch + record.out_scratch
        for m in range(record.times):
            row = integer(part.tables, record.order_table + m)
            target, source = words_at(out + row * size, lanes), words_at(sums + m * size, lanes)
            for i in range(lanes):
                target[i] = source[i]
        if number_and_flags & 1 and record.format == FP16:
            for tile in range(record.tiles):
                table = part.tables + 8 * (record.start_table + tile)
                for m in range(integer(table, 0), integer(table, 1)):
                    _make_exact(part, record, tile, integer(part.tables, record.order_table + m))
        if number_and_flags & 2 and record.statistics >= 0:
            keep(part_address, n)
    return 0


def _run(play_address: int, _unused: int) -> int:
    """Run the parts of a play; returns 1, or 0 if a record failed."""
    play = play_at(play_address)
    job = job_at(play.job)
    for number in range(play.count):
        here = play.parts + number * _PART_BYTES
        part = part_at(here)
        part.scratch = play.spare if play.late else play.scratch
        n = 0
        while n < part.count:
            record = record_at(part, n)
            if record.kind == PRODUCTS:
                last = record_at(part, n + record.left - 1)
                job.loads = last.first_load + last.tiles * last.loads
                job.part, job.first, job.scratch = here, n, part.scratch
                pieces = min(job.loads, call(play.before, here, n) // _LEAST_WORK)
                alone = play.threads < 2 or pieces < 2 or play.late > 0
                job.pieces = 1 if alone else min(MAX_PIECES, pieces)
                count = lead(play.control, play.piece, play.job, job.pieces)
                doubtful = count % LATE
                flags = (1 if doubtful % UNKNOWN else 0) + (2 if doubtful >= UNKNOWN else 0)
                call(play.after, here, 4 * n + flags)
                if count >= LATE:
                    play.late, part.scratch = job.pieces, play.spare
                n += record.left
                continue
            if record.kind == ROWS:
                call(play.rows, here, n)
            elif call(play.gather if record.kind == GATHER else play.append, here, n) == 0:
                play.failed_part, play.failed_record = number, n
                return 0
            n += 1
    return 1


# Addresses differ from process to process, so that kept code must be given them.
_FUNCTIONS = {
    "rows": address(_rows, _pair),
    "append": address(_append, _pair),
    "gather": address(_gather, _pair),
    "before": address(_before, _pair),
    "after": address(_after, _pair),
    "piece": PIECE,
}
_callable = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_run_play = _callable(address(_run, _pair))
_serve = _callable(address(serve, _pair))
_ALONE = np.zeros(1, np.int64)


@functools.cache
def team() -> Team:
    """The threads of this process."""
    return Team(
        int(vars(numba.config)["NUMBA_NUM_THREADS"]) - 1, lambda words: _serve(words.ctypes.data, 0)
    )


def play(parts: Parts, scratch: Bytes, spare: Bytes, owner: object) -> tuple[int, int, bool]:
    """Run parts; `owner` keeps all that they point to.

    Returns the part and record that failed, or -1, and whether the scratch buffers must not be
    used again, as a helper that came late may still write there.
    """
    threads = team()
    job = np.zeros(1, JOB)
    with threads.helpers() as control:
        words = _ALONE if control is None else control
        found = packed(
            Play(
                parts=parts.ctypes.data,
                count=len(parts),
                job=job.ctypes.data,
                control=words.ctypes.data,
                threads=1 if control is None else threads.size,
                scratch=scratch.ctypes.data,
                spare=spare.ctypes.data,
                **_FUNCTIONS,
            )
        )
        _run_play(found.ctypes.data, 0)
        late = int(found["late"][0])
        if late:
            threads.abandon(late, (scratch, parts, job, owner))
        return int(found["failed_part"][0]), int(found["failed_record"][0]), late > 0
