"""How a tape is written: what `chip.tape` encodes and `chip.numerics.tape` runs. No numba here.

A tape is a run of records of `WIDTH` integers: an opcode, a number of rows, up to three operands,
then what the opcode needs besides. An operand is rows of lanes side by side: a base, a byte offset
from it, bytes from row to row, the place in the tables where row numbers stand (-1: 0, 1, 2..), and
the issue by whose shift in words it moves (-1: none).
"""

from itertools import count

WIDTH = 40
OP, ROWS, OUT, A, B = 0, 1, 2, 7, 12
BASE, OFFSET, STRIDE, INDEX, SHIFT = range(5)  # of an operand
CONSTANTS, ARENA, GROUPS = 0, 1, 2  # bases; after the groups of SRAM come the accumulators

_codes = count()
COPY, LANES, PRODUCTS, APPEND = (next(_codes) for _ in range(4))
ADD, SUB, MUL, MAX, MIN = (next(_codes) for _ in range(5))  # fp32
EXP, TANH, RSQRT, RECIP, TO_F16, TO_F32 = (next(_codes) for _ in range(6))
MAX16, MIN16, ADD_I32, ABS, FROM_I32, TO_I8 = (next(_codes) for _ in range(6))

# COPY: elements of SIZE bytes, FROM and TO elements apart; TOUCHED is the SRAM group written or -1
SIZE, FROM, TO, TOUCHED = 17, 18, 19, 20
# LANES: SIZE as above, MAP is where the lane numbers stand in the tables; or, for each of RUNS runs
# of lanes that stay side by side, where it goes, where it comes from, and its length
MAP, RUNS = 18, 19
# PRODUCTS: tile t is words TABLE_WORDS + t * LOADS + j; load j fills columns from TABLE_FIRST + j
# on; iterations STARTS[t] to STARTS[t + 1] of ORDER meet it, with row ORDER[i] % X_ROWS of A.
FORMAT, TILES, LOADS, TABLE_WORDS, TABLE_FIRST, STARTS, ORDER, X_ROWS = range(17, 25)
# Four parts of each word: from base PARTS_BASE on if PARTS_STEP is 0, else that many bytes apart.
PARTS_BASE, PARTS_OFFSET, PARTS_STEP, PARTS_SHIFT = range(25, 29)
STATS = 29  # first SRAM group, where statistics of its words are kept; -1: they are not
UNIT, X_SCRATCH, OUT_SCRATCH = 30, 31, 32  # units before this record's; bytes into the scratch
LEFT = 33  # PRODUCTS records from this one to the end of its run: they are independent
ZEROED = 34  # whether columns that no load fills are to be zero
# APPEND
REGION_SHIFT, REGION_BASE, REGION_WORDS, FIRST_GROUP, PAIRS = 17, 18, 19, 20, 21

FP16, INT8 = 0, 1  # formats of PRODUCTS

# What is kept of a word of weights, as float64: used lanes (0: unknown), the unit and the largest
# norm of its columns, then each norm.
STATS_LANES, STATS_UNIT, STATS_PEAK, STATS_NORMS, STATS_WIDTH = 0, 1, 2, 3, 16

# What stands behind a row of x, as float64: its norm; below which norm * |w| its sums are exact;
# the first lane and the number of lanes that matter; the only lane that is not zero, or -1; how
# many rows from this one on have one lane only, each the lane after that of the row before.
X_NORM, X_UNIT, X_FIRST, X_COUNT, X_ONLY, X_RUN, X_ABOUT = 0, 1, 2, 3, 4, 5, 8

# What a part of a play is: addresses of its tape, bases, statistics by group, shifts and tables;
# the number of records, the scratch buffer, the lanes of a row and of a tile.
TAPE, BASES, STATISTICS, SHIFTS, TABLES, COUNT, SCRATCH, ROW_LANES, TILE_LANES = range(9)
PART_WORDS = 9
