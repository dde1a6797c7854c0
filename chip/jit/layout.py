"""How records are written: what `chip.tape` encodes and `chip.jit.play` runs. No numba here.

A record does something to `times` rows of lanes, which lie side by side. Each class here is also
a NumPy structure with the same fields, by `structure`: compiled code reads them by name.
Of what is in both, `..._address` is where a structure lies, and its plain name the structure.
"""

import functools
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt

Untyped = Any  # what numba and llvmlite give and take: they have no types
CONSTANTS, ARENA, GROUPS = 0, 1, 2  # bases; after the groups of SRAM come the accumulators
ROWS, PRODUCTS, APPEND, GATHER = range(4)  # kinds of record
FP16, INT8 = 0, 1  # formats of PRODUCTS
COLUMNS = 8  # fp16 columns of a word
QUARTERS = 4  # arrays of four slices that a word of 16 slices lies in
GRAIN = 32  # lanes of a step: those of a chip are a multiple
TURN = 16  # lanes that are turned round together
# What has become of products is one integer, as addresses of functions give no more: how many sums
# are doubtful, UNKNOWN for each word whose statistics can be kept, LATE if a helper came too late.
UNKNOWN, LATE = 1 << 32, 1 << 62


class Operand(NamedTuple):
    """Rows of lanes: row n is at bases[base] + offset + stride * n, in bytes.

    Where `row_table` >= 0, n is tables[row_table + n] instead; where `shift` >= 0, all moves by
    shifts[shift] words.
    """

    base: int
    offset: int
    stride: int
    row_table: int = -1
    shift: int = -1


NOTHING = Operand(CONSTANTS, 0, 0)


class Record(NamedTuple):
    """One record; which fields count depends on `kind`. Fields called `..._table` index tables."""

    kind: int
    times: int
    out: Operand
    a: Operand
    b: Operand = NOTHING
    # ROWS: the address of a row kernel, given out, a, b and the number of lanes
    kernel: int = 0
    touched: int = -1  # SRAM group that is written, or -1
    # PRODUCTS: tile t is words word_table + t * loads + j; load j fills columns from
    # column_table + j on; rows order[i] % x_rows of a, for i from starts[t] to starts[t + 1], meet
    # it and make row order[i] of out
    format: int = FP16
    spread: int = 0  # addresses of what brings a row of x in shape, and of what multiplies a word
    multiply: int = 0
    tiles: int = 0
    loads: int = 0
    word_table: int = 0
    column_table: int = 0
    start_table: int = 0
    order_table: int = 0
    x_rows: int = 0
    # quarters of each word: in bases from quarters_base on if quarters_step is 0, else in that one,
    # so many bytes apart
    quarters_base: int = 0
    quarters_offset: int = 0
    quarters_step: int = 0
    quarters_shift: int = -1
    statistics: int = -1  # first SRAM group, if `Statistics` of its words are kept, else -1
    first_load: int = 0  # loads of the records before this in its run
    x_scratch: int = 0  # bytes into the scratch
    out_scratch: int = 0
    statistics_scratch: int = 0  # of each load, until they are kept
    left: int = 0  # records from this one to the end of its run: they are independent
    zeroed: int = 0  # whether columns that no load fills are to be zero
    # APPEND
    region_shift: int = 0
    region_base: int = 0
    region_words: int = 0
    first_group: int = 0
    pairs: int = 1
    # GATHER: from the region of APPEND's fields, `width` bytes of each lane from byte `byte` on,
    # of the word that row n of a names in each tile, to row n of out
    width: int = 4
    byte: int = 0


@dataclass
class Part:
    """Records to be played: addresses of these, of bases, statistics, shifts and tables; sizes."""

    records: int
    bases: int
    statistics: int  # by SRAM group, the address of its `Statistics`
    shifts: int
    tables: int
    count: int
    lanes: int
    tile_lanes: int
    scratch: int = 0


@dataclass
class Job:
    """A run of products that threads share: its loads, each of a word, in numbered pieces."""

    pieces: int
    part: int
    first: int  # record
    loads: int
    scratch: int


@dataclass
class Play:
    """A call of `play.play`: parts, the threads that may help, two scratch buffers, functions.

    It notes the part and the record that failed, or -1, and the pieces of a run in which a helper
    was late, or 0.
    """

    parts: int
    count: int
    job: int
    control: int
    threads: int
    scratch: int
    spare: int
    rows: int
    append: int
    gather: int
    before: int
    after: int
    piece: int
    failed_part: int = -1
    failed_record: int = -1
    late: int = 0


@dataclass
class Statistics:
    """What exact products know of a word of weights; `lanes` are 0 until it is known.

    `unit` is that of its least magnitude, `peak` the largest 2-norm of its columns: -1 until the
    norms of its 8 fp16 columns are known, infinite if one of its numbers is not finite. Products of
    int8 know the lanes only. `padding` makes it two cache lines.
    """

    lanes: int
    unit: float
    peak: float
    norms: list[float]
    padding: list[float]


@dataclass
class Row:
    """What exact products know of a row of fp16 x; it lies behind the row.

    Its 2-norm; below which norm * |w| its sums are exact, but for the weights' unit; the first lane
    and the number of lanes that matter; the only lane that is not zero, or -1; how many rows from
    this one on have one lane only, each the lane after that of the row before: a diagonal.
    """

    norm: float
    limit: float
    first: int
    count: int
    only: int
    diagonal: int


_LENGTHS = {"norms": COLUMNS, "padding": 5}


@functools.cache
def structure(known: type) -> np.dtype[np.void]:
    """The NumPy structure with the fields of one of these classes."""
    plain: dict[object, object] = {int: np.int64, float: np.float64}
    return np.dtype(
        [
            (name, np.float64, (_LENGTHS[name],))
            if name in _LENGTHS
            else (name, plain.get(kind) or structure(kind))
            for name, kind in get_type_hints(known).items()
        ]
    )


RECORD, PART, JOB, PLAY, STATISTICS, ROW = map(
    structure, (Record, Part, Job, Play, Statistics, Row)
)
JOB_WORDS = len(fields(Job))
_ROW_BYTES = ROW.itemsize


def x_bytes(format: int, lanes: int) -> int:
    """Bytes of a row of x in the scratch, in the format of its products, with its `Row`."""
    return 8 * lanes + (_ROW_BYTES if format == FP16 else 0)


def packed(*values: Part | Play) -> npt.NDArray[np.void]:
    """Values of one class, side by side in memory."""
    kind = PLAY if isinstance(values[0], Play) else PART
    return np.array([tuple(vars(value).values()) for value in values], kind)
