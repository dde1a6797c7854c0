"""What exact products must know of a word of weights.

Of a word at rest it is kept until the word is written; of one that is read between two writes it
is worked out by the thread that multiplies it, for that one time.
"""

import numpy as np

from chip.jit.activations import unit_of
from chip.jit.cache import kernel
from chip.jit.columns16 import extremes16, squares16
from chip.jit.layout import COLUMNS, FP16, GRAIN, WORD, Part, Record
from chip.jit.memory import (
    INT,
    doubles_at,
    inner,
    integer,
    part_at,
    record_at,
    word_at,
)
from chip.jit.vectors import PARTS, any_bits

Place = tuple[int, int, int, int]  # addresses of the four parts of a word
WORD_BYTES = WORD.itemsize
_SLACK = 1 + 2.0**-12  # for the roundings of fp32 sums: a norm may be too large, never too small
_bits_of_words = any_bits(32)
_NORMS = WORD.fields["norms"][1] if WORD.fields else 0


@inner
def part_of(part: Part, record: Record, word: int, number: int) -> int:
    """The address of one of the four parts of a word."""
    offset: int = record.parts_offset + word * 4 * part.lanes
    if record.parts_step:
        offset += integer(part.bases, record.parts_base) + number * record.parts_step
    else:
        offset += integer(part.bases, record.parts_base + number)
    return offset


@inner
def place_of(part: Part, record: Record, word: int) -> Place:
    """The addresses of the four parts of a word."""
    return (
        part_of(part, record, word, 0),
        part_of(part, record, word, 1),
        part_of(part, record, word, 2),
        part_of(part, record, word, 3),
    )


@inner
def word_of(part: Part, record: Record, load: int) -> int:
    """The number of the word of a load."""
    word: int = integer(part.tables, record.word_table + load)
    if record.parts_shift >= 0:
        word += integer(part.shifts, record.parts_shift)
    return word


@inner
def _used_lanes(part: Part, record: Record, word: int) -> int:
    """Count the lanes up to the last that is not zero in some part, by whole grains."""
    used = part.lanes
    while used > GRAIN:
        seen = 0
        for number in range(PARTS):
            seen |= _bits_of_words(part_of(part, record, word, number) + 4 * (used - GRAIN))
        if seen:
            break
        used -= GRAIN
    return used


@kernel(INT(INT, INT, INT, INT))
def measure(part_address: int, number: int, load: int, word_address: int) -> int:
    """Fill in what is known of a load's word but for the norms, which `weight_norms` adds."""
    part = part_at(part_address)
    record, word = record_at(part, number), word_at(word_address)
    at = word_of(part, record, load)
    used = _used_lanes(part, record, at)
    word.lanes = used
    if record.format != FP16:
        return 0
    least, most = 0xFFFF, 0
    for n in range(PARTS):
        found = extremes16(part_of(part, record, at, n), 2 * used)
        least, most = min(least, found >> 16), max(most, found & 0xFFFF)
    word.unit = unit_of(least)
    word.peak = np.inf if most >= 0x7C00 else -1.0
    norms = doubles_at(word_address + _NORMS, COLUMNS)
    for column in range(COLUMNS):
        norms[column] = np.inf
    return 0


@kernel(INT(INT, INT, INT, INT))
def weight_norms(part_address: int, number: int, load: int, word_address: int) -> int:
    """Fill in the norms of the columns of a word that has been measured."""
    part = part_at(part_address)
    record, word = record_at(part, number), word_at(word_address)
    norms = doubles_at(word_address + _NORMS, COLUMNS)
    place = place_of(part, record, word_of(part, record, load))
    squares16(place, word.lanes, word_address + _NORMS)
    peak = 0.0
    for column in range(COLUMNS):
        norms[column] = np.sqrt(norms[column] * _SLACK)
        peak = norms[column] if norms[column] > peak else peak
    word.peak = peak
    return 0


@kernel(INT(INT, INT))
def keep(part_address: int, number: int) -> int:
    """Keep what is to be known of the words of a record that have been written since."""
    part = part_at(part_address)
    record = record_at(part, number)
    statistics = integer(part.statistics, record.statistics)
    for load in range(record.tiles * record.loads):
        address = statistics + WORD_BYTES * word_of(part, record, load)
        if word_at(address).lanes == 0:
            measure(part_address, number, load, address)
            if record.format == FP16 and word_at(address).peak < 0:
                weight_norms(part_address, number, load, address)
    return 0
