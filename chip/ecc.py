"""SECDED: 128 data and 9 check bits per word of a tile, in SRAM and on streams. [ISCA20]

The producer of a word makes the check bits, they travel and rest with it, and every consumer checks
and corrects before it uses the word. The published width allows a single-error-correcting,
double-error-detecting code; which one is not published. This is a Hsiao code (1970): each bit has a
column of odd weight of the 9-row parity-check matrix, so one flip gives an odd syndrome that names
the bit, and two give an even one that is not zero.

A word is an integer: data bits 0 to 127, check bits 128 to 136.
"""

from itertools import combinations

DATA_BITS, CHECK_BITS = 128, 9
WORD_BITS = DATA_BITS + CHECK_BITS
DATA_MASK = (1 << DATA_BITS) - 1


class Uncorrectable(ValueError):
    """Two bits of a word are wrong."""


def _columns() -> tuple[int, ...]:
    """All 84 columns of weight 3, then 44 of weight 5 that keep the rows even, then the check bits.

    Even rows mean trees of equal depth for all check bits.
    """
    threes = [sum(1 << bit for bit in bits) for bits in combinations(range(CHECK_BITS), 3)]
    fives = [sum(1 << bit for bit in bits) for bits in combinations(range(CHECK_BITS), 5)]
    load = [0] * CHECK_BITS
    chosen = []
    for _ in range(DATA_BITS - len(threes)):
        best = min(fives, key=lambda c: sum(load[i] ** 2 for i in range(CHECK_BITS) if c >> i & 1))
        fives.remove(best)
        chosen.append(best)
        load = [n + (best >> i & 1) for i, n in enumerate(load)]
    return (*threes, *chosen, *(1 << bit for bit in range(CHECK_BITS)))


COLUMNS = _columns()
ROWS = tuple(
    sum(1 << bit for bit, column in enumerate(COLUMNS) if column >> row & 1)
    for row in range(CHECK_BITS)
)
_BIT_OF = {column: bit for bit, column in enumerate(COLUMNS)}


def encode(data: int) -> int:
    """The word of 137 bits for 128 bits of data."""
    return data | _parities(data) << DATA_BITS


def decode(word: int) -> tuple[int, int | None]:
    """(data, the bit that was wrong and is corrected, or None); raises Uncorrectable."""
    syndrome = _parities(word)
    if not syndrome:
        return word & DATA_MASK, None
    bit = _BIT_OF.get(syndrome)
    if bit is None:
        raise Uncorrectable(f"syndrome {syndrome:09b}")
    return (word ^ 1 << bit) & DATA_MASK, bit


def _parities(word: int) -> int:
    return sum(((word & row).bit_count() & 1) << n for n, row in enumerate(ROWS))
