"""Products with the columns of SRAM words: exact, and with no copy of the weights.

Tests 1 and 2 of `chip.numerics.products` are made word by word: the unit is that of a word instead
of a tile, norms of weights are rounded up, and the bound counts the lanes that are multiplied. So
other sums may go on to test 3 than in the definition, but whichever does, none comes out otherwise:
what fails becomes NaN, and `play._make_exact` settles it with `exact_dot` over all lanes.

Only lanes are multiplied in which neither x nor the whole word is zero, by grains: queries of one
head fill a fifth of a row, rows of an identity matrix one lane. A lane left out would add 0; or NaN
if the other side is not finite there, but then its norm is infinite, and both tests fail.
"""

import functools

import numpy as np

from chip.jit.activations import bytes_of_x
from chip.jit.cache import address
from chip.jit.columns8 import columns8, columns8_bytes
from chip.jit.columns16 import columns16, diagonal16, widen_quarter
from chip.jit.layout import (
    COLUMNS,
    FP16,
    QUARTERS,
    UNKNOWN,
    Part,
    Record,
    Row,
    Statistics,
    Untyped,
)
from chip.jit.memory import (
    INT,
    caller,
    doubles_at,
    emitted,
    floats_at,
    inner,
    integer,
    job_at,
    part_at,
    record_at,
    row_at,
    statistics_at,
)
from chip.jit.vectors import DOT_OF_BYTES, I64, cgutils
from chip.jit.weights import (
    STATISTICS_BYTES,
    is_known,
    measure,
    place_of,
    quarter_of,
    weight_norms,
    word_of,
)
from chip.numerics.exact import MAX_LANES, NAN
from chip.numerics.products import error_factor

DIAGONAL_ROWS = 16  # rows of one lane each that are multiplied together
# A thread's buffer: a word's columns widened, sums of two rows.
_SUMS = 8 * 2 * QUARTERS * MAX_LANES
_BUFFER_BYTES = _SUMS + 8 * 2 * COLUMNS

_one_row, _two_rows = columns16(1, False), columns16(2, True)
_one_row8, _two_rows8 = columns8(1), columns8(2)
_single, _diagonal = diagonal16(1), diagonal16(DIAGONAL_ROWS)
_multiply, _error_factor = caller(6), inner(error_factor)


