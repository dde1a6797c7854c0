"""What exact products must know of a word of weights.

Of a word at rest it is kept until the word is written; of one that is read between two writes it
is worked out by the thread that multiplies it, for that one time.
"""

import numpy as np

from chip.jit.activations import unit_of
from chip.jit.cache import kernel
from chip.jit.columns16 import extremes_of_word, squares16
from chip.jit.layout import COLUMNS, FP16, GRAIN, QUARTERS, STATISTICS, Part, Record, Statistics
from chip.jit.memory import (
    INT,
    doubles_at,
    inner,
    integer,
    part_at,
    record_at,
    statistics_at,
)
from chip.jit.vectors import any_set

Place = tuple[int, int, int, int]  # addresses of the four quarters of a word
STATISTICS_BYTES = STATISTICS.itemsize
# A norm may be too large, never too small. An fp32 sum of at most 512 squares, which are exact, is
# off by less than 2**-15 of itself.
_SLACK = 1 + 2.0**-12
_any_lane = any_set(32, 0xFFFFFFFF, QUARTERS)
_NORMS = STATISTICS.fields["norms"][1] if STATISTICS.fields else 0


@inner
def quarter_of(part: Part, record: Record, word: int, number: int) -> int:
    """The address of one of the four quarters of a word."""
    offset: int = record.quarters_offset + word * 4 * part.lanes
    if record.quarters_step:
        offset += integer(part.bases, record.quarters_base) + number * record.quarters_step
    else:
        offset += integer(part.bases, record.quarters_base + number)
    return offset


@inner
def place_of(part: Part, record: Record, word: int) -> Place:
    """The addresses of the four quarters of a word."""
    return (
        quarter_of(part, record, word, 0),
        quarter_of(part, record, word, 1),
        quarter_of(part, record, word, 2),
        quarter_of(part, record, word, 3),
    )


@inner
def word_of(part: Part, record: Record, load: int) -> int:
    """The number of the word of a load."""
    word: int = integer(part.tables, record.word_table + load)
    if record.quarters_shift >= 0:
        word += integer(part.shifts, record.quarters_shift)
    return word


@inner
def _used_lanes(place: Place, lanes: int) -> int:
    """Count the lanes up to the last that is not zero in some quarter, by whole grains."""
    while lanes > GRAIN:
        ahead = 4 * (lanes - GRAIN)
        if _any_lane(place[0] + ahead, place[1] + ahead, place[2] + ahead, place[3] + ahead):
            break
        lanes -= GRAIN
    return lanes


@inner
def is_known(statistics: Statistics, format: int) -> bool:
    """Whether products of a format find what they need: those of int8 need the lanes alone."""
    return statistics.lanes > 0 and (format != FP16 or statistics.peak >= 0)


@kernel(INT(INT, INT, INT, INT))
def measure(part_address: int, number: int, load: int, statistics_address: int) -> int:
    """Fill in what is known of a load's word but for the norms, which `weight_norms` adds."""
    part = part_at(part_address)
    record, statistics = record_at(part, number), statistics_at(statistics_address)
    place = place_of(part, record, word_of(part, record, load))
    used = _used_lanes(place, part.lanes)
    statistics.lanes = used
    statistics.peak = -1
    if record.format != FP16:
        return 0
    found = extremes_of_word(place, used)
    statistics.unit = unit_of(found >> 16)
    if found & 0xFFFF >= 0x7C00:
        statistics.peak = np.inf
    norms = doubles_at(statistics_address + _NORMS, COLUMNS)
    for column in range(COLUMNS):
        norms[column] = np.inf
    return 0


@kernel(INT(INT, INT, INT, INT))
def weight_norms(part_address: int, number: int, load: int, statistics_address: int) -> int:
    """Fill in the norms of the columns of a word that has been measured."""
    part = part_at(part_address)
    record, statistics = record_at(part, number), statistics_at(statistics_address)
    norms = doubles_at(statistics_address + _NORMS, COLUMNS)
    place = place_of(part, record, word_of(part, record, load))
    squares16(place, statistics.lanes, statistics_address + _NORMS)
    peak = 0.0
    for column in range(COLUMNS):
        norms[column] = np.sqrt(norms[column] * _SLACK)
        peak = norms[column] if norms[column] > peak else peak
    statistics.peak = peak
    return 0


@kernel(INT(INT, INT))
def keep(part_address: int, number: int) -> int:
    """Keep what is to be known of the words of a record that have been written since."""
    part = part_at(part_address)
    record = record_at(part, number)
    first = integer(part.statistics, record.statistics)
    for load in range(record.tiles * record.loads):
        address = first + STATISTICS_BYTES * word_of(part, record, load)
        if not is_known(statistics_at(address), record.format):
            measure(part_address, number, load, address)
            if record.format == FP16 and statistics_at(address).peak < 0:
                weight_norms(part_address, number, load, address)
    return 0
