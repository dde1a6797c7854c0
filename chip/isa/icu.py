"""Instruction control: what a queue does between the instructions of its unit. [ISCA20, Table 1]"""

from chip.isa.op import op


@op("icu.nop", "any", "count:int", "NOP N")
def nop(count: int) -> int:
    """Wait `count` cycles on this queue."""
    return count