@emitted(INT)
def _buffer(_context: Untyped, builder: Untyped, _args: Untyped) -> Untyped:
    """The address of a buffer on the stack."""
    buffer = cgutils.alloca_once(builder, I64, _BUFFER_BYTES // 8)
    return builder.ptrtoint(buffer, I64)


def piece(job_address: int, number: int) -> int:
    """Do a piece of a job; how many sums are doubtful, and UNKNOWN per word without statistics.

    Those are only read here, and worked out in the scratch where they are missing: a thread that is
    late would else keep them of a word that has been written since. `play._after` keeps them.
    """
    job = job_at(job_address)
    part, count, buffer = part_at(job.part), 0, _buffer()
    first, last = number * job.loads // job.pieces, (number + 1) * job.loads // job.pieces
    for n in range(job.first, job.first + record_at(part, job.first).left):
        record = record_at(part, n)
        load = first - record.first_load if first > record.first_load else 0
        stop, loads = last - record.first_load, record.tiles * record.loads
        while load < stop and load < loads:
            own = statistics = job.scratch + record.statistics_scratch + STATISTICS_BYTES * load
            if record.statistics >= 0:
                kept = integer(part.statistics, record.statistics)
                kept += STATISTICS_BYTES * word_of(part, record, load)
                if is_known(statistics_at(kept), record.format):
                    statistics = kept
                else:
                    count += UNKNOWN
            if statistics == own:
                measure(job.part, n, load, own)
            count += _multiply(record.multiply, job.part, n, load, job.scratch, statistics, buffer)
            load += 1
    return count


@inner
def _x_of(part: Part, record: Record, m: int) -> int:
    """Bytes into the scratch of the row of x of an iteration."""
    row: int = integer(part.tables, record.order_table + m) % record.x_rows
    return record.x_scratch + row * bytes_of_x(record.format, part.lanes)


@inner
def _out_of(part: Part, record: Record, load: int) -> int:
    """Bytes into the scratch of the columns of a load in a row of sums, the first of its tile."""
    first: int = integer(part.tables, record.start_table + load // record.loads)
    column: int = integer(part.tables, record.column_table + load % record.loads)
    return record.out_scratch + 4 * (part.lanes * first + column)


def _products8(
    part_address: int, number: int, load: int, scratch: int, statistics_address: int, _buffer: int
) -> int:
    """Multiply a word of int8 with all rows of x that meet it; none of the sums is doubtful."""
    part, used = part_at(part_address), statistics_at(statistics_address).lanes
    record = record_at(part, number)
    place = place_of(part, record, word_of(part, record, load))
    out, tile = scratch + _out_of(part, record, load), load // record.loads
    m, end = _iterations(part, record, tile)
    while m < end:
        x, done = scratch + _x_of(part, record, m), 1
        if DOT_OF_BYTES:
            columns8_bytes(place, x, used, out)
        elif m + 1 < end:
            other, done = scratch + _x_of(part, record, m + 1), 2
            _two_rows8(place, x, other - x, used, out, 4 * part.lanes)
        else:
            _one_row8(place, x, 0, used, out, 0)
        m, out = m + done, out + 4 * part.lanes * done
    return 0


@inner
def _iterations(part: Part, record: Record, tile: int) -> tuple[int, int]:
    """The first of the iterations that meet a tile, and the first that does not."""
    table = part.tables + 8 * (record.start_table + tile)
    return integer(table, 0), integer(table, 1)


def _products16(
    part_address: int, number: int, load: int, scratch: int, statistics_address: int, buffer: int
) -> int:
    """Multiply a word of fp16 with all rows of x that meet it; how many sums are doubtful.

    Rows are taken in pairs, as these share the widened weights; rows of one lane by DIAGONAL_ROWS.
    """
    part, statistics = part_at(part_address), statistics_at(statistics_address)
    record, lanes, used, count = record_at(part, number), part.lanes, statistics.lanes, 0
    word = word_of(part, record, load)
    place = place_of(part, record, word)
    out, is_widened = scratch + _out_of(part, record, load), False
    sums, step = buffer + _SUMS, 16 * used
    wide = buffer, buffer + step, buffer + 2 * step, buffer + 3 * step
    m, end = _iterations(part, record, load // record.loads)
    while m < end:
        x = scratch + _x_of(part, record, m)
        row = row_at(x + 8 * lanes)
        if row.only >= 0:
            done = 1  # and no test: one product is exact, where the weights are finite
            if not statistics.peak < np.inf:
                count += _all_doubtful(out)
            elif row.diagonal >= DIAGONAL_ROWS and _is_diagonal(part, record, m, end):
                done = DIAGONAL_ROWS
                _diagonal(place, row.only, x, bytes_of_x(FP16, lanes), out, 4 * lanes)
            else:
                _single(place, row.only, x, 0, out, 0)
            m, out = m + done, out + 4 * lanes * done
            continue
        if statistics.peak < 0:
            weight_norms(part_address, number, load, statistics_address)
        first, last, done, other = row.first, row.first + row.count, 1, x
        if m + 1 < end:
            other = scratch + _x_of(part, record, m + 1)
            next_row = row_at(other + 8 * lanes)
            if next_row.only < 0:
                done, next_last = 2, next_row.first + next_row.count
                first = next_row.first if next_row.first < first else first
                last = next_last if next_last > last else last
        last = last if last < used else used  # lanes beyond are 0 in x or in the word: see above
        span = last - first if last > first else 0
        if done == 1:
            _one_row(place, first, x, 0, span, sums)
        else:
            if not is_widened:
                for n in range(QUARTERS):
                    widen_quarter(quarter_of(part, record, word, n), used, buffer + step * n)
                is_widened = True
            _two_rows(wide, first, x, other - x, span, sums)
        for n in range(done):
            row = row_at((other if n else x) + 8 * lanes)
            count += _round_if_sure(sums + 8 * COLUMNS * n, row, statistics, span, out)
            out += 4 * lanes
        m += done
    return count


@inner
def _is_diagonal(part: Part, record: Record, m: int, end: int) -> bool:
    """Whether DIAGONAL_ROWS iterations from m on have rows that follow each other."""
    at, last = part.tables + 8 * record.order_table, m + DIAGONAL_ROWS - 1
    return last < end and integer(at, last) - integer(at, m) == DIAGONAL_ROWS - 1


@inner
def _all_doubtful(out: int) -> int:
    """NaN for all columns of a row."""
    columns = floats_at(out, COLUMNS)
    for column in range(COLUMNS):
        columns[column] = NAN
    return COLUMNS


@inner
def _round_if_sure(sums: int, row: Row, statistics: Statistics, lanes: int, out: int) -> int:
    """Round eight sums to fp32; those that may round otherwise than the exact sum become NaN."""
    totals, columns = doubles_at(sums, COLUMNS), floats_at(out, COLUMNS)
    for column in range(COLUMNS):
        columns[column] = totals[column]
    limit = row.limit * statistics.unit
    if row.norm * statistics.peak < limit:
        return 0
    count = 0
    for column in range(COLUMNS):
        bound = row.norm * statistics.norms[column]
        error = bound * _error_factor(lanes)
        same = np.float32(totals[column] - error) == np.float32(totals[column] + error)
        if not (bound < limit or same):
            columns[column] = NAN
            count += 1
    return count


PIECE = address(piece, INT(INT, INT))


@functools.cache
def multiplier(format: int) -> int:
    """The address of what multiplies a word of a format with rows of x."""
    return address(_products16 if format == FP16 else _products8, INT(*(INT,) * 6))
